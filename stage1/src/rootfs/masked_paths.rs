//! Masked and read-only paths of an app, which it can't see or can't write to. Pod side.
//!
//! They are resolved in the app's root, through symbolic links of the image. A path that does not exist is skipped; one
//! that exists and can't be covered is an error.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags, StatVfsMountFlags};

use super::plan::RootfsPlan;
use crate::error::{Context, Result};
use crate::layout;
use crate::sys::dir;
use crate::sys::mount::{Attributes, DetachedMount, Scope};

/// The empty directory and the empty file that are mounted over masked paths. They are opened before their own
/// directory is mounted over.
pub(super) struct Covers {
    directory: OwnedFd,
    file: OwnedFd,
}

impl Covers {
    pub(super) fn open() -> Result<Self> {
        let open = |path: &str| {
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())
                .context(|| format!("open {path}"))
        };
        Ok(Self { directory: open(layout::MASK_DIR)?, file: open(layout::MASK_FILE)? })
    }

    /// Covers the plan's paths in `root`, in which everything else is mounted already.
    pub(super) fn attach(&self, root: &DetachedMount, plan: &RootfsPlan) -> Result<()> {
        for path in &plan.masked_paths {
            self.hide(root, path).context(|| format!("hide {path:?}"))?;
        }
        plan.read_only_paths
            .iter()
            .try_for_each(|path| read_only(root, path).context(|| format!("make {path:?} read-only")))
    }

    fn hide(&self, root: &DetachedMount, path: &str) -> Result<()> {
        let Some(target) = dir::try_open_in(root, path, OFlags::PATH)? else { return Ok(()) };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&target).context(|| "fstat")?.st_mode);
        let cover = if kind == FileType::Directory { &self.directory } else { &self.file };
        // Masked already, as most paths of /proc and /sys are.
        if dir::same_file(&target, cover)? {
            return Ok(());
        }
        let cover = DetachedMount::clone_of(cover, Scope::One)?;
        cover.set(Attributes { read_only: true, ..Attributes::DATA }, Scope::One)?;
        cover.attach(target, Path::new(path))
    }
}

fn read_only(root: &DetachedMount, path: &str) -> Result<()> {
    let Some(target) = dir::try_open_in(root, path, OFlags::PATH)? else { return Ok(()) };
    let stat = rustix::fs::fstatvfs(&target).context(|| "fstatvfs")?;
    // Read-only already, as most paths of /proc and /sys are. Mounts below it stay as they are.
    if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let cover = DetachedMount::clone_of(&target, Scope::Recursive)?;
    cover.set(Attributes { read_only: true, ..Attributes::PRIVATE }, Scope::Recursive)?;
    cover.attach(target, Path::new(path))
}
