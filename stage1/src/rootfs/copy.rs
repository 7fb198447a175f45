//! Copying a directory tree with all that the file system knows of it: what an image has at a mount point into a new
//! volume, or a whole image where there are no overlays. Host side; the image is hostile: nothing is followed, every
//! step is relative to a descriptor.

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

/// Directories deeper than this are refused: each level holds two descriptors.
const MAX_DEPTH: usize = 256;
/// Longest extended attribute: xattr(7), XATTR_SIZE_MAX.
const MAX_XATTR: usize = 64 * 1024;

/// Copies the content of the directory `from` into the empty directory `to`, and `from`'s own owner, mode, times and
/// extended attributes. Hard links and holes are kept, data is shared where the file system can do that. Sockets are
/// left out. With `shift` every id becomes the one that the user namespace has for it.
///
/// # Errors
/// What could not be read or made; `to` is then as far as it came.
pub fn tree(from: &OwnedFd, to: &OwnedFd, shift: Option<UidRange>) -> Result<()> {
    Copier::new(to, shift.map(Shift::To)).directory(from.as_fd(), to.as_fd())
}

/// The other way: copies what has the ids of a user namespace, so that every id becomes the one inside.
///
/// # Errors
/// As [`tree`].
pub fn tree_from(from: &OwnedFd, to: &OwnedFd, shift: UidRange) -> Result<()> {
    Copier::new(to, Some(Shift::From(shift))).directory(from.as_fd(), to.as_fd())
}

/// Copies trees that lie over each other, the lowest first, into the empty directory `to`, as overlayfs would show
/// them: a character device 0:0 stands for nothing, a directory may hide all that is below it. Of directories that
/// several have the attributes are those of the uppermost.
///
/// # Errors
/// What could not be read, made or removed; `to` is then as far as it came.
pub fn layers(from: &[OwnedFd], to: &OwnedFd, shift: Option<UidRange>) -> Result<()> {
    from.iter().try_for_each(|from| {
        let mut copier = Copier { layered: true, ..Copier::new(to, shift.map(Shift::To)) };
        copier.directory(from.as_fd(), to.as_fd())
    })
}

/// What becomes of the ids.
#[derive(Clone, Copy)]
enum Shift {
    /// Those inside a user namespace become those it has for them on the host.
    To(UidRange),
    /// Those on the host become those inside.
    From(UidRange),
}

impl Shift {
    /// The id in the copy; `None` if there is none for it.
    fn of(self, id: u32) -> Option<u32> {
        match self {
            Self::To(range) => range.to_host(id),
            Self::From(range) => range.to_inside(id).ok(),
        }
    }
}

/// What was copied first of a file with several names.
struct FirstName {
    /// Where it is in the copy.
    path: PathBuf,
    /// How many of its other names may still come.
    left: u64,
}

struct Copier<'a> {
    top: BorrowedFd<'a>,
    shift: Option<Shift>,
    /// It lies over what is there.
    layered: bool,
    /// The names that lead to where it is.
    path: Vec<CString>,
    links: BTreeMap<(u64, u64), FirstName>,
}

impl<'a> Copier<'a> {
    fn new(to: &'a OwnedFd, shift: Option<Shift>) -> Self {
        Self { top: to.as_fd(), shift, layered: false, path: Vec::new(), links: BTreeMap::new() }
    }

    fn directory(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        if self.path.len() > MAX_DEPTH {
            return Err(Error::new(format!("directories are nested more than {MAX_DEPTH} deep")));
        }
        for name in names(from)? {
            self.path.push(name.clone());
            self.entry(from, to, &name).context(|| format!("copy {name:?}"))?;
            self.path.pop();
        }
        self.attributes(from, to)
    }

    fn entry(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).context(|| "stat")?;
        let open = |dir, flags| fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let kind = FileType::from_raw_mode(stat.st_mode);
        if self.layered {
            let hides = kind == FileType::CharacterDevice && stat.st_rdev == 0;
            let there = match fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => None,
                there => Some(there.context(|| "stat the copy")?),
            };
            let merges = kind.is_dir() && there.is_some_and(|there| FileType::from_raw_mode(there.st_mode).is_dir());
            if merges {
                let source = open(from, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open")?;
                let copy = open(to, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open the copy")?;
                if is_opaque(source.as_fd())? {
                    clear(copy.as_fd(), 0)?;
                }
                return self.directory(source.as_fd(), copy.as_fd());
            }
            if there.is_some() {
                remove(to, name, 0)?;
            }
            if hides {
                return Ok(());
            }
        }
        let can_be_linked = !matches!(kind, FileType::Directory | FileType::Socket);
        if can_be_linked && stat.st_nlink > 1 && self.link(&stat, to, name)? {
            return Ok(());
        }
        match kind {
            FileType::Directory => {
                fs::mkdirat(to, name, Mode::RWXU).context(|| "mkdir")?;
                let source = open(from, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open")?;
                let copy = open(to, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open the copy")?;
                self.directory(source.as_fd(), copy.as_fd())
            }
            FileType::RegularFile => {
                let source = open(from, OFlags::RDONLY | OFlags::NONBLOCK).context(|| "open")?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let copy = fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR).context(|| "create")?;
                let (source, copy) = (File::from(source), File::from(copy));
                content(&source, &copy).context(|| "copy its content")?;
                self.attributes(source.as_fd(), copy.as_fd())
            }
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new()).context(|| "readlink")?;
                fs::symlinkat(&target, to, name).context(|| "symlink")?;
                self.node(to, name, &stat)
            }
            kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
                fs::mknodat(to, name, kind, Mode::empty(), stat.st_rdev).context(|| "mknod")?;
                self.node(to, name, &stat)?;
                let (_, _, mode) = self.owner(&stat);
                fs::chmodat(to, name, mode, AtFlags::empty()).context(|| "chmod")
            }
            _ => Ok(()),
        }
    }

    /// Makes one more name of what was copied before. Says whether it did.
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
            // Its first name is too far away, or has too many others: a file of its own then.
            Err(Errno::NAMETOOLONG | Errno::MLINK) => Ok(false),
            Err(errno) => Err(errno).context(|| "link"),
        }
    }

    /// Owner, group and mode in the copy. An id outside the pod's range becomes 65534 (nobody), and set-id bits go.
    fn owner(&self, stat: &Stat) -> (Uid, Gid, Mode) {
        let host = |id| self.shift.map_or(Some(id), |shift| shift.of(id));
        let (uid, gid) = (host(stat.st_uid), host(stat.st_gid));
        let set_id = if uid.is_some() && gid.is_some() { 0o7777 } else { 0o1777 };
        (
            Uid::from_raw(uid.unwrap_or(NOBODY)),
            Gid::from_raw(gid.unwrap_or(NOBODY)),
            Mode::from_raw_mode(stat.st_mode & set_id),
        )
    }

    /// Owner and times of what can't be opened to set them.
    fn node(&self, dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
        let (uid, gid, _) = self.owner(stat);
        fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context(|| "chown")?;
        fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW).context(|| "utimensat")
    }

    /// Owner first: it takes set-user-ID bits and file capabilities away.
    fn attributes(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        let stat = fs::fstat(from).context(|| "fstat")?;
        let (uid, gid, mode) = self.owner(&stat);
        fs::fchown(to, Some(uid), Some(gid)).context(|| "fchown")?;
        fs::fchmod(to, mode).context(|| "fchmod")?;
        extended_attributes(from, to, self.shift)?;
        fs::futimens(to, &times(&stat)).context(|| "futimens")
    }
}

/// Whether a directory hides all that is below it: overlayfs.
fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    let mut value = [0; 2];
    match fs::fgetxattr(dir, c"trusted.overlay.opaque", &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno).context(|| "fgetxattr(trusted.overlay.opaque)"),
    }
}

/// Removes what is in a directory of the copy.
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

/// The host's id for what a user namespace has no id for: what it shows in its place.
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

/// The content of a file, shared with the copy if the file system can, else copied without its holes.
fn content(source: &File, copy: &File) -> Result<()> {
    if fs::ioctl_ficlone(copy, source).is_ok() {
        return Ok(());
    }
    let size = fs::fstat(source).context(|| "fstat")?.st_size.cast_unsigned();
    fs::ftruncate(copy, size).context(|| "ftruncate")?;
    let mut at = 0;
    while at < size {
        let start = match fs::seek(source, SeekFrom::Data(at)) {
            // There is nothing but a hole to the end.
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

/// As `std::io::copy`, which knows so many ways that it would be a large part of every program.
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
        // An overlay's own marks mean something to it alone.
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
            // A file system without them, and labels that only a security module may set.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(Errno::PERM) if name.to_bytes() == b"security.selinux" => {}
            Err(errno) => return Err(errno).context(|| format!("fsetxattr({name:?})")),
        }
    }
    Ok(())
}

/// Shifts the ids in the attributes that have some: capabilities(7), acl(5). What has another form is left as it is.
fn shift_ids(name: &CStr, value: &mut Vec<u8>, shift: Shift) {
    let number = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let shifted = |id: u32| shift.of(id).unwrap_or(NOBODY).to_le_bytes();
    match (name.to_bytes(), value.len()) {
        // Version 2 is for the host's root alone, version 3 names the root of a user namespace.
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

/// Kinds of entries of an access control list: linux/posix_acl.h.
const ACL_USER: u16 = 2;
const ACL_GROUP: u16 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_tree_comes_out_as_it_went_in() {
        let tmp = tempfile::tempdir().unwrap();
        let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(tmp.path().join("secret"), "secret").unwrap();
        std::fs::write(from.join("a/f"), "text").unwrap();
        std::fs::set_permissions(from.join("a/f"), PermissionsExt::from_mode(0o4751)).unwrap();
        std::fs::set_permissions(from.join("a"), PermissionsExt::from_mode(0o1777)).unwrap();
        std::os::unix::fs::chown(from.join("a/f"), Some(12), Some(34)).unwrap();
        std::fs::set_permissions(from.join("a/f"), PermissionsExt::from_mode(0o4751)).unwrap();
        symlink(tmp.path().join("secret"), from.join("link")).unwrap();
        symlink("/", from.join("dir-link")).unwrap();
        let open = |path| fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        tree(&open(&from), &open(&to), None).unwrap();
        let file = std::fs::metadata(to.join("a/f")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4751, 12, 34));
        assert_eq!(std::fs::metadata(to.join("a")).unwrap().mode() & 0o7777, 0o1777);
        assert!(to.join("a/b").is_dir());
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), tmp.path().join("secret"));
        assert_eq!(std::fs::read_link(to.join("dir-link")).unwrap(), std::path::Path::new("/"));
    }

    fn attribute(path: &std::path::Path, name: &str) -> Vec<u8> {
        let mut value = vec![0; 100];
        let length = fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        value
    }

    #[test]
    fn ids_are_shifted_wherever_they_are() {
        let tmp = tempfile::tempdir().unwrap();
        let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
        std::fs::create_dir_all(from.join("d")).unwrap();
        std::fs::create_dir(&to).unwrap();
        std::fs::write(from.join("d/f"), "text").unwrap();
        std::fs::hard_link(from.join("d/f"), from.join("again")).unwrap();
        symlink("d/f", from.join("link")).unwrap();
        std::fs::write(from.join("far"), "of an id that is not mapped").unwrap();
        let own = |name: &str, uid, gid| std::os::unix::fs::lchown(from.join(name), Some(uid), Some(gid)).unwrap();
        own("d", 7, 8);
        own("d/f", 0, 99);
        own("link", 1, 2);
        own("far", 5000, 1);
        for (name, mode) in [("d/f", 0o6755), ("far", 0o4755)] {
            std::fs::set_permissions(from.join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        // cap_net_raw, effective; and a list in which user 11 and group 12 are named
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        fs::setxattr(from.join("d/f"), "security.capability", &capability, XattrFlags::empty()).unwrap();
        let capability_before = capability;
        let none = [0xff; 4];
        let acl = |user: u32, group: u32| -> Vec<u8> {
            let mut list = vec![2, 0, 0, 0];
            for (tag, id) in
                [(1, none), (2, user.to_le_bytes()), (4, none), (8, group.to_le_bytes()), (16, none), (32, none)]
            {
                list.extend([tag, 0, 5, 0]);
                list.extend(id);
            }
            list
        };
        fs::setxattr(from.join("d"), "system.posix_acl_default", &acl(11, 12), XattrFlags::empty()).unwrap();

        let open = |path| fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let shift = UidRange { first: 100_000, count: 1000 };
        tree(&open(&from), &open(&to), Some(shift)).unwrap();
        let owner = |name: &str| {
            let stat = std::fs::symlink_metadata(to.join(name)).unwrap();
            (stat.uid(), stat.gid(), stat.mode() & 0o7777, stat.nlink())
        };
        assert_eq!(owner("d/f"), (100_000, 100_099, 0o6755, 2));
        assert_eq!(
            (owner("d").0, owner("d").1, owner("link").0, owner("link").1),
            (100_007, 100_008, 100_001, 100_002)
        );
        assert_eq!(owner("far"), (65534, 100_001, 0o755, 1), "nobody's, and nobody becomes nobody by it");
        // as the pod's root would have set it
        let capability = attribute(&to.join("again"), "security.capability");
        assert_eq!((capability.len(), capability[3], &capability[20..]), (24, 3, &100_000_u32.to_le_bytes()[..]));
        assert_eq!(attribute(&to.join("d"), "system.posix_acl_default"), acl(100_011, 100_012));

        let back = tmp.path().join("back");
        std::fs::create_dir(&back).unwrap();
        tree_from(&open(&to), &open(&back), shift).unwrap();
        let stat = std::fs::symlink_metadata(back.join("d/f")).unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (0, 99, 0o6755));
        assert_eq!(attribute(&back.join("again"), "security.capability"), capability_before);
        assert_eq!(attribute(&back.join("d"), "system.posix_acl_default"), acl(11, 12));
    }

    #[test]
    fn holes_and_several_names_are_kept() {
        use std::os::unix::fs::FileExt;
        let tmp = tempfile::tempdir().unwrap();
        let (from, to) = (tmp.path().join("from"), tmp.path().join("to"));
        std::fs::create_dir_all(from.join("a")).unwrap();
        std::fs::create_dir_all(from.join("b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        let holes = File::create(from.join("holes")).unwrap();
        holes.set_len(32 << 20).unwrap();
        holes.write_all_at(b"middle", 8 << 20).unwrap();
        holes.write_all_at(b"end", (32 << 20) - 3).unwrap();
        File::create(from.join("hole")).unwrap().set_len(1 << 20).unwrap();
        for n in 0..3 {
            std::fs::hard_link(from.join("holes"), from.join(format!("b/{n}"))).unwrap();
        }
        symlink("x", from.join("a/link")).unwrap();
        std::fs::hard_link(from.join("a/link"), from.join("b/link")).unwrap();
        let open = |path| fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        tree(&open(&from), &open(&to), None).unwrap();
        let (was, is) = (std::fs::metadata(from.join("holes")).unwrap(), std::fs::metadata(to.join("b/1")).unwrap());
        assert_eq!((is.nlink(), is.len(), is.mtime_nsec()), (4, 32 << 20, was.mtime_nsec()));
        assert!(is.blocks() <= was.blocks() + 64, "{} blocks of {}", is.blocks(), was.blocks());
        assert!(std::fs::read(from.join("holes")).unwrap() == std::fs::read(to.join("b/2")).unwrap());
        let hole = std::fs::metadata(to.join("hole")).unwrap();
        assert!(hole.len() == 1 << 20 && hole.blocks() <= 8);
        assert_eq!(std::fs::symlink_metadata(to.join("b/link")).unwrap().nlink(), 2);
    }

    #[test]
    fn layers_lie_over_each_other() {
        let tmp = tempfile::tempdir().unwrap();
        let at = |path: &str| tmp.path().join(path);
        for dir in ["low/d/e", "low/opaque/x", "low/was-dir", "mid/d", "mid/opaque", "high/d", "high/was-file", "to"] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        for file in ["low/d/f", "low/d/gone", "low/opaque/x/f", "low/was-dir/f", "low/was-file", "mid/opaque/new"] {
            std::fs::write(at(file), file).unwrap();
        }
        std::fs::write(at("mid/was-dir"), "a file").unwrap();
        std::fs::write(at("high/d/f"), "high").unwrap();
        std::fs::set_permissions(at("high/d"), PermissionsExt::from_mode(0o1777)).unwrap();
        let open = |name: &str| fs::open(at(name), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for path in ["d/gone", "d/never"] {
            fs::mknodat(open("mid"), path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        fs::fsetxattr(open("mid/opaque"), c"trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        layers(&[open("low"), open("mid"), open("high")], &open("to"), None).unwrap();
        let names = |dir: &str| {
            let mut names: Vec<String> =
                at(dir).read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        assert_eq!(names("to"), ["d", "opaque", "was-dir", "was-file"]);
        assert_eq!((names("to/d"), names("to/opaque")), (vec!["e".into(), "f".into()], vec!["new".to_owned()]));
        assert_eq!(std::fs::read_to_string(at("to/d/f")).unwrap(), "high");
        assert_eq!(std::fs::read_to_string(at("to/was-dir")).unwrap(), "a file");
        assert!(at("to/was-file").is_dir() && names("to/was-file").is_empty());
        assert_eq!(std::fs::metadata(at("to/d")).unwrap().mode() & 0o7777, 0o1777);
        let mut value = [0; 8];
        assert!(fs::fgetxattr(open("to/opaque"), c"trusted.overlay.opaque", &mut value[..]).is_err());
    }

    #[test]
    fn bottomless_directories_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 300).collect();
        std::fs::create_dir_all(tmp.path().join("from").join(deep)).unwrap();
        std::fs::create_dir(tmp.path().join("to")).unwrap();
        let open = |name| fs::open(tmp.path().join(name), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert!(tree(&open("from"), &open("to"), None).unwrap_err().one_line().contains("nested"));
    }
}
