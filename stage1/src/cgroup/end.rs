//! Ending what runs in a cgroup, and removing it with those below. Host side.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use super::is_gone;
use crate::error::{Context, Result};
use crate::sys::process;

/// Removes a cgroup and those below it, killing what runs in them, until `deadline`.
pub(super) fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    let children = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.context(|| format!("read {dir:?}"))?,
    };
    for child in children {
        let child = child.context(|| format!("read {dir:?}"))?;
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&child.path(), deadline)?;
        }
    }
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                kill_members(dir)?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e).context(|| format!("rmdir {dir:?}")),
        }
    }
}

/// Kills every process of one cgroup, each by a descriptor that was checked to be a member still.
fn kill_members(dir: &Path) -> Result<()> {
    let file = dir.join("cgroup.procs");
    let members = || -> Result<Vec<i32>> {
        match fs::read_to_string(&file) {
            Err(e) if is_gone(&e) => Ok(Vec::new()),
            text => Ok(text.context(|| format!("read {file:?}"))?.lines().filter_map(|l| l.parse().ok()).collect()),
        }
    };
    let opened: Vec<_> = members()?
        .into_iter()
        .filter(|pid| *pid > 0)
        .filter_map(|pid| process::pidfd_open(pid).ok().map(|fd| (pid, fd)))
        .collect();
    let still = members()?;
    opened
        .iter()
        .filter(|(pid, _)| still.contains(pid))
        .try_for_each(|(_, fd)| process::pidfd_kill(fd, rustix::process::Signal::KILL))
}
