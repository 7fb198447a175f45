//! Taking away images that nobody uses.

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
use crate::image::tree::layers;
use crate::store::{Store, TemporaryDir};

/// Removes an image, its names and its tree.
///
/// # Errors
/// A pod uses it, or another image depends on it; then it is left as it is.
pub fn remove(store: &Store, id: &ImageId) -> Result<()> {
    // dropped, with what was moved into it, after the lock
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
    layers::sweep(store, &work)?;
    blobs::sweep(store, &work).map(drop)
}

/// Moves an image and its tree into the working directory; the caller holds the lock.
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
    /// Images without a name that nothing uses.
    pub images: Vec<ImageId>,
    /// Trees, by the name of their directory, that no pod uses and that are not of an image any more.
    pub trees: Vec<String>,
    /// Layers that no tree lies on any more.
    pub layers: Vec<String>,
    /// Digests of blobs that no image needs.
    pub blobs: Vec<String>,
}

/// Which images [`collect`] removes, of those that nothing uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those without a name.
    Unnamed,
    /// All.
    Unused,
}

/// Removes images that have lost their name to a newer one and that neither a pod nor another image uses, once nobody
/// has made use of them for `grace`; and trees without an image or put aside, that no pod uses.
///
/// # Errors
/// Something could not be removed.
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
        // one put aside is used by pods that were there before, which are told from later ones by nothing
        let of = name.split_once(".old-").map_or(name.as_str(), |(id, _)| id);
        if users.contains_key(of) || images.contains(&name) {
            continue;
        }
        move_if_there(store.trees().join(&name), work.path().join(&name))?;
        collected.trees.push(name);
    }
    collected.layers = layers::sweep(store, &work)?;
    collected.blobs = blobs::sweep(store, &work)?;
    Ok(collected)
}
