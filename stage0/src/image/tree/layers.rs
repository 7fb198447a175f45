//! The layer store: layers of images, each unpacked once, by the digest of its archive; all images that have it share
//! it.
//!
//! `layers/<algorithm>-<digits>/` is a checked directory (see [`checked_dir`]). What its archive removes of lower
//! layers it has as overlayfs marks that: a character device 0:0 for a name, an attribute for all that a directory
//! had. A layer appears whole, by one rename, and goes with the last tree that lies on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use stage1::error::{Context, Result};

use crate::fsutil::digest::Digest;
use crate::fsutil::dir::{PRIVATE, make_dir, names_in};
use crate::image::store::users::users;
use crate::image::tree::checked_dir;
use crate::store::{Store, TemporaryDir};

/// More layers than this are put into one tree at import: mount(2) takes one page of options, and so many fit in by
/// the shortest names that there are.
pub(crate) const MAX_STACKED: usize = 128;

/// A layer's name in the store.
pub(crate) fn name(diff: &Digest) -> String {
    format!("{}-{}", diff.algorithm(), diff.digits())
}

/// Whether there is something of that name; it may be damaged.
pub(crate) fn is_there(store: &Store, diff: &Digest) -> bool {
    directory(store, &name(diff)).exists()
}

/// Where a layer is, by the name that a tree notes.
pub(crate) fn directory(store: &Store, name: &str) -> PathBuf {
    store.layers().join(name)
}

/// Moves a layer from a working directory to the store, in the place of one that was damaged; the caller holds the
/// lock.
pub(crate) fn place(store: &Store, work: &TemporaryDir, from: &Path, name: &str) -> Result<()> {
    make_dir(&store.layers(), PRIVATE)?;
    let to = directory(store, name);
    if to.exists() {
        put_aside(store, work, name)?;
    }
    std::fs::rename(from, &to).context(|| format!("rename {from:?} to {to:?}"))
}

/// Takes a damaged layer out of the way; pods that use it keep it until they are gone. The caller holds the lock.
pub(crate) fn put_aside(store: &Store, work: &TemporaryDir, name: &str) -> Result<()> {
    let from = directory(store, name);
    // what is mounted may be renamed, and is not removed under its users
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

/// Takes the layers away that no tree lies on; the caller holds the lock. Tells which.
pub(crate) fn sweep(store: &Store, work: &TemporaryDir) -> Result<Vec<String>> {
    let (mut needed, mut used) = (BTreeSet::new(), BTreeSet::new());
    let users = users(store)?;
    for tree in names_in(&store.trees())? {
        let Some(info) = checked_dir::info(&store.trees().join(&tree))? else {
            // nobody knows what it lies on
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
            // put aside: pods that were there before may have it
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
