//! Copying files between the host and an app, and to and from tar archives.
//!
//! The paths of either side are resolved within its own root. Copies on the host belong to the caller and have no
//! set-user-ID bits or file capabilities; copies in the app belong to the app's user.

use std::ffi::{CString, OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};
use stage1::rootfs::copy;
use stage1::sys::dir;
use stage1::uid_range::UidRange;

use crate::image::archive::{Entry, UnpackLimits, pack_files, sorted_names, unpack_files};
use crate::store::{Store, TemporaryDir};

/// The files to copy.
#[derive(Debug)]
pub enum Source {
    /// A file or directory: the directory it is in, and its name.
    Entry(OwnedFd, OsString),
    /// All entries of a directory.
    Content(OwnedFd),
}

impl Source {
    /// Finds `path` within `root`. A path that ends with `/.` means the entries of that directory. A symbolic link is
    /// copied as a link.
    ///
    /// # Errors
    /// The path does not exist or can't be opened.
    pub fn find(root: impl AsFd, path: &Path) -> Result<Self> {
        let bytes = path.as_os_str().as_bytes();
        let means_content = bytes.ends_with(b"/.") || bytes == b"." || path.file_name().is_none();
        let missing = |error: Error| match error.errno() {
            Some(errno) if errno == Errno::NOENT.raw_os_error() => {
                Error::new(format!("there is no {}", path.display()))
            }
            _ => error,
        };
        if means_content {
            return Ok(Self::Content(dir::open_in(root, path, DIRECTORY).map_err(missing)?));
        }
        let (above, name) = dir::split(path)?;
        let above = if above.as_os_str().is_empty() { Path::new("/") } else { above };
        let directory = dir::open_in(root, above, DIRECTORY).map_err(missing)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        dir::open_beneath(&directory, Path::new(name), flags).map(drop).or_else(|error| match error.errno() {
            // a symbolic link
            Some(errno) if errno == Errno::LOOP.raw_os_error() => Ok(()),
            _ => Err(missing(error)),
        })?;
        Ok(Self::Entry(directory, name.to_owned()))
    }

    fn parts(&self) -> Result<(&OwnedFd, Vec<OsString>)> {
        match self {
            Self::Entry(above, name) => Ok((above, vec![name.clone()])),
            Self::Content(directory) => Ok((directory, sorted_names(directory.as_fd())?)),
        }
    }

    /// Writes the files as a tar archive (POSIX pax). With `ids`, the pod's UID range, the owners are those that the
    /// pod sees.
    ///
    /// # Errors
    /// A file can't be read, or `to` can't be written.
    pub fn pack(&self, ids: Option<UidRange>, to: impl Write) -> Result<()> {
        let (directory, names) = self.parts()?;
        pack_files(directory.as_fd(), &names, ids, true, to)
    }
}

/// Where to copy.
#[derive(Debug)]
pub enum Destination {
    /// Into this existing directory.
    Into(OwnedFd),
    /// To this name in this directory; an existing file is replaced.
    As(OwnedFd, OsString),
}

impl Destination {
    /// Finds `path` within `root`: an existing directory to copy into, or else a name in its parent directory.
    ///
    /// # Errors
    /// The parent directory does not exist or can't be opened, or `path` ends with `/` and is not a directory.
    pub fn find(root: impl AsFd, path: &Path) -> Result<Self> {
        let root = root.as_fd();
        match dir::try_open_in(root, path, OFlags::PATH)? {
            Some(there) if is_directory(&there)? => return Ok(Self::Into(dir::open_in(root, path, DIRECTORY)?)),
            None if path.as_os_str().as_bytes().ends_with(b"/") => {
                return Err(Error::new(format!("there is no directory {path:?}")));
            }
            _ => {}
        }
        let (above, name) = dir::split(path)?;
        let above = if above.as_os_str().is_empty() { Path::new("/") } else { above };
        Ok(Self::As(dir::open_in(root, above, DIRECTORY)?, name.to_owned()))
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);

fn is_directory(fd: &OwnedFd) -> Result<bool> {
    let stat = rustix::fs::fstat(fd).context(|| "fstat")?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Copies files. The copies belong to `owner`, a UID and a GID.
///
/// # Errors
/// A file can't be read or made; the files copied before stay.
pub fn copy(from: &Source, to: &Destination, owner: (u32, u32)) -> Result<()> {
    let (directory, names) = from.parts()?;
    let made;
    let (target, new_name): (&OwnedFd, Option<&OsStr>) = match (from, to) {
        (_, Destination::Into(target)) => (target, None),
        (Source::Entry(..), Destination::As(above, name)) => (above, Some(name)),
        (Source::Content(_), Destination::As(above, name)) => {
            made = make_directory(above, name, owner)?;
            (&made, None)
        }
    };
    names.iter().try_for_each(|name| {
        let new_name = c_string(new_name.unwrap_or(name))?;
        copy::entry(directory, &c_string(name)?, target, &new_name, owner)
    })
}

fn make_directory(above: &OwnedFd, name: &OsStr, owner: (u32, u32)) -> Result<OwnedFd> {
    use rustix::fs::{Gid, Uid, fchown, mkdirat};
    mkdirat(above, name, Mode::from_raw_mode(0o755)).context(|| format!("make directory {name:?}"))?;
    let made = dir::open_beneath(above, Path::new(name), DIRECTORY)?;
    fchown(&made, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1))).context(|| "fchown")?;
    Ok(made)
}

fn c_string(name: &OsStr) -> Result<CString> {
    dir::c_string(name.as_bytes())
}

/// Unpacks a tar archive into a temporary directory, as the source of a copy. Dropping the directory removes the files.
///
/// # Errors
/// The archive can't be read, is not a tar archive, can't be unpacked, or has a device or a name with `..`.
pub fn unpack(store: &Store, archive: impl Read) -> Result<(Source, TemporaryDir)> {
    let work = store.temporary_dir()?;
    let files = dir::open_dir_for_reading(work.path())?;
    let limits = UnpackLimits { bytes: u64::MAX, entries: u64::MAX, devices: false };
    unpack_files(archive, files.as_fd(), limits, may_be_copied).context(|| "unpack the tar archive")?;
    Ok((Source::Content(files), work))
}

fn may_be_copied(entry: &Entry) -> Result<()> {
    if entry.kind.is_block_special() || entry.kind.is_character_special() {
        return Err(Error::new("it is a device, which can't be copied into an app: leave it out"));
    }
    let path = Path::new(OsStr::from_bytes(&entry.path));
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Error::new("its name leads out of the archive's directory"));
    }
    Ok(())
}

/// The absolute form of a path of the host. It keeps a `/` or `/.` at the end, which says that a directory is meant.
///
/// # Errors
/// The path is empty, or the working directory is gone.
pub fn host_path(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).context(|| format!("the path {path:?}"))?;
    // std::path::absolute removes the ending
    let mut text = absolute.into_os_string().into_vec();
    let ending: &[u8] = match path.as_os_str().as_bytes() {
        b"." => b"/.",
        bytes if bytes.ends_with(b"/.") && !text.ends_with(b"/.") => b"/.",
        bytes if bytes.ends_with(b"/") && !text.ends_with(b"/") => b"/",
        _ => b"",
    };
    text.extend(ending);
    Ok(OsString::from_vec(text).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::EntryType;

    fn archive(name: &str, kind: EntryType) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_device_major(1).unwrap();
        header.set_device_minor(8).unwrap();
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, std::io::empty()).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn what_can_not_be_copied_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        for (name, kind, why) in [
            ("dev", EntryType::Block, "it is a device"),
            ("dev", EntryType::Char, "it is a device"),
            ("../x", EntryType::Regular, "leads out"),
            ("a/../../x", EntryType::Directory, "leads out"),
        ] {
            let error = unpack(&store, &archive(name, kind)[..]).unwrap_err().one_line();
            assert!(error.contains(why) && error.contains(name), "{error}");
        }
        for kind in [EntryType::Regular, EntryType::Directory] {
            unpack(&store, &archive("plain", kind)[..]).unwrap();
        }
        for name in ["fifo", "./made/fifo"] {
            use std::os::unix::fs::FileTypeExt;
            let (_, work) = unpack(&store, &archive(name, EntryType::Fifo)[..]).unwrap();
            assert!(work.path().join(name).symlink_metadata().unwrap().file_type().is_fifo(), "{name}");
        }
    }
}
