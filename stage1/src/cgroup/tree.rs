//! Looking at a cgroup and those below it. Host side.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// The cgroups right below `dir`; none if it is gone.
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

/// Whether a cgroup is not there, or was removed while one of its files was open.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Adds the processes of `dir` and of the cgroups below it to `pids`; none of a cgroup that is gone. A process of
/// another PID namespace than the caller's, to whom it has no number, is 0.
pub(super) fn members_below(dir: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let file = dir.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Err(e) if is_gone(&e) => return Ok(()),
        // A threaded cgroup has no list of processes; its parent does.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        members => {
            for line in members.context(|| format!("read {file:?}"))?.lines() {
                pids.push(line.parse().context(|| format!("{file:?} has the line {line:?}"))?);
            }
        }
    }
    children(dir)?.iter().try_for_each(|child| members_below(child, pids))
}
