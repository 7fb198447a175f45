//! Copying a directory tree with all its metadata: the content of an image at a mount point into a new volume, or a
//! whole image where there are no overlays. Host side. The image is not trusted: no symlink is followed, and every path
//! is relative to a descriptor.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{self, AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::uid_range::UidRange;

/// Maximum depth of directories: each level needs two descriptors.
const MAX_DEPTH: usize = 256;
/// Maximum length of an extended attribute, in bytes: xattr(7), XATTR_SIZE_MAX.
const MAX_XATTR: usize = 64 * 1024;

/// Copies the content of the directory `from` into the empty directory `to`, and also owner, mode, times and extended
/// attributes of `from` itself. Hard links and holes are kept, and data is shared if the file system can (FICLONE).
/// Sockets are left out. With `shift` each id is replaced by the host's id for it.
///
/// # Errors
/// A file can't be read or made; then `to` has a part of the copy.
pub fn tree(from: &OwnedFd, to: &OwnedFd, shift: Option<UidRange>) -> Result<()> {
    Copier::new(to, Owners::Shifted(shift.map(Shift::To)), Destination::Empty).directory(from.as_fd(), to.as_fd())
}

/// As [`tree`], with each host id in the range `shift` replaced by the id inside the user namespace.
///
/// # Errors
/// As [`tree`].
pub fn tree_from(from: &OwnedFd, to: &OwnedFd, shift: UidRange) -> Result<()> {
    let owners = Owners::Shifted(Some(Shift::From(shift)));
    Copier::new(to, owners, Destination::Empty).directory(from.as_fd(), to.as_fd())
}

/// Copies layers, the lowest first, into the empty directory `to`, merged as overlayfs merges them: a character device
/// 0:0 is a whiteout, and an opaque directory hides the content of the lower ones. A merged directory has the
/// attributes of the uppermost one.
///
/// # Errors
/// A file can't be read, made or removed; then `to` has a part of the copy.
pub fn layers(from: &[OwnedFd], to: &OwnedFd, shift: Option<UidRange>) -> Result<()> {
    from.iter().try_for_each(|from| {
        let owners = Owners::Shifted(shift.map(Shift::To));
        Copier::new(to, owners, Destination::LowerLayers).directory(from.as_fd(), to.as_fd())
    })
}

/// Copies the entry `name` of the directory `from` to the directory `to`, as `new_name`. A directory is merged with an
/// existing one, whose attributes stay; a file replaces a file. All copies belong to the user and group `owner`.
/// Set-user-ID bits and file capabilities are dropped, and devices and sockets are left out with a warning, so that the
/// author of the files gains no privileges by the copy.
///
/// # Errors
/// A file can't be read or made, or would replace a directory or the reverse; then `to` has a part of the copy.
pub fn entry(from: impl AsFd, name: &CStr, to: impl AsFd, new_name: &CStr, owner: (u32, u32)) -> Result<()> {
    let mut copier = Copier::new(&to, Owners::One(owner.0, owner.1), Destination::Files);
    copier.path.push(new_name.to_owned());
    copier.entry(from.as_fd(), to.as_fd(), name, new_name).context(|| format!("copy {name:?}"))
}

/// The content of the destination before the copy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Destination {
    /// Nothing.
    Empty,
    /// The lower layers, merged: whiteouts of the copied layer remove files of them.
    LowerLayers,
    /// Other files, which are kept.
    Files,
}

/// The owners of the copies.
#[derive(Clone, Copy)]
enum Owners {
    /// Those of the originals, perhaps shifted.
    Shifted(Option<Shift>),
    /// This user and this group for all files.
    One(u32, u32),
}

/// How ids are shifted.
#[derive(Clone, Copy)]
enum Shift {
    /// From ids inside a user namespace to the host's ids.
    To(UidRange),
    /// From the host's ids to ids inside a user namespace.
    From(UidRange),
}

impl Shift {
    /// The id in the copy; `None` if the range has no id for it.
    fn of(self, id: u32) -> Option<u32> {
        match self {
            Self::To(range) => range.to_host(id),
            Self::From(range) => range.to_inside(id).ok(),
        }
    }
}

/// The first copied name of a file with several hard links.
struct FirstName {
    /// Its path in the copy.
    path: PathBuf,
    /// Number of hard links that were not seen yet.
    left: u64,
}

struct Copier<'a> {
    top: BorrowedFd<'a>,
    owners: Owners,
    target: Destination,
    /// The names of the current path.
    path: Vec<CString>,
    links: BTreeMap<(u64, u64), FirstName>,
}

impl<'a> Copier<'a> {
    fn new(to: &'a impl AsFd, owners: Owners, target: Destination) -> Self {
        Self { top: to.as_fd(), owners, target, path: Vec::new(), links: BTreeMap::new() }
    }

    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        self.entries(from, to)?;
        self.attributes(from, to)
    }

    fn entries(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        if self.path.len() > MAX_DEPTH {
            return Err(Error::new(format!("directories are nested more than {MAX_DEPTH} deep")));
        }
        for name in names(from)? {
            self.path.push(name.clone());
            self.entry(from, to, &name, &name).context(|| format!("copy {name:?}"))?;
            self.path.pop();
        }
        Ok(())
    }

    /// Copies the entry `name` of `from` to `to`, as `new_name`.
    fn entry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, new_name: &CStr) -> Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).context(|| "stat")?;
        let open =
            |dir, name: &CStr, flags| fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.target != Destination::Empty {
            let hides =
                kind == FileType::CharacterDevice && stat.st_rdev == 0 && self.target == Destination::LowerLayers;
            let there = match fs::statat(to, new_name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => None,
                there => Some(there.context(|| "stat the copy")?),
            };
            let there = there.map(|there| FileType::from_raw_mode(there.st_mode));
            if kind.is_dir() && there.is_some_and(|there| there.is_dir()) {
                let source = open(from, name, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open")?;
                let copy = open(to, new_name, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open the copy")?;
                if self.target == Destination::Files {
                    return self.entries(source.as_fd(), copy.as_fd());
                }
                if is_opaque(source.as_fd())? {
                    clear(copy.as_fd(), 0)?;
                }
                return self.directory(source.as_fd(), copy.as_fd());
            }
            if self.target == Destination::Files && there.is_some_and(|there| there.is_dir() || kind.is_dir()) {
                return Err(Error::new("a file does not replace a directory, nor a directory a file"));
            }
            if there.is_some() {
                remove(to, new_name, 0)?;
            }
            if hides {
                return Ok(());
            }
        }
        // In `Files` no hard links are made: another process that may write there could have changed the path of the
        // first name.
        let can_be_linked =
            self.target != Destination::Files && !matches!(kind, FileType::Directory | FileType::Socket);
        if can_be_linked && stat.st_nlink > 1 && self.link(&stat, to, new_name)? {
            return Ok(());
        }
        match kind {
            FileType::Directory => {
                fs::mkdirat(to, new_name, Mode::RWXU).context(|| "mkdir")?;
                let source = open(from, name, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open")?;
                let copy = open(to, new_name, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open the copy")?;
                self.directory(source.as_fd(), copy.as_fd())
            }
            FileType::RegularFile => {
                let source = open(from, name, OFlags::RDONLY | OFlags::NONBLOCK).context(|| "open")?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let copy = fs::openat(to, new_name, flags, Mode::RUSR | Mode::WUSR).context(|| "create")?;
                let (source, copy) = (File::from(source), File::from(copy));
                content(&source, &copy).context(|| "copy its content")?;
                self.attributes(source.as_fd(), copy.as_fd())
            }
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new()).context(|| "readlink")?;
                fs::symlinkat(&target, to, new_name).context(|| "symlink")?;
                self.node(to, new_name, &stat)
            }
            FileType::CharacterDevice | FileType::BlockDevice if matches!(self.owners, Owners::One(..)) => {
                log::warn!("device {name:?} is left out");
                Ok(())
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                fs::mknodat(to, new_name, kind, Mode::empty(), stat.st_rdev).context(|| "mknod")?;
                self.node(to, new_name, &stat)?;
                let (_, _, mode) = self.owner(&stat);
                fs::chmodat(to, new_name, mode, AtFlags::empty()).context(|| "chmod")
            }
            _ => {
                if self.target == Destination::Files {
                    log::warn!("socket {name:?} is left out");
                }
                Ok(())
            }
        }
    }

    /// Makes a hard link to a file that was copied before. Returns whether it did.
    fn link(&mut self, stat: &Stat, to: BorrowedFd<'_>, name: &CStr) -> Result<bool> {
        let key = (stat.st_dev, stat.st_ino);
        let Some(first) = self.links.get_mut(&key) else {
            let names = self.path.iter().map(|name| std::ffi::OsString::from_vec(name.to_bytes().to_vec()));
            self.links.insert(key, FirstName { path: names.collect(), left: stat.st_nlink - 1 });
            return Ok(false);
        };
        let linked = fs::linkat(self.top, &first.path, to, name, AtFlags::empty());
        first.left -= 1;
        if first.left == 0 {
            self.links.remove(&key);
        }
        match linked {
            Ok(()) => Ok(true),
            // The path of the first name is too long, or it has too many hard links: make another copy.
            Err(Errno::NAMETOOLONG | Errno::MLINK) => Ok(false),
            Err(errno) => Err(errno).context(|| "link"),
        }
    }

    /// Owner, group and mode in the copy. An id that can't be shifted becomes 65534 (nobody), and set-id bits are
    /// dropped.
    fn owner(&self, stat: &Stat) -> (Uid, Gid, Mode) {
        let shift = match self.owners {
            Owners::Shifted(shift) => shift,
            Owners::One(uid, gid) => {
                return (Uid::from_raw(uid), Gid::from_raw(gid), Mode::from_raw_mode(stat.st_mode & 0o1777));
            }
        };
        let host = |id| shift.map_or(Some(id), |shift| shift.of(id));
        let (uid, gid) = (host(stat.st_uid), host(stat.st_gid));
        let set_id = if uid.is_some() && gid.is_some() { 0o7777 } else { 0o1777 };
        (
            Uid::from_raw(uid.unwrap_or(NOBODY)),
            Gid::from_raw(gid.unwrap_or(NOBODY)),
            Mode::from_raw_mode(stat.st_mode & set_id),
        )
    }

    /// Sets owner and times of a symlink or special file, which can't be opened for that.
    fn node(&self, dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
        let (uid, gid, _) = self.owner(stat);
        fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context(|| "chown")?;
        fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).context(|| "utimensat")
    }

    /// Copies owner, mode, extended attributes and times. The owner comes first, because changing it drops set-user-ID
    /// bits and file capabilities.
    fn attributes(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        let stat = fs::fstat(from).context(|| "fstat")?;
        let (uid, gid, mode) = self.owner(&stat);
        fs::fchown(to, Some(uid), Some(gid)).context(|| "fchown")?;
        fs::fchmod(to, mode).context(|| "fchmod")?;
        if let Owners::Shifted(shift) = self.owners {
            extended_attributes(from, to, shift)?;
        }
        fs::futimens(to, &times(&stat)).context(|| "futimens")
    }
}

/// Whether a directory is opaque: it hides the content of the same directory in lower layers, as in overlayfs.
fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    let mut value = [0; 2];
    match fs::fgetxattr(dir, c"trusted.overlay.opaque", &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno).context(|| "fgetxattr(trusted.overlay.opaque)"),
    }
}

/// Removes the content of a directory of the copy.
fn clear(dir: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::new(format!("directories are nested more than {MAX_DEPTH} deep")));
    }
    names(dir)?.iter().try_for_each(|name| remove(dir, name, depth))
}

fn remove(dir: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        done => return done.context(|| format!("remove {name:?}")),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let child = fs::openat(dir, name, flags, Mode::empty()).context(|| format!("open {name:?}"))?;
    clear(child.as_fd(), depth + 1)?;
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR).context(|| format!("remove {name:?}"))
}

/// The id `nobody`, for ids that can't be shifted: the kernel's overflow id, user_namespaces(7).
const NOBODY: u32 = 65534;

fn names(dir: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).context(|| "read a directory")? {
        let entry = entry.context(|| "read a directory")?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Copies the content of a file: shares its data if the file system can, otherwise copies it and keeps its holes.
fn content(source: &File, copy: &File) -> Result<()> {
    if fs::ioctl_ficlone(copy, source).is_ok() {
        return Ok(());
    }
    let size = fs::fstat(source).context(|| "fstat")?.st_size.cast_unsigned();
    fs::ftruncate(copy, size).context(|| "ftruncate")?;
    let mut at = 0;
    while at < size {
        let start = match fs::seek(source, SeekFrom::Data(at)) {
            // ENXIO: the rest of the file is a hole.
            Err(Errno::NXIO) => return Ok(()),
            start => start.context(|| "lseek(SEEK_DATA)")?,
        };
        let end = fs::seek(source, SeekFrom::Hole(start)).context(|| "lseek(SEEK_HOLE)")?;
        fs::seek(source, SeekFrom::Start(start)).context(|| "lseek")?;
        fs::seek(copy, SeekFrom::Start(start)).context(|| "lseek")?;
        let copied = stretch(&mut source.take(end - start), copy).context(|| "copy")?;
        if copied != end - start || end <= at {
            return Err(Error::new("it changes while it is copied"));
        }
        at = end;
    }
    Ok(())
}

/// Copies bytes until the end. It does what `std::io::copy` does, without the code of that for other kinds of files.
fn stretch(from: &mut impl Read, mut to: &File) -> std::io::Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut copied = 0;
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(copied),
            read => {
                to.write_all(&buffer[..read])?;
                copied += read as u64;
            }
        }
    }
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds| fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    }
}

fn extended_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, shift: Option<Shift>) -> Result<()> {
    let mut names = vec![0; MAX_XATTR];
    let length = match fs::flistxattr(from, &mut names) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length.context(|| "flistxattr")?,
    };
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let name = CStr::from_bytes_with_nul(name).context(|| "flistxattr")?;
        // Attributes of overlayfs have a meaning in their own layer only.
        if name.to_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0; MAX_XATTR];
        let length = fs::fgetxattr(from, name, &mut value[..]).context(|| format!("fgetxattr({name:?})"))?;
        value.truncate(length);
        if let Some(shift) = shift {
            shift_ids(name, &mut value, shift);
        }
        match fs::fsetxattr(to, name, &value, XattrFlags::empty()) {
            // Ignored are a file system without such attributes, and labels that only a security module may set.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(Errno::PERM) if name.to_bytes() == b"security.selinux" => {}
            Err(errno) => return Err(errno).context(|| format!("fsetxattr({name:?})")),
        }
    }
    Ok(())
}

/// Shifts the ids in attributes that have ids: capabilities(7), acl(5). Values of another form are kept as they are.
fn shift_ids(name: &CStr, value: &mut Vec<u8>, shift: Shift) {
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let shifted = |id: u32| shift.of(id).unwrap_or(NOBODY).to_le_bytes();
    match (name.to_bytes(), value.len()) {
        // Version 2 belongs to the initial user namespace, version 3 names the root of a user namespace.
        (b"security.capability", 20) if value[3] == 2 => {
            if let Shift::To(_) = shift {
                value[3] = 3;
                value.extend(shifted(0));
            }
        }
        (b"security.capability", 24) if value[3] == 3 => {
            let root = shifted(number(&value[20..]));
            if root == [0; 4] {
                value[3] = 2;
                value.truncate(20);
            } else {
                value[20..].copy_from_slice(&root);
            }
        }
        (b"system.posix_acl_access" | b"system.posix_acl_default", 4..) => {
            for entry in value[4..].chunks_exact_mut(8) {
                let is_named = matches!(u16::from_le_bytes([entry[0], entry[1]]), ACL_USER | ACL_GROUP);
                if is_named {
                    let id = shifted(number(&entry[4..]));
                    entry[4..].copy_from_slice(&id);
                }
            }
        }
        _ => {}
    }
}

/// Tags of entries of an access control list that have an id: linux/posix_acl.h.
const ACL_USER: u16 = 2;
const ACL_GROUP: u16 = 8;

#[cfg(test)]
mod tests;
