//! Making, opening, listing and syncing directories of the host.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};

/// Mode of the directories below the data directory: closed to other users, because images have setuid programs.
pub(crate) const PRIVATE: u32 = 0o700;

/// The names of a directory's entries; an empty list if the directory does not exist.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<OsString>> {
    let shown = || format!("read directory {dir:?}");
    match dir.read_dir() {
        Ok(entries) => entries.map(|entry| Ok(entry.context(shown)?.file_name())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::caused_by(shown(), error)),
    }
}

/// Makes the directory and its missing parents with `mode`; does nothing if it exists.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path).context(|| format!("make directory {path:?}"))
}

/// Opens a directory, not through a symbolic link; `None` if it does not exist.
pub(crate) fn open_dir(path: &Path) -> Result<Option<File>> {
    match fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::caused_by(format!("open directory {path:?}"), errno)),
    }
}

/// Writes the whole file system of the directory to disk (syncfs(2)): all files below it, and its own directory entry.
pub(crate) fn sync_file_system(path: &Path) -> Result<()> {
    let dir = open_dir(path)?.context(|| format!("directory {path:?} has vanished"))?;
    fs::syncfs(&dir).context(|| format!("syncfs({path:?})"))
}

/// Writes a directory's entries to disk (fsync(2)).
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let dir = open_dir(path)?.context(|| format!("directory {path:?} has vanished"))?;
    dir.sync_all().context(|| format!("fsync({path:?})"))
}

/// Fails if `path`, with symbolic links followed, does not exist.
pub(crate) fn must_exist(path: &str) -> Result<()> {
    Path::new(path).metadata().context(|| format!("the source {path:?}")).map(drop)
}
