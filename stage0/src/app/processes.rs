//! The processes of a pod and of its apps, read from the host's /proc.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::{SysconfVar, sysconf};
use stage1::appc::AcName;
use stage1::cgroup::PodCgroup;
use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::sys::process;

use crate::fsutil::time::nanoseconds;
use crate::poddir::find::Pod;

/// A process of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Its PID on the host.
    pub pid: i32,
    /// The parent's PID on the host; 0 if the parent is not visible.
    pub parent: i32,
    /// Its PID in the pod.
    pub pid_in_pod: i32,
    /// Its effective UID on the host.
    pub uid: u32,
    /// When it was started, in nanoseconds since 1970.
    pub started_at: i64,
    /// The CPU time it has used, in microseconds.
    pub cpu_us: u64,
    /// Its resident set size, in bytes.
    pub memory: u64,
    /// The number of its threads.
    pub threads: u64,
    /// Its command line, or its name in brackets if it has none.
    pub command: String,
    /// When it was started, in clock ticks after boot; it orders the processes.
    pub(crate) ticks: u64,
}

/// The processes of an app, or of the whole pod if `app` is `None`, the oldest first. Processes that end meanwhile are
/// left out.
///
/// # Errors
/// The pod's cgroup can't be read.
pub fn list(pod: &Pod, app: Option<&AcName>) -> Result<Vec<Member>> {
    let place = app.map(layout::app_cgroup).unwrap_or_default();
    let mut found: Vec<Member> =
        PodCgroup::recorded(pod.dir())?.processes(&place)?.into_iter().filter_map(look_at).collect();
    found.sort_by_key(|member| (member.ticks, member.pid));
    Ok(found)
}

/// Sends a signal to the oldest process of an app, which is the one that the pod's systemd started.
///
/// # Errors
/// The app does not run, the pod's cgroup can't be read, or the signal can't be sent.
pub fn signal(pod: &Pod, app: &AcName, signal: rustix::process::Signal) -> Result<()> {
    let place = layout::app_cgroup(app);
    let first = list(pod, Some(app))?.into_iter().next();
    let pid = first.map(|member| member.pid).context(|| format!("app {app} does not run"))?;
    let pidfd = process::pidfd_open(pid)?;
    // before the pidfd was open the PID could go to another process; from here on it can't
    if !PodCgroup::recorded(pod.dir())?.processes(&place)?.contains(&pid) {
        return Err(Error::new(format!("app {app} has just ended")));
    }
    process::pidfd_kill(&pidfd, signal)
}

/// Reads /proc/PID/{stat,status,cmdline}, proc(5); `None` if the process has ended.
fn look_at(pid: i32) -> Option<Member> {
    let dir = Path::new("/proc").join(pid.to_string());
    let stat = Stat::parse(&fs::read_to_string(dir.join("stat")).ok()?)?;
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let words = fs::read(dir.join("cmdline")).ok()?;
    let words: Vec<_> = words.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let command = words.join(" ");
    let ticks = rate(SysconfVar::CLK_TCK);
    Some(Member {
        pid,
        parent: stat.parent,
        pid_in_pod: field("NSpid:")?.split_whitespace().next_back()?.parse().ok()?,
        uid: field("Uid:")?.split_whitespace().nth(1)?.parse().ok()?,
        started_at: booted_at()? + i64::try_from(u128::from(stat.started) * 1_000_000_000 / u128::from(ticks)).ok()?,
        cpu_us: stat.cpu.saturating_mul(1_000_000) / ticks,
        memory: stat.pages.saturating_mul(rate(SysconfVar::PAGE_SIZE)),
        threads: stat.threads,
        command: match command.trim_end() {
            "" => format!("[{}]", stat.name),
            command => command.to_owned(),
        },
        ticks: stat.started,
    })
}

fn rate(of: SysconfVar) -> u64 {
    sysconf(of).ok().flatten().and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(1)
}

/// When the machine booted, in nanoseconds since 1970.
fn booted_at() -> Option<i64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let up = Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()?;
    Some(nanoseconds(SystemTime::now().checked_sub(up).unwrap_or(UNIX_EPOCH)))
}

/// Fields of /proc/PID/stat, proc_pid_stat(5): times in clock ticks, the resident set in pages.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: i32,
    cpu: u64,
    threads: u64,
    started: u64,
    pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // the name may contain spaces and parentheses
        let (start, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |nth: usize| fields.get(nth - 3)?.parse::<u64>().ok();
        Some(Self {
            name: start.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            cpu: number(14)? + number(15)?,
            threads: number(20)?,
            started: number(22)?,
            pages: number(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_an_odd_name() {
        let text = "7 (a) (b c) S 1 7 7 0 -1 4194560 5 0 0 0 30 12 0 0 20 0 3 0 999 1000 42 18446744073709551615 1";
        let expected = Stat { name: "a) (b c".into(), parent: 1, cpu: 42, threads: 3, started: 999, pages: 42 };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("7 (x) S 1"), None);
    }

    #[test]
    fn a_process_is_described() {
        let me = look_at(std::process::id().cast_signed()).unwrap();
        assert!(me.memory > 0 && me.threads > 0 && !me.command.is_empty());
        let age = nanoseconds(SystemTime::now()) - me.started_at;
        assert!((-2_000_000_000..3_600_000_000_000).contains(&age), "{age}");
        assert_eq!(look_at(i32::MAX), None);
    }
}
