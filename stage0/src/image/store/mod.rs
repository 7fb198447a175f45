//! The image store: images by their id, and [`names`] that point to them.
//!
//! `images/<id>/` holds `archive` (the uncompressed tar), `manifest` and `info`; for an image with layers `config`,
//! unchanged, in place of the archive. The directory appears by one rename after the image's tree was rendered, so a
//! listed image is complete. Readers verify the hash of each file.

pub mod blobs;
pub mod find;
pub mod names;
pub mod provenance;
pub mod users;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use stage1::appc::ImageManifest;
use stage1::error::{Context, Error, Result};

use crate::fsutil::atomic::{self, Attributes};
use crate::fsutil::digest;
use crate::fsutil::digest::{Digest, Verified};
use crate::fsutil::dir::{names_in, open_dir};
use crate::image::archive::ImageId;
use crate::image::store::provenance::Provenance;
use crate::store::Store;

/// An image in the store.
#[derive(Debug)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// The bytes of its appc manifest.
    pub manifest: Vec<u8>,
    /// Its appc manifest, parsed.
    pub parsed: ImageManifest,
    /// Its record.
    pub info: ImageRecord,
}

impl Image {
    /// Its id in pod manifests, `sha512-…`: appc allows no other form.
    pub fn appc_id(&self) -> &str {
        self.info.appc_id.as_deref().unwrap_or(self.id.as_str())
    }
}

/// The record of an image, written at its import.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRecord {
    /// The time of the import, in nanoseconds since 1970.
    pub import_time: i64,
    /// The size of the uncompressed archive, or of all files of all layers, in bytes.
    pub size: u64,
    /// The SHA-256 of the appc manifest.
    pub manifest: String,
    /// The ids of the images that its tree was rendered upon, in the order in which rendering met them.
    #[serde(with = "as_texts")]
    pub dependencies: Vec<ImageId>,
    /// For an image that lies on layers, their names, the lowest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<String>>,
    /// For an image with layers, its id in pod manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appc_id: Option<String>,
    /// The registry manifests that it was pulled by, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Provenance>,
}

/// Image ids in the record's JSON.
mod as_texts {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::image::archive::ImageId;

    pub fn serialize<S: Serializer>(ids: &[ImageId], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(ImageId::as_str))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ImageId>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| ImageId::new(text).map_err(serde::de::Error::custom)).collect()
    }
}

/// Loads an image of the store.
///
/// # Errors
/// The store does not have the image, or its record or manifest can't be read or is damaged.
pub fn load(store: &Store, id: &ImageId) -> Result<Image> {
    let dir = directory(store, id);
    if !dir.exists() {
        return Err(Error::new(format!("image {id} is not in the store")));
    }
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).context(|| format!("read {path:?}"))
    };
    let damaged = |what: &str| damaged(id, what);
    let info = info(store, id)?;
    let manifest = read("manifest")?;
    if digest::of_bytes(&manifest) != info.manifest {
        return Err(Error::new(damaged("manifest")));
    }
    let parsed = ImageManifest::parse(&manifest).context(|| damaged("manifest"))?;
    Ok(Image { id: id.clone(), manifest, parsed, info })
}

/// The configuration of an image in OCI or Docker format; `None` for another image.
///
/// # Errors
/// The file can't be read, does not have the image's digest, or is not JSON.
pub fn config(store: &Store, id: &ImageId) -> Result<Option<serde_json::Value>> {
    let path = directory(store, id).join("config");
    match std::fs::read(&path) {
        Ok(bytes) if id.is_of_config() && ImageId::of_config(&bytes) != *id => {
            Err(Error::new(damaged(id, "configuration")))
        }
        Ok(bytes) => serde_json::from_slice(&bytes).context(|| damaged(id, "configuration")).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::caused_by(format!("read {path:?}"), error)),
    }
}

/// The record of an image.
///
/// # Errors
/// The file is missing, can't be read, or is damaged.
pub(crate) fn info(store: &Store, id: &ImageId) -> Result<ImageRecord> {
    let path = directory(store, id).join("info");
    let bytes = std::fs::read(&path).context(|| format!("read {path:?}"))?;
    serde_json::from_slice(&bytes).context(|| damaged(id, "info"))
}

fn damaged(id: &ImageId, what: &str) -> String {
    let short = id.short();
    format!("the {what} of image {short} in the store is damaged; \"podctl image verify {short}\" mends it if it can")
}

/// Whether the store has the image.
pub fn has(store: &Store, id: &ImageId) -> bool {
    directory(store, id).exists()
}

/// The uncompressed archive of an image without layers. Reading it to its end fails if its hash is not the image's id.
pub(crate) fn open_archive(store: &Store, id: &ImageId) -> Result<impl Read + use<>> {
    let path = directory(store, id).join("archive");
    let file = File::open(&path)
        .context(|| format!("the archive of image {} is missing; import the image again: open {path:?}", id.short()))?;
    let reader = BufReader::with_capacity(1 << 17, file);
    Ok(Verified::new(reader, &Digest::sha512(id.digits()), u64::MAX))
}

/// Sets the time of an image's last use to now.
pub(crate) fn touch(store: &Store, id: &ImageId) -> Result<()> {
    let path = directory(store, id);
    match open_dir(&path)? {
        Some(dir) => dir.set_modified(SystemTime::now()).context(|| format!("touch {path:?}")),
        // a tree can outlive its image
        None => Ok(()),
    }
}

/// When an image was last used, imported, or lost a name.
///
/// # Errors
/// The image is gone, or its directory can't be read.
pub fn last_used(store: &Store, id: &ImageId) -> Result<SystemTime> {
    let path = directory(store, id);
    path.metadata().and_then(|stat| stat.modified()).context(|| format!("stat {path:?}"))
}

/// Replaces a file of an image atomically. The caller must hold the lock.
///
/// # Errors
/// The image is gone, or the file can't be written; the old file is unchanged then.
pub(crate) fn replace_file(store: &Store, id: &ImageId, name: &str, bytes: &[u8]) -> Result<()> {
    let path = directory(store, id);
    let dir = open_dir(&path)?.context(|| format!("image {} is gone", id.short()))?;
    let plain = Attributes { mode: 0o644, owner: None, synced: true };
    atomic::replace(&dir, name.as_ref(), bytes, plain).context(|| format!("write {:?}", path.join(name)))
}

/// The directory of an image, which may not exist.
pub(crate) fn directory(store: &Store, id: &ImageId) -> PathBuf {
    store.images().join(id.as_str())
}

/// The ids of all images, including damaged ones, in order.
///
/// # Errors
/// The store can't be read.
pub fn ids(store: &Store) -> Result<Vec<ImageId>> {
    let dir = store.images();
    let mut ids = Vec::new();
    for name in names_in(&dir)? {
        match name.to_str().map(ImageId::new) {
            Some(Ok(id)) => ids.push(id),
            _ => log::warn!("{name:?} in {dir:?} is not an image"),
        }
    }
    ids.sort();
    Ok(ids)
}
