//! Removing files and whole directories, whose content a pod may have made to mislead the host.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};

/// A directory below this depth is moved to the top first, so that depth costs neither descriptors nor stack.
const MAX_DEPTH: usize = 64;

/// Removes the directory `path` and everything in it; does nothing if it does not exist.
///
/// It follows no symbolic link and enters no mount: a mount below `path` fails the removal, so that what is mounted
/// there is not lost.
///
/// # Errors
/// `path` is `/` or ends in `..`, something is mounted below it, or an entry can't be opened or removed.
pub fn tree(path: &Path) -> Result<()> {
    let shown = || format!("remove {path:?}");
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(format!("{}: not a directory that can be removed", shown())));
    };
    let parent = match fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Error::caused_by(shown(), errno)),
    };
    let Some(top) = enter(parent.as_fd(), name).context(shown)? else {
        return Ok(());
    };
    let mut remover = Remover { top: top.as_fd(), moved: 0 };
    // each pass removes all but what it moved to the top
    loop {
        let before = remover.moved;
        remover.contents(top.as_fd(), 0).context(shown)?;
        if remover.moved == before {
            break;
        }
    }
    unlink(parent.as_fd(), name, AtFlags::REMOVEDIR).context(shown)
}

struct Remover<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
}

impl Remover<'_> {
    fn contents(&mut self, dir: BorrowedFd<'_>, depth: usize) -> Result<()> {
        for name in names(dir)? {
            match fs::unlinkat(dir, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(Error::caused_by(format!("unlinkat({name:?})"), errno)),
            }
            if depth == MAX_DEPTH {
                self.move_to_top(dir, &name)?;
                continue;
            }
            if let Some(child) = enter(dir, &name)? {
                self.contents(child.as_fd(), depth + 1).context(|| format!("{name:?}"))?;
                unlink(dir, &name, AtFlags::REMOVEDIR)?;
            }
        }
        Ok(())
    }

    fn move_to_top(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        loop {
            let to = format!(".deep-{}", self.moved);
            self.moved += 1;
            match fs::renameat_with(dir, name, self.top, &to, fs::RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other.context(|| format!("move {name:?} up")),
            }
        }
    }
}

fn names(dir: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).context(|| "read directory")? {
        let name = entry.context(|| "read directory")?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// Opens the directory `name` of `dir`, which must be on the same mount; `None` if it is gone.
fn enter(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::XDEV) => Err(Error::new(format!("something is mounted at {name:?}: unmount it first"))),
        Err(errno) => Err(Error::caused_by(format!("open directory {name:?}"), errno)),
    }
}

/// Removes a file of an open directory; does nothing if it does not exist.
///
/// # Errors
/// unlinkat(2) fails for another reason.
pub(crate) fn file(dir: impl AsFd, name: &OsStr) -> Result<()> {
    unlink(dir.as_fd(), name, AtFlags::empty())
}

fn unlink(dir: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> Result<()> {
    match fs::unlinkat(dir, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::caused_by(format!("unlinkat({name:?})"), errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_links_not_what_they_point_to_and_any_depth() {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let top = base.path().join("top");
        std::fs::create_dir(&top).unwrap();
        std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();

        let mut dir = fs::open(&top, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..3000 {
            fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = fs::openat(&dir, "d", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        tree(&top).unwrap();
        assert!(!top.exists());
        assert!(outside.join("kept").exists());
        tree(&top).unwrap();
    }

    #[test]
    fn never_enters_a_mount() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting takes root");
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let volume = base.path().join("volume");
        let inside = base.path().join("top/inside");
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::write(volume.join("precious"), "x").unwrap();
        rustix::mount::mount_bind(&volume, &inside).unwrap();
        let result = tree(&base.path().join("top"));
        rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::empty()).unwrap();
        let error = result.unwrap_err().one_line();
        assert!(error.contains("mounted"), "{error}");
        assert!(volume.join("precious").exists());
        tree(&base.path().join("top")).unwrap();
    }
}
