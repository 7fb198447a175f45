//! Mount points in an app's root. Pod side.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use crate::error::{Context, Error, Result};
use crate::sys::dir::{self, EntryKind};
use crate::sys::mount::DetachedMount;

/// Opens the mount point `target` in `root` for a mount of the kind `kind`, and makes it if it is missing. `what` names
/// the mount in messages.
///
/// # Errors
/// `target` exists and is of the other kind, or it can't be made.
pub(super) fn of_kind(what: &str, root: &DetachedMount, target: &Path, kind: EntryKind) -> Result<OwnedFd> {
    if let Some(there) = dir::try_open_in(root, target, OFlags::PATH)? {
        let stat = rustix::fs::fstat(there).context(|| format!("fstat {target:?}"))?;
        let word = |is_dir| if is_dir { "directory" } else { "file" };
        let (own, other) = (kind == EntryKind::Directory, FileType::from_raw_mode(stat.st_mode).is_dir());
        if own != other {
            let target = target.display();
            return Err(Error::new(format!("{what} is a {}, its target {target} is a {}", word(own), word(other))));
        }
    }
    dir::create_in(root, target, kind).context(|| what.to_owned())
}
