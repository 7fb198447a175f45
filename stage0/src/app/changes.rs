//! Changes that an app made in its root file system, found in the upper directory of its overlay.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use stage1::appc::AcName;
use stage1::error::{Context, Error, Result};
use stage1::sys::dir;

use crate::app::root::overlay_of;
use crate::image::archive::{is_whiteout, sorted_names};
use crate::image::overlay_lookup::{Child, Merged};
use crate::poddir::find::Pod;
use crate::store::Store;

/// The deepest nesting of directories that is read.
const MAX_DEPTH: usize = 256;

/// How a file of an app differs from its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image does not have it.
    Added,
    /// The image has it with other content or attributes; a directory also counts as changed if an entry in it differs.
    Changed,
    /// Only the image has it.
    Deleted,
}

/// A file that differs from the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its absolute path in the app's root.
    pub path: PathBuf,
    /// How it differs.
    pub kind: ChangeKind,
}

/// All changes of an app, ordered by path.
///
/// # Errors
/// The pod uses copies instead of overlays, directories are nested more than 256 deep, or a file can't be read.
pub fn list(store: &Store, pod: &Pod, app: &AcName) -> Result<Vec<Change>> {
    let (upper, lower) = overlay_of(store, pod, app)?.context(|| {
        "the pod's file systems are copies, not overlays: nothing tells what was changed in them".to_owned()
    })?;
    let mut changes = Vec::new();
    if upper.is_dir() {
        let image = Merged::open(lower.iter().map(PathBuf::as_path))?;
        let upper = dir::open_dir_for_reading(&upper)?;
        collect(upper.as_fd(), Some(&image), Path::new("/"), 0, &mut changes)?;
    }
    Ok(changes)
}

/// Collects the changes in a directory of the overlay; `image` is the same directory in the image, if it exists there.
fn collect(
    dir: BorrowedFd<'_>,
    image: Option<&Merged>,
    path: &Path,
    depth: usize,
    changes: &mut Vec<Change>,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::new(format!("directories are nested more than {MAX_DEPTH} deep")));
    }
    for name in sorted_names(dir)? {
        let path = path.join(&name);
        let Some((kind, stat)) = look(dir, &name)? else { continue };
        let before = image.map(|image| image.child(&name)).transpose()?.flatten();
        let change = match (&before, is_whiteout(&stat)) {
            (_, true) => ChangeKind::Deleted,
            (Some(_), false) => ChangeKind::Changed,
            (None, false) => ChangeKind::Added,
        };
        changes.push(Change { path: path.clone(), kind: change });
        if kind.is_dir() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = fs::openat(dir, &name, flags, Mode::empty()).context(|| format!("open {path:?}"))?;
            let image = match before {
                Some(Child::Directory(parts)) => Some(Merged::of(parts)),
                _ => None,
            };
            collect(below.as_fd(), image.as_ref(), &path, depth + 1, changes)?;
        }
    }
    Ok(())
}

/// The type and status of an entry; `None` if it is gone.
fn look(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<(FileType, fs::Stat)>> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat))),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("stat {:?}", OsStr::from_bytes(name.as_bytes()))),
    }
}
