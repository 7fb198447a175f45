//! The directories of trees and of the layers they lie on, checking them, and moving new trees into the store.
//! Rendering is in [`super`].

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use stage1::error::{Context, Result};
use stage1::sys::dir;
use stage1::uid_range::UidRange;

use crate::fsutil::dir::{PRIVATE, make_dir};
use crate::image::archive::ImageId;
use crate::image::store::users;
use crate::image::tree::{checked_dir, layer_store};
use crate::store::{Store, TemporaryDir};

/// How many places of a list a quick check reads.
pub(crate) const PROBES: usize = 64;
/// The fewest places for a layer, however many layers share [`PROBES`].
const FEWEST_PROBES: usize = 2;

/// The root file system of a rendered tree, without the layers that it lies on. No process may write to it.
pub fn rootfs(store: &Store, tree: &str) -> PathBuf {
    checked_dir::rootfs(&directory(store, tree))
}

/// The root file systems of a tree and of the layers that it lies on, the uppermost first.
///
/// # Errors
/// The tree's record can't be read.
pub fn stack(store: &Store, tree: &str) -> Result<Vec<PathBuf>> {
    let info = checked_dir::info(&directory(store, tree))?.unwrap_or_default();
    let below = info.layers.iter().rev().map(|name| checked_dir::rootfs(&layer_store::directory(store, name)));
    Ok(std::iter::once(rootfs(store, tree)).chain(below).collect())
}

/// Copies the files of such a stack into the empty directory `to`, with owners shifted by `ids`.
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

/// The quick check of a tree and its layers: whether their lists and records exist, and at most about two hundred
/// files, others each time, are there and unchanged. It takes about the same time for up to thirty layers. Returns the
/// first fault.
///
/// # Errors
/// A file can't be read for a reason other than damage.
pub fn quick_fault(store: &Store, id: &ImageId) -> Result<Option<String>> {
    let dir = directory(store, id.as_str());
    let layers = checked_dir::info(&dir)?.unwrap_or_default().layers;
    if let Some(fault) = checked_dir::quick_fault(&dir, PROBES)? {
        return Ok(Some(fault));
    }
    let places = (PROBES / 2 / layers.len().max(1)).max(FEWEST_PROBES);
    for name in layers {
        if let Some(fault) = checked_dir::quick_fault(&layer_store::directory(store, &name), places)? {
            return Ok(Some(of_layer(&name, &fault)));
        }
    }
    Ok(None)
}

/// The text of a layer's fault, with the layer's name.
pub(crate) fn of_layer(name: &str, fault: &str) -> String {
    let short: String = name.chars().take("sha256-".len() + 12).collect();
    format!("layer {}: {fault}", short.replacen('-', ":", 1))
}

/// The full check of a tree, without the layers that it lies on, which reads every byte. Returns the first fault.
///
/// # Errors
/// A file can't be read for a reason other than damage.
pub fn full_fault(store: &Store, id: &ImageId) -> Result<Option<String>> {
    checked_dir::full_fault(&directory(store, id.as_str()))
}

/// Moves the tree from the working directory into the store; sets an existing one aside. The caller must hold the lock.
pub(crate) fn place(store: &Store, work: &TemporaryDir, id: &ImageId) -> Result<()> {
    make_dir(&store.trees(), PRIVATE)?;
    let (from, to) = (work.path().join("tree"), directory(store, id.as_str()));
    put_aside(store, work, id)?;
    std::fs::rename(&from, &to).context(|| format!("rename {from:?} to {to:?}"))?;
    crate::fsutil::dir::sync_dir(&store.trees())
}

/// Sets a tree aside, if it exists: renames it if pods use it, which then keep it until they are removed; else moves it
/// into the working directory. The caller must hold the lock.
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
