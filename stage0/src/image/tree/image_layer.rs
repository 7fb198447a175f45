//! The image's own uppermost layer: the root directory, and the working directory if no layer has it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use stage1::error::{Context, Result};

use crate::image::archive::{is_kept, xattr, xattr_names};
use crate::image::overlay_lookup::{Found, Merged};

/// The metadata of a directory.
struct Attributes {
    stat: Stat,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    fn of(dir: BorrowedFd<'_>) -> Result<Self> {
        let dir = open_dir(dir, ".".as_ref())?;
        let mut xattrs = Vec::new();
        for name in xattr_names(dir.as_fd()).context(|| "flistxattr")? {
            if is_kept(&name) {
                let value = xattr(dir.as_fd(), &name).context(|| format!("fgetxattr({name:?})"))?;
                xattrs.push((name, value));
            }
        }
        Ok(Self { stat: fs::fstat(&dir).context(|| "fstat")?, xattrs })
    }

    fn set(&self, dir: BorrowedFd<'_>) -> Result<()> {
        let stat = &self.stat;
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            fs::fchown(dir, Some(uid), Some(gid)).context(|| "fchown")?;
        }
        fs::fchmod(dir, Mode::from_raw_mode(stat.st_mode & 0o7777)).context(|| "fchmod")?;
        for (name, value) in &self.xattrs {
            fs::fsetxattr(dir, name.as_str(), value, XattrFlags::empty()).context(|| format!("fsetxattr({name:?})"))?;
        }
        set_time(dir, stat.st_mtime, stat.st_mtime_nsec.cast_signed())
    }
}

fn set_time(dir: BorrowedFd<'_>, tv_sec: i64, tv_nsec: i64) -> Result<()> {
    let time = Timespec { tv_sec, tv_nsec };
    fs::futimens(dir, &Timestamps { last_access: time, last_modification: time }).context(|| "futimens")
}

fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty()).context(|| format!("open directory {name:?}"))
}

/// Fills the directory `to`, which may be the only tree of `files`: gives it the metadata of `root`, if given, and
/// makes the working directory if `files` lack it, as other runtimes do. New directories have the times of 1970 and
/// existing ones keep theirs, so that an image always gives the same tree.
///
/// # Errors
/// A directory can't be read or made, or its metadata can't be set.
pub(crate) fn make(files: &Merged, root: Option<&Path>, working_directory: &Path, to: &Path) -> Result<()> {
    let to = stage1::sys::dir::open_dir_for_reading(to)?;
    let root = root.map(stage1::sys::dir::open_dir_for_reading).transpose()?;
    let root = root.map(|root| Attributes::of(root.as_fd())).transpose()?;
    let (at, missing) = match files.find(working_directory)? {
        Found::Directory(..) => (PathBuf::new(), Vec::new()),
        Found::Missing(at, missing) if missing.iter().all(|name| name != "..") => (at, missing),
        _ => {
            log::warn!("the working directory {working_directory:?} is not a directory in the image, and can't be one");
            (PathBuf::new(), Vec::new())
        }
    };
    let mut steps: Vec<(OwnedFd, Option<Attributes>)> = Vec::new();
    let mut path = PathBuf::new();
    for name in at.iter().chain(missing.iter().map(|name| name.as_os_str())) {
        path.push(name);
        let attributes = match files.find(&path)? {
            Found::Directory(parts) => parts.first().map(|part| Attributes::of(part.as_fd())).transpose()?,
            _ => None,
        };
        let above = steps.last().map_or(to.as_fd(), |(dir, _)| dir.as_fd());
        let made = match fs::mkdirat(above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => open_dir(above, name)?,
            Err(errno) => return Err(errno).context(|| format!("mkdirat({path:?})")),
        };
        steps.push((made, attributes));
    }
    let shown = || format!("the working directory {working_directory:?}");
    for (dir, attributes) in steps.iter().rev() {
        match attributes {
            Some(attributes) => attributes.set(dir.as_fd()).context(shown)?,
            None => set_time(dir.as_fd(), 0, 0).context(shown)?,
        }
    }
    match root {
        Some(root) => root.set(to.as_fd()).context(|| "the root"),
        None => set_time(to.as_fd(), 0, 0),
    }
}
