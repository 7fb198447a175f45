//! Ending a pod, and removing what it leaves on the host. Host side.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::cgroup::{CGROUP_PARENT, PodCgroup};
use crate::cross::Target;
use crate::error::{Context, Error, Result};
use crate::pod::{Pod, remove_if_there};
use crate::streams::call;
use crate::sys::{dir, process, signal};
use crate::{app, appc};

/// Least timeout of an orderly end: an app without a stop timeout of its own has systemd's 90 seconds.
const ORDERLY: Duration = Duration::from_secs(120);
/// Timeout for the end of processes that were killed.
const KILLED: Duration = Duration::from_secs(20);

/// Time for the end of the pod's systemd, beyond that of the apps.
const REST: Duration = Duration::from_secs(30);

/// Timeout of an orderly end of the pod in the directory `pod`: two minutes, or more if a stop timeout of its apps asks
/// for it.
pub fn time_to_end(pod: &Path) -> Duration {
    let declared = |pod: &Pod| {
        let timeouts = pod.manifest.apps.iter().map(|app| app::stop_timeout(&pod.app(&app.name)?));
        // An app whose stop timeout can't be read does not count.
        timeouts.filter_map(|timeout| timeout.ok().flatten()).max().unwrap_or_default()
    };
    let longest = Pod::load(pod).map(|pod| declared(&pod)).unwrap_or_else(|error| {
        log::debug!("stop timeouts: {}", error.one_line());
        Duration::ZERO
    });
    // The timeout applies to the app, to the processes that it leaves, and to its handlers; apps end at the same time.
    ORDERLY.max(longest.saturating_mul(3).saturating_add(REST))
}

/// Tells the monitor of the pod in the current directory that the pod is being ended in order: from now on an app that
/// a signal ends has not failed, and the monitor stops waiting for the reader of the output of `run` after a while. A
/// monitor that has already ended is not an error.
fn announce() {
    if let Err(error) = call::from_host(&[call::STOP]) {
        log::debug!("{}", error.one_line());
    }
}

/// Ends the pod in order: tells its monitor, which orders the pod's systemd to halt; sends that order itself too, in
/// case the monitor can't; and waits until PID 1 has ended.
///
/// # Errors
/// PID 1 has not ended after [`time_to_end`], or this process may not send it signals.
pub fn in_order(target: &Target) -> Result<()> {
    announce();
    target.kill(signal::systemd_halt())?;
    wait(target, time_to_end(Path::new(".")), "use --force to end it at once")
}

/// Kills every process of the pod, by its PID 1, and waits until they have ended. A frozen pod is thawed: with cgroup
/// v1 a frozen process does not end even when it is killed.
///
/// # Errors
/// They have not ended after 20 seconds, or this process may not send PID 1 signals.
pub fn at_once(target: &Target) -> Result<()> {
    target.kill(Signal::KILL)?;
    if process::pidfd_wait_end(target.pidfd(), Duration::from_millis(100))? {
        return Ok(());
    }
    if let Err(error) = PodCgroup::recorded(Path::new(".")).and_then(|cgroup| cgroup.thaw()) {
        log::warn!("{}", error.one_line());
    }
    wait(target, KILLED, "a process of it may hang in the kernel")
}

/// Sends SIGCONT to the monitor of the pod in the current directory, in case it was stopped (SIGSTOP): a pod has ended
/// only when its monitor has. The monitor is the parent of PID 1, and its working directory is the pod directory.
///
/// # Errors
/// The files that name PID 1 or its parent can't be read, or this process may not send the monitor signals.
pub fn wake_monitor() -> Result<()> {
    let Some(pid) = crate::pod::read_pid(Path::new("."))? else { return Ok(()) };
    let Some(monitor) = parent(pid)? else { return Ok(()) };
    let Ok(pidfd) = process::pidfd_open(monitor) else { return Ok(()) };
    // The directory is found by PID; the pidfd was opened before, so the signal goes to that process or to none.
    let its = dir::open_dir(format!("/proc/{monitor}/cwd"));
    let is_monitor =
        its.is_ok_and(|its| dir::open_dir(".").and_then(|own| dir::same_file(&its, &own)).unwrap_or(false));
    if is_monitor { process::pidfd_kill(&pidfd, Signal::CONT) } else { Ok(()) }
}

/// The parent of a process: proc_pid_stat(5). `None` if the process does not exist.
fn parent(pid: i32) -> Result<Option<i32>> {
    let path = format!("/proc/{pid}/stat");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(_) => return Ok(None),
    };
    // The second field is the program's name in parentheses, and may itself have blanks and parentheses.
    let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
    parent.context(|| format!("{path} has no parent in it")).map(Some)
}

fn wait(target: &Target, timeout: Duration, hint: &str) -> Result<()> {
    if process::pidfd_wait_end(target.pidfd(), timeout)? {
        return Ok(());
    }
    Err(Error::new(format!("the pod has not ended within {} seconds: {hint}", timeout.as_secs())))
}

/// Removes what the ended pod in the current directory leaves on the host: its cgroups, its networks, a link to its
/// journal. What is already gone is not an error. `local_config` is the host manager's configuration directory.
///
/// # Errors
/// `uuid` is not a UUID, or something could not be removed; all else is.
pub fn remove_remains(uuid: &str, local_config: &Path) -> Result<()> {
    remove_remains_of(Path::new("."), &crate::pod::check_uuid(uuid)?, local_config)
}

/// As [`remove_remains`], for the ended pod in the directory `pod`.
///
/// # Errors
/// Something could not be removed; all else is.
pub fn remove_remains_of(pod: &Path, uuid: &str, local_config: &Path) -> Result<()> {
    // The cgroups first: after that no process of the pod uses a network.
    let parts = [
        remove_cgroups(pod, uuid),
        crate::net::leave(pod, uuid, local_config),
        remove_journal_link(Path::new(HOST_JOURNAL), uuid),
    ];
    let failed: Vec<String> = parts.into_iter().filter_map(|part| Some(part.err()?.one_line())).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
}

fn remove_cgroups(pod: &Path, uuid: &str) -> Result<()> {
    match PodCgroup::recorded(pod) {
        Ok(recorded) => recorded.remove(uuid)?,
        // If `run` was killed before the file was whole, the cgroup is in the place where `run` always makes it.
        Err(error) if error.errno() == Some(libc::ENOENT) => {}
        Err(error) => log::warn!("{}", error.one_line()),
    }
    let pod = Pod::load(pod).ok();
    let parent = pod.as_ref().and_then(|pod| appc::find(&pod.manifest.annotations, CGROUP_PARENT)?.parse().ok());
    PodCgroup::of(uuid, parent.as_ref())?.remove(uuid)
}

/// Directory of the host's journals: systemd-journald.service(8).
const HOST_JOURNAL: &str = "/var/log/journal";

/// Removes the symbolic link to the pod's journal from the directory `journals`. `run` makes no such link, because the
/// host's tools would read through it what the pod writes; an administrator may have made one.
fn remove_journal_link(journals: &Path, uuid: &str) -> Result<()> {
    let link = journals.join(uuid.replace('-', ""));
    match link.symlink_metadata() {
        Ok(stat) if stat.is_symlink() => remove_if_there(&link),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(|| format!("stat {link:?}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_to_this_pods_journal_is_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        let [mine, other] = ["0123456789abcdef0123456789abcdef", "1123456789abcdef0123456789abcdef"];
        remove_journal_link(&tmp.path().join("none"), uuid).unwrap();
        for name in [mine, other] {
            std::os::unix::fs::symlink("/nowhere", tmp.path().join(name)).unwrap();
        }
        remove_journal_link(tmp.path(), uuid).unwrap();
        assert!(tmp.path().join(mine).symlink_metadata().is_err());
        assert!(tmp.path().join(other).symlink_metadata().is_ok());
        std::fs::create_dir(tmp.path().join(mine)).unwrap();
        remove_journal_link(tmp.path(), uuid).unwrap();
        assert!(tmp.path().join(mine).is_dir());
    }
}
