//! The layer store: each layer is unpacked once and shared by all images that have it.
//!
//! `layers/<algorithm>-<digits>/`, named by the digest of the uncompressed layer, is a checked directory
//! ([`checked_dir`]). It has overlayfs's marks in place of whiteouts: a character device 0:0 for a removed name, an
//! extended attribute for an opaque directory. A layer appears by one rename and is removed with the last tree that
//! lies on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use stage1::error::{Context, Result};

use crate::fsutil::digest::Digest;
use crate::fsutil::dir::{PRIVATE, make_dir, names_in};
use crate::image::store::users::users;
use crate::image::tree::checked_dir;
use crate::store::{Store, TemporaryDir};

/// The most layers under one tree. The import unpacks an image with more layers into one tree: mount(2) takes one page
/// of options, in which so many of the shortest possible paths fit.
pub(crate) const MAX_STACKED: usize = 128;

/// A layer's name in the store.
pub(crate) fn name(diff: &Digest) -> String {
    format!("{}-{}", diff.algorithm(), diff.digits())
}

/// Whether the store has the layer, which may be damaged.
pub(crate) fn is_there(store: &Store, diff: &Digest) -> bool {
    directory(store, &name(diff)).exists()
}

/// The directory of a layer by its name.
pub(crate) fn directory(store: &Store, name: &str) -> PathBuf {
    store.layers().join(name)
}

/// Moves a layer from a working directory into the store; sets a damaged one aside. The caller must hold the lock.
pub(crate) fn place(store: &Store, work: &TemporaryDir, from: &Path, name: &str) -> Result<()> {
    make_dir(&store.layers(), PRIVATE)?;
    let to = directory(store, name);
    if to.exists() {
        put_aside(store, work, name)?;
    }
    std::fs::rename(from, &to).context(|| format!("rename {from:?} to {to:?}"))
}

/// Sets a damaged layer aside: renames it if pods use it, which then keep it until they are removed; else moves it into
/// the working directory. The caller must hold the lock.
pub(crate) fn put_aside(store: &Store, work: &TemporaryDir, name: &str) -> Result<()> {
    let from = directory(store, name);
    let is_used = users(store)?.keys().any(|tree| {
        checked_dir::info(&store.trees().join(tree))
            .ok()
            .flatten()
            .is_some_and(|info| info.layers.iter().any(|one| one == name))
    });
    let unique = uuid::Uuid::new_v4();
    let to = match is_used {
        true => store.layers().join(format!("{name}.old-{unique}")),
        false => work.path().join(format!("old-layer-{unique}")),
    };
    std::fs::rename(&from, &to).context(|| format!("rename {from:?} to {to:?}"))
}

/// Moves the layers that no tree lies on into the working directory; returns their names. The caller must hold the
/// lock.
pub(crate) fn sweep(store: &Store, work: &TemporaryDir) -> Result<Vec<String>> {
    let (mut needed, mut used) = (BTreeSet::new(), BTreeSet::new());
    let users = users(store)?;
    for tree in names_in(&store.trees())? {
        let Some(info) = checked_dir::info(&store.trees().join(&tree))? else {
            // the layers that this tree lies on are unknown
            log::warn!("no layers are removed: tree {tree:?} is damaged");
            return Ok(Vec::new());
        };
        let tree = tree.to_string_lossy();
        if users.contains_key(tree.split(".old-").next().unwrap_or_default()) {
            used.extend(info.layers.iter().cloned());
        }
        needed.extend(info.layers);
    }
    let mut gone = Vec::new();
    for name in names_in(&store.layers())? {
        let name = name.to_string_lossy().into_owned();
        let is_needed = match name.split_once(".old-") {
            // set aside: pods made before may use it
            Some((of, _)) => used.contains(of),
            None => needed.contains(&name),
        };
        if is_needed {
            continue;
        }
        let (from, to) = (directory(store, &name), work.path().join(format!("layer-{}", gone.len())));
        std::fs::rename(&from, &to).context(|| format!("rename {from:?} to {to:?}"))?;
        gone.push(name);
    }
    Ok(gone)
}
