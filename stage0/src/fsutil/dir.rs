//! Directories of the host: made, opened, listed, synced.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};

/// Mode of the directories below the data directory: what is in them can be setuid.
pub(crate) const PRIVATE: u32 = 0o700;

/// The names in a directory; none if it is not there.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<OsString>> {
    let shown = || format!("read directory {dir:?}");
    match dir.read_dir() {
        Ok(entries) => entries.map(|entry| Ok(entry.context(shown)?.file_name())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::caused_by(shown(), error)),
    }
}

/// Makes the directory and those above it, unless it is there.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path).context(|| format!("make directory {path:?}"))
}

/// Opens a directory; `None` if it is not there.
pub(crate) fn open_dir(path: &Path) -> Result<Option<File>> {
    match fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => Ok(Some(fd.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::caused_by(format!("open directory {path:?}"), errno)),
    }
}

/// Makes what is below a directory, and its entry in the one above, survive a power cut.
pub(crate) fn sync_file_system(path: &Path) -> Result<()> {
    let dir = open_dir(path)?.context(|| format!("directory {path:?} has vanished"))?;
    fs::syncfs(&dir).context(|| format!("syncfs({path:?})"))
}

/// Makes a directory's entries survive a power cut.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let dir = open_dir(path)?.context(|| format!("directory {path:?} has vanished"))?;
    dir.sync_all().context(|| format!("fsync({path:?})"))
}

/// Fails unless there is something at `path`, links followed.
pub(crate) fn must_exist(path: &str) -> Result<()> {
    Path::new(path).metadata().context(|| format!("the source {path:?}")).map(drop)
}
