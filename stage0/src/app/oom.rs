//! Processes of running apps that the kernel has killed for lack of memory. The kernel only counts them: whoever reads
//! the events of a pod has those that were not recorded yet recorded.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FlockOperation;
use stage1::appc::AcName;
use stage1::cgroup::{OomKills, PodCgroup};
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::pod::events::Event;

use super::processes;
use crate::poddir::find::{Pod, State};
use crate::poddir::manifest;

/// The file, in the host's directory of the app, with the kills that were recorded last: the number of the cgroup's
/// inode, a blank, the count.
const RECORDED: &str = "oom-kills";
/// How long an app must go on after a kill: if the kill ended the app, its end is told with all that belongs to it.
const GOES_ON: Duration = Duration::from_millis(200);
/// A word of the command line of the program that records an app's end, in the app's cgroup.
const REAPER: &str = "/opt/stage1/bin/reaper";

/// How many processes of a running app the kernel has killed for lack of memory since the app was started; 0 if the
/// kernel does not count them, as for an app without a memory limit.
pub fn kills(pod: &Pod, app: &AcName) -> u64 {
    counted(pod, app).map_or(0, |kills| kills.count)
}

fn counted(pod: &Pod, app: &AcName) -> Option<OomKills> {
    if pod.state() != State::Running || !pod.dir().join(layout::SUBCGROUP).exists() {
        return None;
    }
    PodCgroup::recorded(pod.dir()).ok()?.oom_kills(&layout::app_cgroup(app)).filter(|kills| kills.count > 0)
}

/// Records an event `out-of-memory` for each running app that has lost processes since this was called last.
///
/// # Errors
/// The manifest can't be read, or the record of an app can't be read or written.
pub fn record_kills(pod: &Pod) -> Result<()> {
    if pod.state() != State::Running {
        return Ok(());
    }
    for app in manifest::read(pod.dir())?.apps {
        let Some(seen) = counted(pod, &app.name) else { continue };
        let path = pod.dir().join(layout::app_info(&app.name)).join(RECORDED);
        if recorded(&std::fs::read_to_string(&path).unwrap_or_default(), seen) < seen.count && goes_on(pod, &app.name)?
        {
            record(pod, &app.name, &path)?;
        }
    }
    Ok(())
}

/// Whether the app runs now and a while later.
fn goes_on(pod: &Pod, app: &AcName) -> Result<bool> {
    let runs = || -> Result<bool> {
        let members = processes::list(pod, Some(app))?;
        Ok(!members.is_empty() && !members.iter().any(|member| member.command.contains(REAPER)))
    };
    if !runs()? {
        return Ok(false);
    }
    std::thread::sleep(GOES_ON);
    runs()
}

/// Records what was not recorded yet, unless another process does so at this moment.
fn record(pod: &Pod, app: &AcName, path: &Path) -> Result<()> {
    let shown = || format!("write {path:?}");
    let mut options = File::options();
    let mut file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).context(shown)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let mut text = String::new();
    file.read_to_string(&mut text).context(shown)?;
    let Some(seen) = counted(pod, app) else { return Ok(()) };
    let new = seen.count.saturating_sub(recorded(&text, seen));
    if new == 0 {
        return Ok(());
    }
    write(&mut file, seen).context(shown)?;
    let why = Some(format!("{} killed, the app goes on", processes_of(new)));
    Event { why, ..Event::now("out-of-memory", Some(app)) }.note(pod.dir(), layout::EVENTS);
    Ok(())
}

fn write(file: &mut File, seen: OomKills) -> std::io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    write!(file, "{} {}", seen.cgroup, seen.count)
}

/// How many of the kills the text of the record has; 0 if it is of another cgroup.
fn recorded(text: &str, seen: OomKills) -> u64 {
    let of_cgroup = |text: &str| -> Option<u64> {
        let (cgroup, count) = text.trim().split_once(' ')?;
        (cgroup.parse() == Ok(seen.cgroup)).then_some(count.parse().ok()?)
    };
    of_cgroup(text).unwrap_or(0)
}

/// A number of processes in words.
pub fn processes_of(count: u64) -> String {
    if count == 1 { "1 process".to_owned() } else { format!("{count} processes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_counts_for_the_same_cgroup_only() {
        let seen = OomKills { cgroup: 7, count: 3 };
        for (text, known) in [("7 2", 2), ("7 3\n", 3), ("8 3", 0), ("", 0), ("x", 0), ("7 x", 0)] {
            assert_eq!(recorded(text, seen), known, "{text:?}");
        }
        let mut file = tempfile::tempfile().unwrap();
        for seen in [OomKills { cgroup: 7, count: 300 }, seen] {
            write(&mut file, seen).unwrap();
        }
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), processes_of(1).as_str()), ("7 3", "1 process"));
    }
}
