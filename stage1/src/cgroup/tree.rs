//! Listing the processes of a cgroup and the cgroups below it. Host side.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// The cgroups directly below `dir`; empty if it does not exist.
pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        other => other.context(|| format!("read {dir:?}"))?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.context(|| format!("read {dir:?}"))?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// Whether the error says that a cgroup does not exist, or was removed while one of its files was open.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Adds the PIDs of the processes in `dir` and in the cgroups below it to `pids`. A cgroup that does not exist has
/// none. A process that has no PID in the caller's PID namespace is listed as 0.
pub(super) fn members_below(dir: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let file = dir.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Err(e) if is_gone(&e) => return Ok(()),
        // The processes of a threaded cgroup are listed in the domain cgroup above it only: cgroups(7).
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        members => {
            for line in members.context(|| format!("read {file:?}"))?.lines() {
                pids.push(line.parse().context(|| format!("{file:?} has the line {line:?}"))?);
            }
        }
    }
    children(dir)?.iter().try_for_each(|child| members_below(child, pids))
}
