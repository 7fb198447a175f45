//! Looking up files in stacked trees as overlayfs would show them, without a mount (filesystems/overlayfs.rst).
//!
//! The trees are hostile input: each step opens one name below a descriptor, and this module itself follows symbolic
//! links, within the trees.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};

use crate::image::archive::{OPAQUE, is_whiteout};

/// The most symbolic links in one path, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A stack of trees, the uppermost first.
#[derive(Debug)]
pub(crate) struct Merged {
    roots: Vec<Rc<OwnedFd>>,
}

/// The result of looking up a path.
#[derive(Debug)]
pub(crate) enum Found {
    /// A directory: its part in each tree that has it, the uppermost first.
    Directory(Vec<Rc<OwnedFd>>),
    /// A file of another type: its parent directory and its name.
    Other(Rc<OwnedFd>, OsString),
    /// The path does not exist: its deepest existing directory, and the missing names below it.
    Missing(PathBuf, Vec<OsString>),
    /// The path can't exist: one of its directories is another kind of file, or it has too many symbolic links.
    Barred,
}

/// An entry of a directory.
#[derive(Debug)]
pub(crate) enum Child {
    /// A directory: its part in each tree that has it, the uppermost first.
    Directory(Vec<Rc<OwnedFd>>),
    /// A symbolic link, with its target.
    Link(OsString),
    /// A file of another type, with its parent directory.
    Other(Rc<OwnedFd>),
}

impl Merged {
    /// Opens the roots of trees, the uppermost first.
    ///
    /// # Errors
    /// A root does not exist or is not a directory.
    pub(crate) fn open<'a>(roots: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |path: &Path| {
            fs::open(path, flags, Mode::empty()).map(Rc::new).context(|| format!("open directory {path:?}"))
        };
        Ok(Self { roots: roots.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// Takes the parts of a directory in several trees, the uppermost first.
    pub(crate) fn of(parts: Vec<Rc<OwnedFd>>) -> Self {
        Self { roots: parts }
    }

    /// The entry `name` of the root; `None` if there is none. Does not follow a symbolic link.
    ///
    /// # Errors
    /// The entry can't be opened or read.
    pub(crate) fn child(&self, name: &OsStr) -> Result<Option<Child>> {
        child(&self.roots, name)
    }

    /// Looks up a path and follows symbolic links; `..` at the root stays there.
    ///
    /// # Errors
    /// An entry of the path can't be opened or read.
    pub(crate) fn find(&self, path: &Path) -> Result<Found> {
        let mut todo = names(path);
        let mut at: Vec<(OsString, Vec<Rc<OwnedFd>>)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let dir = at.last().map_or(&self.roots, |(_, parts)| parts);
            match child(dir, &name).context(|| format!("look at {path:?} in the image"))? {
                None => {
                    let rest = std::iter::once(name).chain(todo).collect();
                    return Ok(Found::Missing(path_of(&at), rest));
                }
                Some(Child::Directory(parts)) => at.push((name, parts)),
                Some(Child::Link(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(Found::Barred);
                    }
                    let target = Path::new(&target);
                    if target.is_absolute() {
                        at.clear();
                    }
                    let mut next = names(target);
                    next.append(&mut todo);
                    todo = next;
                }
                Some(Child::Other(above)) if todo.is_empty() => return Ok(Found::Other(above, name)),
                Some(Child::Other(_)) => return Ok(Found::Barred),
            }
        }
        let parts = at.last().map_or_else(|| self.roots.clone(), |(_, parts)| parts.clone());
        Ok(Found::Directory(parts))
    }

    /// Opens a regular file for reading; `None` if the path does not exist, `Err(kind)` if it is a file of another
    /// type.
    ///
    /// # Errors
    /// An entry of the path can't be opened or read.
    pub(crate) fn open_file(&self, path: &Path) -> Result<Option<std::result::Result<OwnedFd, FileType>>> {
        let (above, name) = match self.find(path)? {
            Found::Other(above, name) => (above, name),
            Found::Directory(..) => return Ok(Some(Err(FileType::Directory))),
            Found::Missing(..) | Found::Barred => return Ok(None),
        };
        let stat = fs::statat(&above, &name, AtFlags::SYMLINK_NOFOLLOW).context(|| format!("stat {path:?}"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !kind.is_file() {
            return Ok(Some(Err(kind)));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&above, &name, flags, Mode::empty()).context(|| format!("open {path:?}")).map(|file| Some(Ok(file)))
    }
}

fn path_of(at: &[(OsString, Vec<Rc<OwnedFd>>)]) -> PathBuf {
    at.iter().map(|(name, _)| name.as_os_str()).collect()
}

fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn child(dir: &[Rc<OwnedFd>], name: &OsStr) -> Result<Option<Child>> {
    let mut parts = Vec::new();
    for part in dir {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match fs::openat(part, name, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NAMETOOLONG) => continue,
            other => other.context(|| format!("open {name:?}"))?,
        };
        let stat = fs::fstat(&fd).context(|| format!("stat {name:?}"))?;
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            let opaque = is_opaque(fd.as_fd())?;
            parts.push(Rc::new(fd));
            if opaque {
                break;
            }
            continue;
        }
        if parts.is_empty() && !is_whiteout(&stat) {
            return Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    let target = fs::readlinkat(&fd, "", Vec::new()).context(|| format!("readlink {name:?}"))?;
                    Child::Link(OsString::from_vec(target.into_bytes()))
                }
                _ => Child::Other(Rc::clone(part)),
            }));
        }
        break;
    }
    Ok((!parts.is_empty()).then_some(Child::Directory(parts)))
}

/// Whether a directory hides the same directory of lower trees.
fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = fs::openat(dir, ".", flags, Mode::empty()).context(|| "open directory")?;
    let mut value = [0; 2];
    match fs::fgetxattr(&dir, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(Error::caused_by(format!("fgetxattr({OPAQUE})"), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn upper_trees_hide_lower_ones() {
        let base = tempfile::tempdir().unwrap();
        let at = |path: &str| base.path().join(path);
        for dir in ["low/etc/deep", "low/usr/lib", "low/gone/x", "high/etc", "high/new"] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        std::fs::write(at("low/etc/passwd"), "low").unwrap();
        std::fs::write(at("low/etc/group"), "low").unwrap();
        std::fs::write(at("high/etc/passwd"), "high").unwrap();
        std::fs::write(at("high/gone"), "a file now").unwrap();
        symlink("usr/lib", at("low/lib")).unwrap();
        symlink("/../etc/group", at("low/usr/lib/group")).unwrap();
        symlink("loop", at("high/loop")).unwrap();
        symlink("/nowhere/below", at("high/dangling")).unwrap();
        let merged = Merged::open([at("high").as_path(), at("low").as_path()]).unwrap();
        let text = |path: &str| {
            let file = merged.open_file(Path::new(path)).unwrap()?.ok()?;
            Some(std::io::read_to_string(std::fs::File::from(file)).unwrap())
        };
        assert_eq!(text("/etc/passwd").as_deref(), Some("high"));
        assert_eq!(text("lib/group").as_deref(), Some("low"));
        assert_eq!(text("gone").as_deref(), Some("a file now"));
        assert!(text("gone/x").is_none() && text("loop").is_none() && text("/etc").is_none());
        let find = |path: &str| merged.find(Path::new(path)).unwrap();
        assert!(matches!(find("/etc/deep"), Found::Directory(parts) if parts.len() == 1));
        assert!(
            matches!(find("/lib/../x/y"), Found::Missing(path, rest) if path == Path::new("usr") && rest == ["x", "y"])
        );
        assert!(
            matches!(find("dangling"), Found::Missing(path, rest) if path == Path::new("") && rest == ["nowhere", "below"])
        );
        assert!(matches!(find("gone/x"), Found::Barred));
    }
}
