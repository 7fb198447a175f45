//! The data directory: where images, trees and pods are kept, its locks and its temporary directories.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};

use crate::remove;

/// Mode of the directories below the data directory: what is in them can be setuid.
pub(crate) const PRIVATE: u32 = 0o700;

/// The data directory of one host manager.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens the data directory at `dir`, which is made if it is missing. What is in it is made when it is needed.
    ///
    /// # Errors
    /// The directory can't be made, or the path has a line break in it.
    pub fn open(dir: &Path) -> Result<Self> {
        if dir.as_os_str().as_encoded_bytes().contains(&b'\n') {
            return Err(Error::new(format!("the data directory {dir:?} has a line break in its name")));
        }
        make_dir(dir, 0o755)?;
        let dir = dir.canonicalize().context(|| format!("resolve {dir:?}"))?;
        Ok(Self { dir })
    }

    /// The data directory itself, without links in its path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One directory per image, named by its id.
    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// One symbolic link per image name, to the image's id.
    pub fn names(&self) -> PathBuf {
        self.dir.join("names")
    }

    /// Rendered images, one directory per tree id.
    pub fn trees(&self) -> PathBuf {
        self.dir.join("trees")
    }

    /// The directory of the phase directories.
    pub fn pods(&self) -> PathBuf {
        self.dir.join("pods")
    }

    fn temporary(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Takes the lock of the image store, held until the file is dropped. Images, names and trees change under it.
    ///
    /// # Errors
    /// The lock file can't be opened or locked.
    pub fn lock_images(&self) -> Result<File> {
        self.flock_images(FlockOperation::LockExclusive)
    }

    /// Shares the lock of the image store, until the file is dropped: nothing in it is removed or replaced meanwhile.
    ///
    /// # Errors
    /// The lock file can't be opened or locked.
    pub fn share_images(&self) -> Result<File> {
        self.flock_images(FlockOperation::LockShared)
    }

    fn flock_images(&self, how: FlockOperation) -> Result<File> {
        self.flock("images.lck", how)
    }

    /// Takes the lock under which pods are given user ids, held until the file is dropped.
    ///
    /// # Errors
    /// The lock file can't be opened or locked.
    pub fn lock_users(&self) -> Result<File> {
        self.flock("users.lck", FlockOperation::LockExclusive)
    }

    fn flock(&self, name: &str, how: FlockOperation) -> Result<File> {
        let path = self.dir.join(name);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .context(|| format!("open {path:?}"))?;
        fs::flock(&file, how).context(|| format!("flock({path:?})"))?;
        Ok(file)
    }

    /// Makes a directory that is removed when the value is dropped, or, after a crash, by a later call.
    ///
    /// # Errors
    /// It can't be made.
    pub fn temporary_dir(&self) -> Result<TemporaryDir> {
        make_dir(&self.temporary(), PRIVATE)?;
        self.sweep_temporary()?;
        loop {
            let path = self.temporary().join(uuid::Uuid::new_v4().to_string());
            make_dir(&path, PRIVATE)?;
            // a sweep may come between making and locking it; then another one is made
            let Some(lock) = open_dir(&path)? else { continue };
            fs::flock(&lock, FlockOperation::LockShared).context(|| format!("flock({path:?})"))?;
            if path.exists() {
                return Ok(TemporaryDir { path, _lock: lock });
            }
        }
    }

    /// Removes temporary directories that no living process holds.
    fn sweep_temporary(&self) -> Result<()> {
        for name in names_in(&self.temporary())? {
            let path = self.temporary().join(name);
            let Some(lock) = open_dir(&path)? else { continue };
            match fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => remove::tree(&path)?,
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(Error::caused_by(format!("flock({path:?})"), errno)),
            }
        }
        Ok(())
    }
}

/// A directory of work in progress, below the data directory.
#[derive(Debug)]
pub struct TemporaryDir {
    path: PathBuf,
    /// Keeps others from sweeping it.
    _lock: File,
}

impl TemporaryDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        if let Err(error) = remove::tree(&self.path) {
            log::warn!("{}", error.one_line());
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_goes_with_its_holder_and_after_a_crash_by_a_sweep() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(&base.path().join("data")).unwrap();
        store.temporary_dir().unwrap();
        let orphan = store.temporary().join("left-by-a-crash");
        std::fs::create_dir_all(orphan.join("deep")).unwrap();

        let held = store.temporary_dir().unwrap();
        assert!(!orphan.exists());
        let other = store.temporary_dir().unwrap();
        assert!(held.path().exists() && other.path().exists());
        let path = held.path().to_owned();
        drop(held);
        assert!(!path.exists());
    }
}
