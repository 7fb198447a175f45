//! The data directory: where images, trees and pods are kept, its locks and its temporary directories.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{self, FlockOperation};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};

use crate::fsutil::dir::{PRIVATE, make_dir, names_in, open_dir};
use crate::fsutil::remove;

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
