//! Where trees are, what they lie on, whether they are whole, and putting them there. Nothing is rendered here.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use stage1::error::{Context, Result};
use stage1::sys::dir;
use stage1::uid_range::UidRange;

use crate::fsutil::dir::{PRIVATE, make_dir};
use crate::image::archive::ImageId;
use crate::image::store::users;
use crate::image::tree::{checked_dir, layers};
use crate::store::{Store, TemporaryDir};

/// From so many places of a list a quick check looks.
pub(crate) const PROBES: usize = 64;
/// From so many at least, however many layers share that.
const FEWEST_PROBES: usize = 2;

/// The root file system of a rendered tree, without the layers that it lies on; it is read-only for everybody.
pub fn rootfs(store: &Store, tree: &str) -> PathBuf {
    checked_dir::rootfs(&directory(store, tree))
}

/// All directories whose files a tree has, the uppermost first.
///
/// # Errors
/// The note of the tree can't be read.
pub fn stack(store: &Store, tree: &str) -> Result<Vec<PathBuf>> {
    let info = checked_dir::info(&directory(store, tree))?.unwrap_or_default();
    let below = info.layers.iter().rev().map(|name| checked_dir::rootfs(&layers::directory(store, name)));
    Ok(std::iter::once(rootfs(store, tree)).chain(below).collect())
}

/// Copies the files of such directories into the empty directory `to`.
pub(crate) fn copy_stack(stack: &[PathBuf], to: &Path, ids: Option<UidRange>) -> Result<()> {
    let to = dir::open_dir_for_reading(to)?;
    if let [only] = stack {
        return stage1::rootfs::copy::tree(&dir::open_dir_for_reading(only)?, &to, ids);
    }
    let from: Vec<OwnedFd> = stack.iter().rev().map(dir::open_dir_for_reading).collect::<Result<_>>()?;
    stage1::rootfs::copy::layers(&from, &to, ids)
}

pub(crate) fn directory(store: &Store, tree: &str) -> PathBuf {
    store.trees().join(tree)
}

/// What a quick look finds wrong with a tree: a missing file of the store's own, or one of at most about a hundred
/// entries, others each time, that is missing or has been changed. It costs about the same for up to thirty layers.
///
/// # Errors
/// The store can't be read.
pub fn quick_fault(store: &Store, id: &ImageId) -> Result<Option<String>> {
    let dir = directory(store, id.as_str());
    let layers = checked_dir::info(&dir)?.unwrap_or_default().layers;
    if let Some(fault) = checked_dir::quick_fault(&dir, PROBES)? {
        return Ok(Some(fault));
    }
    let places = (PROBES / 2 / layers.len().max(1)).max(FEWEST_PROBES);
    for name in layers {
        if let Some(fault) = checked_dir::quick_fault(&layers::directory(store, &name), places)? {
            return Ok(Some(of_layer(&name, &fault)));
        }
    }
    Ok(None)
}

/// A fault of a layer, in words.
pub(crate) fn of_layer(name: &str, fault: &str) -> String {
    let short: String = name.chars().take("sha256-".len() + 12).collect();
    format!("layer {}: {fault}", short.replacen('-', ":", 1))
}

/// What is wrong with a tree, without the layers that it lies on, after a look at every byte of it.
///
/// # Errors
/// The store can't be read.
pub fn full_fault(store: &Store, id: &ImageId) -> Result<Option<String>> {
    checked_dir::full_fault(&directory(store, id.as_str()))
}

/// Puts the tree in the working directory into the store; the caller holds the lock. What is there is moved aside if
/// a pod uses it.
pub(crate) fn place(store: &Store, work: &TemporaryDir, id: &ImageId) -> Result<()> {
    make_dir(&store.trees(), PRIVATE)?;
    let (from, to) = (work.path().join("tree"), directory(store, id.as_str()));
    put_aside(store, work, id)?;
    std::fs::rename(&from, &to).context(|| format!("rename {from:?} to {to:?}"))?;
    crate::fsutil::dir::sync_dir(&store.trees())
}

/// Takes a tree out of the way, if there is one; pods that use it keep it. The caller holds the lock.
pub(crate) fn put_aside(store: &Store, work: &TemporaryDir, id: &ImageId) -> Result<()> {
    let from = directory(store, id.as_str());
    if !from.exists() {
        return Ok(());
    }
    let to = if users::users(store)?.contains_key(id.as_str()) {
        store.trees().join(format!("{}.old-{}", id.as_str(), uuid::Uuid::new_v4()))
    } else {
        work.path().join("old-tree")
    };
    std::fs::rename(&from, &to).context(|| format!("rename {from:?} to {to:?}"))
}
