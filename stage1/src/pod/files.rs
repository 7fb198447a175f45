//! Reading files of a bounded size, and replacing files atomically.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use crate::error::{Context, Error, Result};
use crate::sys::dir;

/// What most of the files have that are read here, in bytes.
const USUAL: usize = 4096;

/// Number of attempts to find a free name for a temporary file.
const NAME_TRIES: u32 = 16;

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// The file is missing, is not a regular file, is larger, or can't be read.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let describe = || format!("read {path:?}");
    let fd =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).context(describe)?;
    read_regular(fd, limit).context(describe)
}

/// Reads the file `name` of at most `limit` bytes, opened as [`open_regular_beneath`] does. `None` if it does not
/// exist.
pub(crate) fn read_beneath(base: &OwnedFd, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = open_regular_beneath(base, Path::new(name))? else { return Ok(None) };
    read_regular(file.into(), limit).context(|| format!("read {name:?}")).map(Some)
}

/// Opens the regular file `name` below the directory `base` for reading, refusing a symlink as any component: for
/// directories that less trusted processes can write. `None` if it does not exist. The kind of file is checked before
/// it is opened, because opening a device can have effects. Host side.
///
/// # Errors
/// `name` is not a regular file, has a symlink on its path, or can't be opened.
pub fn open_regular_beneath(base: impl AsFd, name: &Path) -> Result<Option<File>> {
    let place = match dir::open_beneath(base, name, OFlags::PATH | OFlags::NOFOLLOW) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
        place => place?,
    };
    let describe = || format!("open {name:?}");
    is_regular(&place).context(describe)?;
    let itself = format!("/proc/self/fd/{}", place.as_raw_fd());
    let fd = rustix::fs::open(itself, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context(describe)?;
    Ok(Some(File::from(fd)))
}

fn is_regular(fd: &OwnedFd) -> Result<()> {
    let stat = rustix::fs::fstat(fd).context(|| "fstat")?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        Ok(())
    } else {
        Err(Error::new("not a regular file"))
    }
}

fn read_regular(fd: OwnedFd, limit: u64) -> Result<Vec<u8>> {
    is_regular(&fd)?;
    // The kernel does not tell the size of all files.
    let mut text = Vec::with_capacity(usize::try_from(limit).map_or(USUAL, |limit| limit.min(USUAL)));
    File::from(fd).take(limit + 1).read_to_end(&mut text).context(|| "read")?;
    if text.len() as u64 > limit {
        return Err(Error::new(format!("longer than {limit} bytes")));
    }
    Ok(text)
}

/// Removes a file. Not an error are a missing file, and one that a host manager has removed in the overlay's upper
/// directory (ESTALE).
///
/// # Errors
/// The file exists and can't be removed.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) => Ok(()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(|| format!("remove {path:?}")),
        _ => Ok(()),
    }
}

/// Prefix of the names of temporary files.
const TEMPORARY: &str = ".tmp-";

/// Removes the temporary files that a killed [`write_atomic`] has left in `dir`, relative to the pod directory. No
/// other process may be writing there meanwhile. Host side.
///
/// # Errors
/// `dir` can't be read, or a temporary file can't be removed.
pub fn sweep_temporaries(dir: &Path) -> Result<()> {
    let fd = match dir::open_beneath(rustix::fs::CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        fd => fd?,
    };
    for entry in rustix::fs::Dir::read_from(&fd).context(|| format!("read directory {dir:?}"))? {
        let entry = entry.context(|| format!("read directory {dir:?}"))?;
        if entry.file_name().to_bytes().starts_with(TEMPORARY.as_bytes()) {
            match rustix::fs::unlinkat(&fd, entry.file_name(), AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(errno) => return Err(errno).context(|| format!("remove {:?} in {dir:?}", entry.file_name())),
            }
        }
    }
    Ok(())
}

/// A directory that files are written to, and how its path is resolved.
#[derive(Clone, Copy, Debug)]
pub enum Directory<'a> {
    /// Symlinks are followed: only trusted processes can write to the directories of its path.
    Trusted(&'a Path),
    /// Symlinks below the pod directory are refused: the pod can write to parts of it.
    InPod {
        /// The pod directory.
        pod: &'a Path,
        /// Path relative to the pod directory, without `..`.
        below: &'a Path,
    },
}

impl<'a> Directory<'a> {
    /// Splits the path `file`, relative to the pod directory `pod`, into its directory and its name.
    ///
    /// # Errors
    /// `file` has no last component, or that is not UTF-8.
    pub fn of_pod_file(pod: &'a Path, file: &'a Path) -> Result<(Self, &'a str)> {
        let (below, name) = dir::split(file)?;
        let name = name.to_str().context(|| format!("{file:?} is not UTF-8"))?;
        Ok((Self::InPod { pod, below }, name))
    }

    /// Opens the directory.
    ///
    /// # Errors
    /// It is missing, or has a symlink on its path that [`Self::InPod`] does not follow.
    pub(crate) fn open(self) -> Result<OwnedFd> {
        match self {
            Self::Trusted(path) => dir::open_dir(path),
            Self::InPod { pod, below } => {
                let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
                dir::open_beneath(dir::open_dir(pod)?, below, OFlags::PATH | OFlags::DIRECTORY)
            }
        }
    }

    fn join(self, name: &str) -> PathBuf {
        match self {
            Self::Trusted(path) => path.join(name),
            Self::InPod { pod, below } => pod.join(below).join(name),
        }
    }
}

/// Replaces the file `name` in a directory atomically: writes a temporary file beside it, syncs it and renames it. Mode
/// (without set-id bits) and owner of an existing file are kept; a new file gets `mode`, whatever the umask. A symlink
/// of that name is replaced, not followed.
///
/// # Errors
/// The directory can't be opened, `name` is not a file name, or the file can't be written; then the old file stays.
pub fn write_atomic(dir: Directory<'_>, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let write = || replace(&dir.open()?, name, bytes, mode, Durable::Yes);
    write().context(|| format!("write {:?}", dir.join(name)))
}

/// Whether a written file has to survive a power failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// It is synced before it is renamed: fsync(2).
    Yes,
    /// It is not synced.
    No,
}

/// [`write_atomic`] in an open directory, optionally without a sync.
///
/// # Errors
/// As [`write_atomic`].
pub(crate) fn replace(dir: &OwnedFd, name: &str, bytes: &[u8], mode: u32, durability: Durable) -> Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(Error::new(format!("{name:?} is not a file name")));
    }
    let (temporary, file) = create_temporary(dir)?;
    let written = fill(dir, name, file, bytes, mode, durability)
        .and_then(|()| rustix::fs::renameat(dir, &temporary, dir, name).context(|| "rename"));
    written.map_err(|error| match rustix::fs::unlinkat(dir, &temporary, AtFlags::empty()) {
        Ok(()) => error,
        Err(errno) => Error::caused_by(format!("{temporary:?} is left behind ({errno})"), error),
    })
}

/// Creates a file with a random name, which begins with a dot as no name of an app, volume or unit does. The name is
/// not made from the PID, which is not unique across PID namespaces.
fn create_temporary(dir: &OwnedFd) -> Result<(String, File)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..NAME_TRIES {
        let name = format!("{TEMPORARY}{:016x}", RandomState::new().build_hasher().finish());
        match rustix::fs::openat(dir, &name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => return Ok((name, File::from(fd))),
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno).context(|| format!("create {name:?}")),
        }
    }
    Err(Error::new("no free name for a temporary file"))
}

fn fill(dir: &OwnedFd, name: &str, mut file: File, bytes: &[u8], mode: u32, durability: Durable) -> Result<()> {
    file.write_all(bytes).context(|| "write")?;
    let mode = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(old) if FileType::from_raw_mode(old.st_mode) == FileType::RegularFile => {
            let new = rustix::fs::fstat(&file).context(|| "fstat")?;
            if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid) {
                rustix::fs::fchown(&file, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)))
                    .context(|| format!("fchown to {}:{}", old.st_uid, old.st_gid))?;
            }
            old.st_mode & 0o777
        }
        Ok(_) | Err(rustix::io::Errno::NOENT) => mode,
        Err(errno) => return Err(errno).context(|| format!("stat {name:?}")),
    };
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).context(|| "fchmod")?;
    match durability {
        Durable::Yes => file.sync_all().context(|| "fsync"),
        Durable::No => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn replacing_keeps_the_mode_and_leaves_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        write_atomic(Directory::Trusted(tmp.path()), "pod", b"one", 0o640).unwrap();
        let mode = || std::fs::metadata(tmp.path().join("pod")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o640);
        std::fs::set_permissions(tmp.path().join("pod"), PermissionsExt::from_mode(0o600)).unwrap();
        write_atomic(Directory::Trusted(tmp.path()), "pod", b"two", 0o640).unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(std::fs::read(tmp.path().join("pod")).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 1);
        std::fs::create_dir(tmp.path().join("dir")).unwrap();
        assert!(write_atomic(Directory::Trusted(tmp.path()), "dir", b"x", 0o644).is_err());
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 2);
    }

    #[test]
    fn owner_is_kept_and_set_id_bits_are_not() {
        use std::os::unix::fs::MetadataExt;
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("f");
        write_atomic(Directory::Trusted(tmp.path()), "f", b"1", 0o640).unwrap();
        // Only root can give a file away; for others the owner stays the same anyway.
        let owner = if rustix::process::geteuid().is_root() {
            (1234, 4321)
        } else {
            (path.metadata().unwrap().uid(), path.metadata().unwrap().gid())
        };
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o4604)).unwrap();
        let old = File::open(&path).unwrap();
        write_atomic(Directory::Trusted(tmp.path()), "f", b"22", 0o600).unwrap();
        let stat = path.metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (owner.0, owner.1, 0o604));
        assert_eq!(std::io::read_to_string(old).unwrap(), "1");
    }

    #[test]
    fn links_are_replaced_and_never_followed() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("target"), "kept").unwrap();
        symlink("target", tmp.path().join("link")).unwrap();
        write_atomic(Directory::Trusted(tmp.path()), "link", b"new", 0o600).unwrap();
        assert!(tmp.path().join("link").symlink_metadata().unwrap().is_file());
        assert_eq!(std::fs::read(tmp.path().join("target")).unwrap(), b"kept");
        for bad in ["", ".", "..", "a/b", "/a", "a\0b", &"x".repeat(256)] {
            assert!(write_atomic(Directory::Trusted(tmp.path()), bad, b"x", 0o600).is_err(), "{bad:?}");
        }
        write_atomic(Directory::Trusted(tmp.path()), &"x".repeat(255), b"x", 0o600).unwrap();
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_relative_directory_is_not_reached_through_a_link() {
        // Below the current directory, as `Directory::InPod` takes relative paths.
        let tmp = tempfile::tempdir_in(".").unwrap();
        let here = Path::new(tmp.path().file_name().unwrap());
        fn below(below: &Path) -> Directory<'_> {
            Directory::InPod { pod: Path::new("."), below }
        }
        std::fs::create_dir(here.join("dir")).unwrap();
        symlink("dir", here.join("link")).unwrap();
        write_atomic(below(&here.join("dir")), "f", b"x", 0o600).unwrap();
        assert!(write_atomic(below(&here.join("link")), "g", b"x", 0o600).is_err());
        assert!(write_atomic(below(Path::new("..")), "g", b"x", 0o600).is_err());
        assert_eq!(std::fs::read_dir(here.join("dir")).unwrap().count(), 1);
    }

    #[test]
    fn only_regular_files_of_a_bounded_size() {
        let tmp = tempfile::tempdir().unwrap();
        let base = dir::open_dir(tmp.path()).unwrap();
        std::fs::write(tmp.path().join("f"), "12345").unwrap();
        symlink("f", tmp.path().join("link")).unwrap();
        rustix::fs::mknodat(&base, "fifo", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(read_beneath(&base, "f", 5).unwrap().unwrap(), b"12345");
        assert!(read_beneath(&base, "f", 4).is_err());
        assert!(read_beneath(&base, "link", 5).is_err());
        assert!(read_beneath(&base, "fifo", 5).is_err());
        assert!(read_beneath(&base, "none", 5).unwrap().is_none());
    }
}
