//! Removing files of lower layers while a layer is unpacked over them, but no files that this layer made.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};

use super::MAX_DEPTH;

/// Removes the entries of a directory except those whose inodes are in `made`; returns whether it is empty now.
pub(super) fn remove_lower_contents(dir: BorrowedFd<'_>, made: &BTreeSet<u64>, depth: usize) -> Result<bool> {
    if depth > MAX_DEPTH {
        return Err(Error::new(format!("deeper than {MAX_DEPTH} directories")));
    }
    let mut empty = true;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let reading = fs::openat(dir, ".", flags, Mode::empty()).context(|| "open directory")?;
    for name in Dir::read_from(&reading).context(|| "read directory")? {
        let name = name.context(|| "read directory")?;
        let name = OsStr::from_bytes(name.file_name().to_bytes());
        if name != "." && name != ".." {
            empty &= remove_lower(dir, name, made, depth)?;
        }
    }
    Ok(empty)
}

/// Removes `name` and all below it except files whose inodes are in `made`; returns whether `name` is gone.
pub(super) fn remove_lower(dir: BorrowedFd<'_>, name: &OsStr, made: &BTreeSet<u64>, depth: usize) -> Result<bool> {
    let shown = || format!("remove {name:?} of a lower layer");
    let stat = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(true),
        other => other.context(shown)?,
    };
    let keep = made.contains(&stat.st_ino);
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let child = fs::openat(dir, name, flags, Mode::empty()).context(shown)?;
        if remove_lower_contents(child.as_fd(), made, depth + 1)? && !keep {
            fs::unlinkat(dir, name, AtFlags::REMOVEDIR).context(shown)?;
            return Ok(true);
        }
        return Ok(false);
    }
    if !keep {
        fs::unlinkat(dir, name, AtFlags::empty()).context(shown)?;
    }
    Ok(!keep)
}
