//! Blobs of images as registries sent them: the manifests and, with `--keep-blobs`, configurations and layers. Pushing
//! an image fetches the blobs that were not kept again from the registry that they came from.
//!
//! A blob is the file `blobs/ALGORITHM/DIGITS`; its digest was verified before it got the name. The record of an image
//! lists the blobs that it needs ([`Provenance`]); a blob is removed with the last image that needs it. The lock of the
//! store protects changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use stage1::error::{Context, Result};

use crate::fsutil::digest::Digest;
use crate::fsutil::dir::{PRIVATE, make_dir, names_in, sync_dir};
use crate::image::archive::ImageId;
use crate::image::store::provenance::Provenance;
use crate::image::store::{ids, info, replace_file};
use crate::registry::is_whole;
use crate::store::{Store, TemporaryDir};

/// The path of a blob, which may not exist.
pub(crate) fn path(store: &Store, digest: &Digest) -> PathBuf {
    store.blobs().join(digest.algorithm()).join(digest.digits())
}

/// Makes the hard link `to` of a blob and verifies it. `false` if the store does not have the blob or it is damaged.
pub(crate) fn link(store: &Store, digest: &Digest, to: &Path) -> Result<bool> {
    let from = path(store, digest);
    match std::fs::hard_link(&from, to) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other.context(|| format!("link {to:?} to {from:?}"))?,
    }
    if is_whole(to, digest)? {
        return Ok(true);
    }
    log::warn!("the kept blob {digest} is damaged");
    std::fs::remove_file(to).context(|| format!("remove {to:?}"))?;
    Ok(false)
}

/// Moves all blobs of a directory into the store; replaces existing ones. The caller must hold the lock.
pub(crate) fn place(store: &Store, from: &Path) -> Result<()> {
    for algorithm in names_in(from)? {
        let to = store.blobs().join(&algorithm);
        make_dir(&to, PRIVATE)?;
        for name in names_in(&from.join(&algorithm))? {
            let (from, to) = (from.join(&algorithm).join(&name), to.join(&name));
            std::fs::rename(&from, &to).context(|| format!("rename {from:?} to {to:?}"))?;
        }
        sync_dir(&to)?;
    }
    Ok(())
}

/// Adds a manifest to the record of an image of the store. The caller must hold the lock.
pub(crate) fn note(store: &Store, id: &ImageId, kept: &Provenance) -> Result<()> {
    let mut info = info(store, id)?;
    if info.kept.last() == Some(kept) {
        return Ok(());
    }
    // pushing uses the last one
    info.kept.retain(|other| other.manifest != kept.manifest);
    info.kept.push(kept.clone());
    let json = serde_json::to_vec(&info).context(|| "write image info")?;
    replace_file(store, id, "info", &json)
}

/// Moves the blobs that no image needs into the working directory; returns their digests. The caller must hold the
/// lock.
pub(crate) fn sweep(store: &Store, work: &TemporaryDir) -> Result<Vec<String>> {
    let mut needed = BTreeSet::new();
    for id in ids(store)? {
        match info(store, &id) {
            Ok(info) => {
                needed.extend(info.kept.iter().flat_map(|kept| kept.blobs.iter().chain([&kept.manifest])).cloned())
            }
            Err(error) => {
                // the blobs that this image needs are unknown
                log::warn!("no blobs are removed: {}", error.one_line());
                return Ok(Vec::new());
            }
        }
    }
    let mut gone = Vec::new();
    for algorithm in names_in(&store.blobs())? {
        let dir = store.blobs().join(&algorithm);
        for name in names_in(&dir)? {
            let digest = format!("{}:{}", algorithm.to_string_lossy(), name.to_string_lossy());
            if needed.contains(&digest) {
                continue;
            }
            let (from, to) = (dir.join(&name), work.path().join(format!("blob-{}", gone.len())));
            std::fs::rename(&from, &to).context(|| format!("rename {from:?} to {to:?}"))?;
            gone.push(digest);
        }
    }
    Ok(gone)
}

/// Reads every byte of the blobs that an image needs and removes damaged ones; returns a sentence for each damaged or
/// missing blob.
pub(crate) fn mend(store: &Store, id: &ImageId) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for kept in info(store, id)?.kept {
        for digest in kept.digests()? {
            let path = path(store, &digest);
            if !path.exists() {
                let is_kept = kept.from.is_none() || kept.manifest == digest.to_string();
                if !is_kept {
                    continue;
                }
                faults.push(format!("blob {digest} is missing: pull the image again before you push it"));
            } else if !is_whole(&path, &digest)? {
                let _lock = store.lock_images()?;
                std::fs::remove_file(&path).context(|| format!("remove {path:?}"))?;
                faults.push(format!("blob {digest} was damaged and is gone: pull the image again before you push it"));
            }
        }
    }
    faults.sort();
    faults.dedup();
    Ok(faults)
}
