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

/// Opens a directory that the user named, through symbolic links.
pub(crate) fn open_dir_of_user(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map(File::from).context(|| format!("open directory {path:?}"))
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

/// Fails if `path`, the source of a mount, with symbolic links followed, does not exist.
pub(crate) fn must_exist(path: &str) -> Result<()> {
    let found = Path::new(path).metadata().context(|| format!("the source {path:?}")).map(drop);
    found.map_err(|error| match missing(Path::new(path), error) {
        Ok(missing) => {
            Error::new(format!("the source {}: make it first, for example by mkdir -p {path}", missing.one_line()))
        }
        Err(other) => other,
    })
}

/// The error in plain words, if it says that a path that the user named does not exist.
///
/// # Errors
/// It says something else: the error itself.
pub(crate) fn missing(path: &Path, error: Error) -> Result<Error> {
    match error.errno().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => Ok(Error::new(match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) if !parent.exists() => format!("{path:?} does not exist: there is no directory {parent:?}"),
            _ => format!("{path:?} does not exist"),
        })),
        Some(Errno::NOTDIR) => {
            Ok(Error::new(format!("{path:?} does not exist: a part of the path is not a directory")))
        }
        _ => Err(error),
    }
}

/// The error in plain words if the path that the user named does not exist, else the error itself.
pub(crate) fn in_words(path: &Path) -> impl Fn(Error) -> Error {
    move |error| missing(path, error).unwrap_or_else(|other| other)
}
