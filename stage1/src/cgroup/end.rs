//! Killing the processes of a cgroup, and removing it with the cgroups below. Host side.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::tree::{children, is_gone};
use crate::error::{Context, Error, Result};
use crate::sys::process;

/// Time between checks whether killed processes have ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Removes the cgroups below `dir`, killing all processes in them and in `dir` itself. A cgroup that does not exist is
/// not an error.
///
/// # Errors
/// Processes have not ended by `deadline`, or a cgroup can't be removed.
pub(super) fn empty_tree(dir: &Path, deadline: Instant) -> Result<()> {
    children(dir)?.iter().try_for_each(|child| remove_tree(child, deadline))?;
    while !members(dir)?.is_empty() {
        if Instant::now() > deadline {
            return Err(Error::new(format!("the processes in {dir:?} did not end when they were killed")));
        }
        kill_members(dir)?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// As [`empty_tree`], and removes `dir` too.
pub(super) fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    empty_tree(dir, deadline)?;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if is_gone(&e) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                kill_members(dir)?;
                std::thread::sleep(PAUSE);
            }
            Err(e) => return Err(e).context(|| format!("rmdir {dir:?}")),
        }
    }
}

/// Kills every process of one cgroup. Each is killed by a pidfd, after a second look that its PID is still a member.
fn kill_members(dir: &Path) -> Result<()> {
    let opened: Vec<_> = members(dir)?
        .into_iter()
        .filter(|pid| *pid > 0)
        .filter_map(|pid| process::pidfd_open(pid).ok().map(|fd| (pid, fd)))
        .collect();
    let still = members(dir)?;
    opened
        .iter()
        .filter(|(pid, _)| still.contains(pid))
        .try_for_each(|(_, fd)| process::pidfd_kill(fd, rustix::process::Signal::KILL))
}

/// The PIDs of the processes in one cgroup; empty if it does not exist.
fn members(dir: &Path) -> Result<Vec<i32>> {
    let file = dir.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Err(e) if is_gone(&e) => Ok(Vec::new()),
        text => Ok(text.context(|| format!("read {file:?}"))?.lines().filter_map(|l| l.parse().ok()).collect()),
    }
}
