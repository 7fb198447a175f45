//! Opening and creating files below a directory descriptor, confined to that directory: openat2(2).

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};

/// Resolution of paths inside a root: `..`, absolute paths and symlinks stay inside, as after chroot(2), and magic
/// links of /proc are not followed.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// Number of retries when openat2(2) fails with EAGAIN because of a concurrent rename or mount.
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

/// Opens a directory (`O_PATH`) by a path in this process's mount namespace.
///
/// # Errors
/// It does not exist, is not a directory, or its path may not be searched.
pub fn open_dir(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open directory {path:?}"))
}

/// Opens a directory for listing by a path in this process's mount namespace. A symlink as the last component is
/// refused.
///
/// # Errors
/// It does not exist, is not a directory, or may not be read.
pub fn open_dir_for_reading(path: impl AsRef<Path>) -> Result<OwnedFd> {
    let path = path.as_ref();
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open directory {path:?}"))
}

/// Opens `path` as a process with the root directory `root` would: chroot(2). `None` if it does not exist.
///
/// # Errors
/// It exists and can't be opened with these flags.
pub fn try_open_in(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<Option<OwnedFd>> {
    let path = path.as_ref();
    match openat2(root.as_fd(), path, flags, Mode::empty(), IN_ROOT) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("open {path:?} inside the root directory")),
    }
}

/// Opens `path` as a process with the root directory `root` would: chroot(2).
///
/// # Errors
/// It does not exist, or can't be opened with these flags.
pub fn open_in(root: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    let path = path.as_ref();
    openat2(root.as_fd(), path, flags, Mode::empty(), IN_ROOT)
        .context(|| format!("open {path:?} inside the root directory"))
}

/// Opens `path` below `dir`, refusing a symlink as any component: for files of ours in directories that less trusted
/// processes can write.
///
/// # Errors
/// It does not exist, leads out of `dir`, or has a symlink on the way.
pub fn open_beneath(dir: impl AsFd, path: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd> {
    let path = path.as_ref();
    openat2(dir.as_fd(), path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
        .context(|| format!("open {path:?} below its directory"))
}

/// Opens the directory `name` directly in `root` (`O_PATH`), created with mode 0755 if it is missing. A symlink is
/// refused, wherever it leads.
///
/// # Errors
/// The name belongs to something that is not a directory, or the directory can't be created.
pub fn real_directory(root: impl AsFd, name: &str) -> Result<OwnedFd> {
    let root = root.as_fd();
    make(root, Path::new(name), EntryKind::Directory)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root, Path::new(name), flags, Mode::empty(), resolve).map_err(|errno| match errno {
        Errno::LOOP => Error::new(format!("the image's /{name} is a link, and must be a directory: replace it")),
        Errno::NOTDIR => Error::new(format!("the image's /{name} is a file, and must be a directory: replace it")),
        other => Error::caused_by(format!("open the image's /{name}"), other),
    })
}

/// The absolute path of `path` inside `root`, with symlinks and `..` resolved as after chroot(2). Relative paths start
/// at the root. Components that do not exist are kept as they are.
///
/// # Errors
/// The path goes through more than 40 symlinks, or a component can't be opened or read.
pub fn canonical_in(root: impl AsFd, path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    let what = || format!("resolve {path:?} inside the root directory");
    let mut links = 0;
    let mut out = PathBuf::from("/");
    let mut ahead = vec![path.to_owned()];
    while let Some(next) = ahead.pop() {
        let mut components = next.components();
        let Some(component) = components.next() else { continue };
        ahead.push(components.as_path().to_owned());
        match component {
            Component::Normal(name) => {
                out.push(name);
                if let Some(link) = link_at(root.as_fd(), &out).context(what)? {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP).context(what);
                    }
                    out.pop();
                    ahead.push(link);
                }
            }
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir => out = PathBuf::from("/"),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

/// The target of the symlink at `path`; `None` if `path` is not a symlink or does not exist.
fn link_at(root: BorrowedFd<'_>, path: &Path) -> Result<Option<PathBuf>, Errno> {
    match openat2(root, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), IN_ROOT) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        found => match fs::readlinkat(found?, c"", Vec::new()) {
            Ok(link) => Ok(Some(std::ffi::OsStr::from_bytes(link.as_bytes()).into())),
            // Not a symlink: readlinkat(2) reports either of them, depending on the kind of file.
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        },
    }
}

/// Kind of file that a mount is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory. If it is missing, it is created with mode 0755.
    Directory,
    /// Any other kind of file. If it is missing, an empty regular file is created with mode 0644.
    File,
}

/// Opens `path` inside `root` (`O_PATH`), creating missing components one by one.
///
/// Symlinks are resolved inside the root, as the app itself would see them. The target of a dangling symlink is created
/// too, through at most 40 symlinks: path_resolution(7).
///
/// # Errors
/// `path` has a component `..`, is of another kind than `target`, goes through too many symlinks, or can't be created.
pub fn create_in(root: impl AsFd, path: impl AsRef<Path>, target: EntryKind) -> Result<OwnedFd> {
    let path = path.as_ref();
    create_in_at(root.as_fd(), path, target, 0).context(|| format!("create {path:?} inside the root directory"))
}

const MAX_LINKS: u32 = 40;

fn create_in_at(root: BorrowedFd<'_>, path: &Path, target: EntryKind, links: u32) -> Result<OwnedFd> {
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
        let want = if i + 1 == names.len() { target } else { EntryKind::Directory };
        let prefix = so_far.clone();
        so_far.push(name);
        let flags = OFlags::PATH | if want == EntryKind::Directory { OFlags::DIRECTORY } else { OFlags::empty() };
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

/// `path` with `..` resolved lexically, never above the root. Only for the targets of dangling symlinks: their last
/// components do not exist, so no symlink can give `..` another meaning there.
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

fn make(dir: impl AsFd, name: &Path, target: EntryKind) -> Result<()> {
    let made = match target {
        EntryKind::Directory => fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)),
        EntryKind::File => fs::mknodat(&dir, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0),
    };
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("create {name:?} as {target:?}")),
    }
}

/// Creates a symlink `path` → `link` inside `root`, with its directory, unless `path` exists already.
///
/// # Errors
/// `path` is `/` or ends in `..`, or the symlink or its directory can't be created.
pub fn symlink_in(root: impl AsFd, link: &str, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let (parent, name) = split(path)?;
    let dir = create_in(&root, parent, EntryKind::Directory)?;
    match fs::symlinkat(link, &dir, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("symlink({link:?}, {path:?})")),
    }
}

/// The parent and the last component of `path`.
///
/// # Errors
/// `path` is empty or `/`, or ends in `..`.
pub fn split(path: &Path) -> Result<(&Path, &std::ffi::OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(Error::new(format!("{path:?} names no file"))),
    }
}

/// Whether both descriptors refer to the same file, by device and inode number.
///
/// # Errors
/// fstat(2) fails.
pub fn same_file(a: impl AsFd, b: impl AsFd) -> Result<bool> {
    let (a, b) = (fs::fstat(a).context(|| "fstat")?, fs::fstat(b).context(|| "fstat")?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Makes a character device node in `dir` with exactly `mode`, whatever the umask: mknodat(2), fchmodat(2).
///
/// # Errors
/// This process may not make device nodes, or `name` exists already.
pub fn make_device(dir: impl AsFd, name: &str, mode: u32, major: u32, minor: u32) -> Result<()> {
    let device = fs::makedev(major, minor);
    fs::mknodat(&dir, name, FileType::CharacterDevice, Mode::from_raw_mode(mode), device)
        .context(|| format!("mknod({name:?}, c {major}:{minor})"))?;
    fs::chmodat(&dir, name, Mode::from_raw_mode(mode), AtFlags::empty())
        .context(|| format!("chmod({name:?}, {mode:o})"))
}

/// `bytes` as a C string.
///
/// # Errors
/// `bytes` has a NUL byte.
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
        create_in(&fd, "/abs/data", EntryKind::Directory).unwrap();
        create_in(&fd, "rel", EntryKind::File).unwrap();
        create_in(&fd, "a/b/c", EntryKind::File).unwrap();
        assert!(root.join("outside/data").is_dir());
        assert!(root.join("up").is_file());
        assert!(root.join("a/b/c").is_file());
        assert!(!tmp.path().join("outside").exists() && !tmp.path().join("up").exists());
        assert!(create_in(&fd, "loop", EntryKind::Directory).is_err());
        assert!(create_in(&fd, "a/../../x", EntryKind::Directory).is_err());
        assert!(create_in(&fd, "a/b/c/d", EntryKind::Directory).is_err());
        // An existing target of the wrong kind is an error, not replaced.
        assert!(create_in(&fd, "a/b/c", EntryKind::Directory).is_err());
    }

    #[test]
    fn a_directory_of_the_roots_own() {
        let tmp = tempfile::tempdir().unwrap();
        let fd = open_dir(tmp.path()).unwrap();
        real_directory(&fd, "proc").unwrap();
        real_directory(&fd, "proc").unwrap();
        assert!(tmp.path().join("proc").is_dir());
        for (name, to) in [("up", "/"), ("beside", "proc"), ("nowhere", "none")] {
            symlink(to, tmp.path().join(name)).unwrap();
            let error = real_directory(&fd, name).unwrap_err().one_line();
            assert!(error.contains(&format!("/{name} is a link")), "{error}");
        }
        std::fs::write(tmp.path().join("file"), "").unwrap();
        assert!(real_directory(&fd, "file").unwrap_err().one_line().contains("/file is a file"));
    }

    #[test]
    fn canonical_paths() {
        let tmp = tempfile::tempdir().unwrap();
        let fd = open_dir(tmp.path()).unwrap();
        std::fs::create_dir_all(tmp.path().join("run/deep")).unwrap();
        std::fs::write(tmp.path().join("file"), "").unwrap();
        for (to, name) in [("../../run", "var"), ("/run/deep/../x", "abs"), ("loop", "loop"), ("/a/./b", "dangling")] {
            symlink(to, tmp.path().join(name)).unwrap();
        }
        symlink("../var", tmp.path().join("run/again")).unwrap();
        for (path, expected) in [
            ("/", "/"),
            ("", "/"),
            ("dir1", "/dir1"),
            ("../../foo", "/foo"),
            ("/a//b/./c/..", "/a/b"),
            ("var/lock", "/run/lock"),
            ("/var/..", "/"),
            ("abs/y", "/run/x/y"),
            ("dangling/../c", "/a/c"),
            ("run/again/again/deep", "/run/deep"),
            ("file/x", "/file/x"),
        ] {
            assert_eq!(canonical_in(&fd, path).unwrap(), Path::new(expected), "{path:?}");
        }
        assert_eq!(canonical_in(&fd, "loop/x").unwrap_err().errno(), Some(libc::ELOOP));
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
