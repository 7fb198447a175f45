//! The data directory, which holds images, trees and pods; its locks and its temporary directories.

mod mark;

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use stage1::error::{Context, Error, Result};

use crate::fsutil::dir::{PRIVATE, make_dir, names_in, open_dir};
use crate::fsutil::lock::{self, Taken};
use crate::fsutil::remove;

/// The default data directory.
pub const USUAL: &str = "/var/lib/podctl";

/// A data directory of podctl.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Checks the data directory `dir`, which may be missing: podctl makes it only when it first writes to it.
    ///
    /// # Errors
    /// `dir` has a line break in its path, can't be resolved or read, is not a directory, or holds files that are not
    /// a store's.
    pub fn open(dir: &Path) -> Result<Self> {
        if dir.as_os_str().as_encoded_bytes().contains(&b'\n') {
            return Err(Error::new(format!("the data directory {dir:?} has a line break in its name")));
        }
        let store = Self { dir: resolved(dir)? };
        mark::check(&store.dir)?;
        Ok(store)
    }

    /// Makes the data directory, closed to other users, and marks it as a store; does nothing if it is marked already.
    ///
    /// # Errors
    /// The directory or its mark can't be made, or it holds files that are not a store's.
    pub(crate) fn make(&self) -> Result<()> {
        mark::set(&self.dir)
    }

    /// The absolute path of the data directory, without symbolic links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `images`: one directory per image, named by its id.
    pub fn images(&self) -> PathBuf {
        self.dir.join("images")
    }

    /// `names`: one symbolic link per image name, to the image's id.
    pub fn names(&self) -> PathBuf {
        self.dir.join("names")
    }

    /// `trees`: rendered images, one directory per tree id.
    pub fn trees(&self) -> PathBuf {
        self.dir.join("trees")
    }

    /// `layers`: unpacked layers of images, one directory per digest of the layer's archive.
    pub fn layers(&self) -> PathBuf {
        self.dir.join("layers")
    }

    /// `blobs`: manifests, configurations and layers as registries sent them.
    pub fn blobs(&self) -> PathBuf {
        self.dir.join("blobs")
    }

    /// `pods`: one directory per phase, with one directory per pod in that phase, named by its UUID.
    pub fn pods(&self) -> PathBuf {
        self.dir.join("pods")
    }

    fn temporary(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    /// Takes the exclusive lock of the image store, held until the file is dropped. Whoever changes images, names or
    /// trees must hold it.
    ///
    /// # Errors
    /// The data directory can't be made, the lock file can't be opened or locked, or another process still holds the
    /// lock after 60 s; the message names it.
    pub fn lock_images(&self) -> Result<File> {
        self.lock("images.lck", lock::Kind::Exclusive)
    }

    /// Takes the shared lock of the image store, held until the file is dropped: meanwhile no process removes or
    /// replaces anything in it.
    ///
    /// # Errors
    /// As [`Self::lock_images`].
    pub fn share_images(&self) -> Result<File> {
        self.lock("images.lck", lock::Kind::Shared)
    }

    /// Takes the lock for giving UID ranges to pods, held until the file is dropped.
    ///
    /// # Errors
    /// As [`Self::lock_images`].
    pub fn lock_users(&self) -> Result<File> {
        self.lock("users.lck", lock::Kind::Exclusive)
    }

    /// Takes the lock for giving names to pods, held until the file is dropped.
    ///
    /// # Errors
    /// As [`Self::lock_images`].
    pub fn lock_pod_names(&self) -> Result<File> {
        self.lock("pod-names.lck", lock::Kind::Exclusive)
    }

    /// Takes the lock for giving ports of the host to pods. Dropping the file unlocks it.
    ///
    /// # Errors
    /// As [`Self::lock_images`].
    pub fn lock_ports(&self) -> Result<File> {
        self.lock("ports.lck", lock::Kind::Exclusive)
    }

    fn lock(&self, name: &str, kind: lock::Kind) -> Result<File> {
        self.make()?;
        let path = self.dir.join(name);
        let file = lock::open_file(&path)?;
        // earlier versions made lock files that every user could open, and so hold
        if file.metadata().context(|| format!("stat {path:?}"))?.mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(lock::FILE_MODE)).context(|| format!("chmod({path:?})"))?;
        }
        lock::wait(&file, &path, kind, lock::MOMENTS)?;
        Ok(file)
    }

    /// Makes a temporary directory, which is removed when the value is dropped; after a crash a later call removes it.
    ///
    /// # Errors
    /// The directory can't be made or locked, or one left by a crash can't be removed.
    pub fn temporary_dir(&self) -> Result<TemporaryDir> {
        self.make()?;
        make_dir(&self.temporary(), PRIVATE)?;
        self.sweep_temporary()?;
        loop {
            let path = self.temporary().join(uuid::Uuid::new_v4().to_string());
            make_dir(&path, PRIVATE)?;
            // the sweep of another process may remove it before it is locked; then make another one
            let shared = |lock: &File| lock::wait(lock, &path, lock::Kind::Shared, lock::MOMENTS).map(|()| true);
            if let Taken::Now(lock) = lock::directory(&path, shared)? {
                return Ok(TemporaryDir { path, _lock: lock });
            }
        }
    }

    /// Removes the temporary directories that no process has locked. It only touches directories that
    /// [`Self::temporary_dir`] can have made.
    fn sweep_temporary(&self) -> Result<()> {
        let all = self.temporary();
        // fails for a symbolic link, which would lead out of the store
        open_dir(&all)?.context(|| format!("directory {all:?} has vanished"))?;
        for name in names_in(&all)? {
            let path = all.join(&name);
            if !is_ours(&name) || !path.symlink_metadata().is_ok_and(|stat| stat.is_dir()) {
                log::debug!("{path:?} is not podctl's: left alone");
                continue;
            }
            let free = |lock: &File| lock::try_take(lock, &path, lock::Kind::Exclusive);
            if let Taken::Now(_lock) = lock::directory(&path, free)? {
                remove::tree(&path)?;
            }
        }
        Ok(())
    }
}

/// Whether `name` is the name of a temporary directory: a random UUID as [`Store::temporary_dir`] writes it.
fn is_ours(name: &OsStr) -> bool {
    let uuid = name.to_str().and_then(|name| Some((name, uuid::Uuid::try_parse(name).ok()?)));
    uuid.is_some_and(|(name, uuid)| uuid.get_version_num() == 4 && uuid.to_string() == name)
}

/// The absolute path of `dir` without symbolic links. Components that do not exist yet stay as they are.
fn resolved(dir: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(dir).context(|| format!("resolve {dir:?}"))?;
    for above in absolute.ancestors() {
        match above.canonicalize() {
            Ok(found) => {
                let rest = absolute.strip_prefix(above).unwrap_or(Path::new(""));
                if rest.components().any(|part| part == Component::ParentDir) {
                    return Err(Error::new(format!("{dir:?}: \"..\" follows a directory that does not exist")));
                }
                return Ok(if rest.as_os_str().is_empty() { found } else { found.join(rest) });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::caused_by(format!("resolve {dir:?}"), error)),
        }
    }
    Err(Error::new(format!("{dir:?} has no directory above it")))
}

/// A directory for work in progress, below the data directory; dropping it removes it.
#[derive(Debug)]
pub struct TemporaryDir {
    path: PathBuf,
    /// Keeps other processes from removing it.
    _lock: File,
}

impl TemporaryDir {
    /// Its absolute path.
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
        let orphan = store.temporary().join(uuid::Uuid::new_v4().to_string());
        std::fs::create_dir_all(orphan.join("deep")).unwrap();

        let held = store.temporary_dir().unwrap();
        assert!(!orphan.exists());
        let other = store.temporary_dir().unwrap();
        assert!(held.path().exists() && other.path().exists());
        let path = held.path().to_owned();
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn files_of_others_in_the_temporary_directory_stay() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(&base.path().join("data")).unwrap();
        store.temporary_dir().unwrap();
        let [dir, file] = ["mine", "00000000-0000-4000-8000-000000000000"].map(|name| store.temporary().join(name));
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("precious"), "x").unwrap();
        std::fs::write(&file, "x").unwrap();
        let link = store.temporary().join("00000000-0000-4000-8000-000000000001");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        store.temporary_dir().unwrap();
        assert!(dir.join("precious").exists() && file.exists() && link.symlink_metadata().is_ok());
    }

    #[test]
    fn looking_makes_nothing_and_locks_are_for_the_owner() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("a/b");
        let store = Store::open(&dir).unwrap();
        assert!(!base.path().join("a").exists());
        drop(store.share_images().unwrap());
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("images.lck"))), (0o700, 0o600));

        // the mode that an earlier version gave it
        std::fs::set_permissions(dir.join("images.lck"), Permissions::from_mode(0o644)).unwrap();
        drop(store.share_images().unwrap());
        assert_eq!(mode(&dir.join("images.lck")), 0o600);
        assert!(Store::open(&base.path().join("no/../x")).unwrap_err().one_line().contains(".."));
    }
}
