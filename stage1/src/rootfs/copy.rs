//! Copying what an image has at a mount point into a new volume. Host side; the image is hostile:
//! nothing is followed, every step is relative to a descriptor.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags};

use crate::error::{Context, Error, Result};

/// Directories deeper than this are refused: each level holds a descriptor.
const MAX_DEPTH: u32 = 128;
/// Longest extended attribute: xattr(7), XATTR_SIZE_MAX.
const MAX_XATTR: usize = 64 * 1024;

/// Copies the content of the directory `from` into the directory `to`, and `from`'s own owner,
/// mode, times and extended attributes. Sockets are left out; hard links become files of their own.
pub(super) fn tree(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    directory(from.as_fd(), to.as_fd(), 0)
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::new(format!("directories are nested more than {MAX_DEPTH} deep")));
    }
    for entry in Dir::read_from(from).context(|| "read a directory")? {
        let entry = entry.context(|| "read a directory")?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            copy_entry(from, to, name, depth).context(|| format!("copy {name:?}"))?;
        }
    }
    attributes(from, to)
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<()> {
    let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).context(|| "stat")?;
    let open = |dir, flags| fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            fs::mkdirat(to, name, Mode::RWXU).context(|| "mkdir")?;
            let source = open(from, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open")?;
            let copy = open(to, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open the copy")?;
            directory(source.as_fd(), copy.as_fd(), depth + 1)
        }
        FileType::RegularFile => {
            let source = open(from, OFlags::RDONLY | OFlags::NONBLOCK).context(|| "open")?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let copy = fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR).context(|| "create")?;
            let (mut source, mut copy) = (std::fs::File::from(source), std::fs::File::from(copy));
            std::io::copy(&mut source, &mut copy).context(|| "copy its content")?;
            attributes(source.as_fd(), copy.as_fd())
        }
        FileType::Symlink => {
            let target = fs::readlinkat(from, name, Vec::new()).context(|| "readlink")?;
            fs::symlinkat(&target, to, name).context(|| "symlink")?;
            own(to, name, &stat)
        }
        kind @ (FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            fs::mknodat(to, name, kind, mode, stat.st_rdev).context(|| "mknod")?;
            own(to, name, &stat)?;
            fs::chmodat(to, name, mode, AtFlags::empty()).context(|| "chmod")
        }
        _ => Ok(()),
    }
}

fn own(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context(|| "chown")
}

/// Owner first: it takes set-user-ID bits and file capabilities away.
fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let stat = fs::fstat(from).context(|| "fstat")?;
    fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).context(|| "fchown")?;
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).context(|| "fchmod")?;
    extended_attributes(from, to)?;
    let time = |seconds, nanoseconds| fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    };
    fs::futimens(to, &times).context(|| "futimens")
}

fn extended_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut names = vec![0; MAX_XATTR];
    let length = match fs::flistxattr(from, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
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
        match fs::fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            // A file system without them, and labels that only a security module may set.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(rustix::io::Errno::PERM) if name.to_bytes() == b"security.selinux" => {}
            Err(errno) => return Err(errno).context(|| format!("fsetxattr({name:?})")),
        }
    }
    Ok(())
}

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
        tree(&open(&from), &open(&to)).unwrap();
        let file = std::fs::metadata(to.join("a/f")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4751, 12, 34));
        assert_eq!(std::fs::metadata(to.join("a")).unwrap().mode() & 0o7777, 0o1777);
        assert!(to.join("a/b").is_dir());
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), tmp.path().join("secret"));
        assert_eq!(std::fs::read_link(to.join("dir-link")).unwrap(), std::path::Path::new("/"));
    }

    #[test]
    fn bottomless_directories_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 200).collect();
        std::fs::create_dir_all(tmp.path().join("from").join(deep)).unwrap();
        std::fs::create_dir(tmp.path().join("to")).unwrap();
        let open = |name| fs::open(tmp.path().join(name), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert!(tree(&open("from"), &open("to")).unwrap_err().one_line().contains("nested"));
    }
}
