//! Opening and creating things below a directory descriptor, with no way out of it: openat2(2).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// How paths below a root directory are resolved: `..`, absolute paths and symlinks all stay
/// inside, as after chroot(2), and links of /proc are never followed.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Times openat2(2) is tried again when a concurrent rename makes it give up with EAGAIN.
const RACE_RETRIES: u32 = 128;

fn openat2(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let mut tries = 0;
    loop {
        match fs::openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN) if tries < RACE_RETRIES => tries += 1,
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a directory by path in this process's own view (`O_PATH`).
pub fn open_dir(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open directory {path:?}"))
}

/// Opens a directory by path in this process's own view, to list it.
pub fn open_dir_for_reading(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open directory {path:?}"))
}

/// Opens `path` inside `root` as chroot(2) would see it. Returns `None` if it does not exist.
pub fn try_open_in(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<Option<OwnedFd>> {
    let path = path.as_ref();
    match openat2(root.as_fd(), path, flags, Mode::empty(), IN_ROOT) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("open {path:?} inside the root directory")),
    }
}

/// Opens `path` inside `root` as chroot(2) would see it.
pub fn open_in(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    let path = path.as_ref();
    openat2(root.as_fd(), path, flags, Mode::empty(), IN_ROOT)
        .context(|| format!("open {path:?} inside the root directory"))
}

/// Opens `path` below `dir` for which no component may be a symlink (files of ours, in places
/// that something less trusted can also write).
pub fn open_beneath(dir: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    let path = path.as_ref();
    openat2(dir.as_fd(), path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
        .context(|| format!("open {path:?} below its directory"))
}

/// What a mount is to be attached to: a directory or anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An existing directory is used, a missing one created with mode 0755.
    Directory,
    /// An existing file is used, a missing one created empty with mode 0644.
    File,
}

/// Opens `path` inside `root` (`O_PATH`), creating what is missing one component at a time.
///
/// Symlinks on the way are followed inside the root, as the app itself would see them. A
/// dangling symlink is followed too, and its target created, up to 40 links (path_resolution(7)).
pub fn create_in(root: impl AsFd, path: impl AsRef<Path>, target: Target) -> Result<OwnedFd> {
    let path = path.as_ref();
    create_in_at(root.as_fd(), path, target, 0).context(|| format!("create {path:?} inside the root directory"))
}

const MAX_LINKS: u32 = 40;

fn create_in_at(root: BorrowedFd<'_>, path: &Path, target: Target, links: u32) -> Result<OwnedFd> {
    if links > MAX_LINKS {
        return Err(Errno::LOOP).context(|| "too many symlinks");
    }
    let names: Vec<_> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(Ok(name)),
            Component::ParentDir => Some(Err(Error::new("the path has a component \"..\""))),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect::<Result<_>>()?;
    let mut here = openat2(root, Path::new("."), OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), IN_ROOT)
        .context(|| "open the root directory")?;
    let mut so_far = std::path::PathBuf::from("/");
    for (i, name) in names.iter().enumerate() {
        let want = if i + 1 == names.len() { target } else { Target::Directory };
        let prefix = so_far.clone();
        so_far.push(name);
        let flags = OFlags::PATH | if want == Target::Directory { OFlags::DIRECTORY } else { OFlags::empty() };
        here = match openat2(root, &so_far, flags, Mode::empty(), IN_ROOT) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => match read_link(&here, name)? {
                Some(link) => {
                    let joined = prefix.join(link);
                    create_in_at(root, &normalised(&joined), want, links + 1)?
                }
                None => {
                    make(&here, Path::new(name), want)?;
                    openat2(root, &so_far, flags | OFlags::NOFOLLOW, Mode::empty(), IN_ROOT)
                        .context(|| format!("open {so_far:?}"))?
                }
            },
            Err(errno) => return Err(errno).context(|| format!("open {so_far:?}")),
        };
    }
    Ok(here)
}

/// `path` without `..`: resolved lexically, never above the root. Only used for the targets of
/// dangling links, of which nothing exists that could make `..` mean something else.
fn normalised(path: &Path) -> std::path::PathBuf {
    let mut out = std::path::PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

fn read_link(dir: &OwnedFd, name: &std::ffi::OsStr) -> Result<Option<std::path::PathBuf>> {
    match fs::readlinkat(dir, name, Vec::new()) {
        Ok(link) => Ok(Some(std::ffi::OsStr::from_bytes(link.as_bytes()).into())),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("readlink {name:?}")),
    }
}

fn make(dir: &OwnedFd, name: &Path, target: Target) -> Result<()> {
    let made = match target {
        Target::Directory => fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)),
        Target::File => fs::mknodat(dir, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0),
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("create {name:?} as {target:?}")),
    }
}

/// Creates a symlink `path` → `link` inside `root` unless something is there already.
pub fn symlink_in(root: impl AsFd, link: &str, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let (parent, name) = split(path)?;
    let dir = create_in(&root, parent, Target::Directory)?;
    match fs::symlinkat(link, &dir, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("symlink({link:?}, {path:?})")),
    }
}

/// A path's parent and last component.
pub fn split(path: &Path) -> Result<(&Path, &std::ffi::OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(Error::new(format!("{path:?} names no file"))),
    }
}

/// True if both descriptors are the same file: same device and inode number.
pub fn same_file(a: impl AsFd, b: impl AsFd) -> Result<bool> {
    let (a, b) = (fs::fstat(a).context(|| "fstat")?, fs::fstat(b).context(|| "fstat")?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Makes a device node in `dir` with exactly `mode`, whatever the umask: mknodat(2), fchmodat(2).
pub fn make_device(dir: impl AsFd, name: &str, mode: u32, major: u32, minor: u32) -> Result<()> {
    let device = fs::makedev(major, minor);
    fs::mknodat(&dir, name, FileType::CharacterDevice, Mode::from_raw_mode(mode), device)
        .context(|| format!("mknod({name:?}, c {major}:{minor})"))?;
    fs::chmodat(&dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
        .context(|| format!("chmod({name:?}, {mode:o})"))
}

/// `bytes` as a C string for exec and the like; an inner NUL is an error.
pub fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).context(|| format!("{:?} has a NUL byte", String::from_utf8_lossy(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn creation_follows_links_only_inside() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("root");
        std::fs::create_dir(&root).unwrap();
        symlink("/../../../outside", root.join("abs")).unwrap();
        symlink("../../up", root.join("rel")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let fd = open_dir(&root).unwrap();
        create_in(&fd, "/abs/data", Target::Directory).unwrap();
        create_in(&fd, "rel", Target::File).unwrap();
        create_in(&fd, "a/b/c", Target::File).unwrap();
        assert!(root.join("outside/data").is_dir());
        assert!(root.join("up").is_file());
        assert!(root.join("a/b/c").is_file());
        assert!(!tmp.path().join("outside").exists() && !tmp.path().join("up").exists());
        assert!(create_in(&fd, "loop", Target::Directory).is_err());
        assert!(create_in(&fd, "a/../../x", Target::Directory).is_err());
        assert!(create_in(&fd, "a/b/c/d", Target::Directory).is_err());
        // An existing target of the wrong kind is an error, not replaced.
        assert!(create_in(&fd, "a/b/c", Target::Directory).is_err());
    }

    #[test]
    fn beneath_refuses_links() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("file"), "x").unwrap();
        symlink("file", tmp.path().join("link")).unwrap();
        let fd = open_dir(tmp.path()).unwrap();
        open_beneath(&fd, "file", OFlags::RDONLY).unwrap();
        assert_eq!(open_beneath(&fd, "link", OFlags::RDONLY).unwrap_err().errno(), Some(libc::ELOOP));
        assert!(open_beneath(&fd, "/etc/passwd", OFlags::RDONLY).is_err());
    }
}
