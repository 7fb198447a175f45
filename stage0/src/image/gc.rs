//! Removing images, and the trees, layers and blobs that no image or pod uses.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use stage1::error::{Context, Error, Result};

use crate::fsutil::dir::{make_dir, names_in, sync_dir};
use crate::image::archive::ImageId;
use crate::image::store::blobs;
use crate::image::store::find::list;
use crate::image::store::names::{link_name, names};
use crate::image::store::users::users;
use crate::image::store::{directory, ids, last_used};
use crate::image::tree as trees;
use crate::image::tree::layer_store;
use crate::store::{Store, TemporaryDir};

/// Removes an image, its names and its tree, and the layers and blobs that no other image needs.
///
/// # Errors
/// A pod uses the image, or another image depends on it: nothing is changed then. Or the store can't be locked, read or
/// written.
pub fn remove(store: &Store, id: &ImageId) -> Result<()> {
    // dropped after the lock, so that removing the files moved into it does not keep others waiting
    let work = store.temporary_dir()?;
    let _lock = store.lock_images()?;
    if let Some(pods) = users(store)?.get(id.as_str()) {
        let some: Vec<&str> = pods.iter().take(3).map(String::as_str).collect();
        let more = if pods.len() > some.len() { " and others" } else { "" };
        return Err(Error::new(format!("pods use it: {}{more}", some.join(", "))));
    }
    for (other, _) in list(store)? {
        if other.info.dependencies.contains(id) {
            return Err(Error::new(format!("image {} ({}) depends on it", other.id.short(), other.parsed.name)));
        }
    }
    take_away(store, &work, id)?;
    layer_store::sweep(store, &work)?;
    blobs::sweep(store, &work).map(drop)
}

/// Removes an image's names and moves the image and its tree into the working directory. The caller must hold the lock.
fn take_away(store: &Store, work: &TemporaryDir, id: &ImageId) -> Result<()> {
    for (name, target) in names(store)? {
        if target == *id {
            let link = store.names().join(link_name(&name));
            std::fs::remove_file(&link).context(|| format!("remove {link:?}"))?;
        }
    }
    let to = work.path().join(id.as_str());
    make_dir(&to, 0o700)?;
    move_if_there(directory(store, id), to.join("image"))?;
    move_if_there(trees::directory(store, id.as_str()), to.join("tree"))?;
    if store.images().exists() { sync_dir(&store.images()) } else { Ok(()) }
}

fn move_if_there(from: PathBuf, to: PathBuf) -> Result<()> {
    match std::fs::rename(&from, &to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("rename {from:?} to {to:?}")),
    }
}

/// What [`collect`] has removed.
#[derive(Debug, Default)]
pub struct Collected {
    /// The ids of unused images.
    pub images: Vec<ImageId>,
    /// The directory names of trees that no pod uses and that have no image.
    pub trees: Vec<String>,
    /// The names of layers that no tree lies on.
    pub layers: Vec<String>,
    /// The digests of blobs that no image needs.
    pub blobs: Vec<String>,
}

/// Which of the unused images [`collect`] removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Images without a name.
    Unnamed,
    /// All unused images.
    Unused,
}

/// Removes the images that no pod and no other image uses and that were last used at least `grace` ago; then trees that
/// no pod uses and that have no image or were set aside, layers that no tree lies on, and blobs that no image needs.
///
/// # Errors
/// The store can't be locked, read or written.
pub fn collect(store: &Store, grace: Duration, which: Which) -> Result<Collected> {
    let work = store.temporary_dir()?;
    let _lock = store.lock_images()?;
    let users = users(store)?;
    let named: BTreeSet<ImageId> = match which {
        Which::Unnamed => names(store)?.into_iter().map(|(_, id)| id).collect(),
        Which::Unused => BTreeSet::new(),
    };
    let mut collected = Collected::default();
    loop {
        let all = list(store)?;
        let needed: BTreeSet<&ImageId> = all.iter().flat_map(|(image, _)| &image.info.dependencies).collect();
        let idle = |id: &ImageId| !named.contains(id) && !needed.contains(id) && !users.contains_key(id.as_str());
        let mut gone = Vec::new();
        for id in all.iter().map(|(image, _)| &image.id).filter(|id| idle(id)) {
            let unused_for = SystemTime::now().duration_since(last_used(store, id)?).unwrap_or_default();
            if unused_for >= grace {
                gone.push(id.clone());
            }
        }
        if gone.is_empty() {
            break;
        }
        for id in gone {
            take_away(store, &work, &id)?;
            collected.images.push(id);
        }
    }
    let images: BTreeSet<String> = ids(store)?.iter().map(|id| id.as_str().to_owned()).collect();
    for name in names_in(&store.trees())? {
        let name = name.to_string_lossy().into_owned();
        // pods made before the tree was set aside use it; nothing tells them from later pods with the same tree id
        let of = name.split_once(".old-").map_or(name.as_str(), |(id, _)| id);
        if users.contains_key(of) || images.contains(&name) {
            continue;
        }
        move_if_there(store.trees().join(&name), work.path().join(&name))?;
        collected.trees.push(name);
    }
    collected.layers = layer_store::sweep(store, &work)?;
    collected.blobs = blobs::sweep(store, &work)?;
    Ok(collected)
}
