//! The image store: archives by the hash of their content, [`names`] that point to them.
//!
//! `images/<id>/` holds `archive` (the uncompressed tar), `manifest` and `info`; of an image with layers `config`, as
//! it came, instead of an archive. It appears by one rename after the image's tree has been rendered, so an image that
//! is listed is whole. What is read from it is compared with its hash.

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
    /// Its content's hash.
    pub id: ImageId,
    /// Its manifest as it came.
    pub manifest: Vec<u8>,
    /// Its manifest, understood.
    pub parsed: ImageManifest,
    /// What the store noted when it came.
    pub info: ImageRecord,
}

impl Image {
    /// What the manifests of pods call it: they know `sha512-…` alone.
    pub fn appc_id(&self) -> &str {
        self.info.appc_id.as_deref().unwrap_or(self.id.as_str())
    }
}

/// The record of an image, written at its import.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Time of the import, in nanoseconds since 1970.
    pub import_time: i64,
    /// Bytes of the uncompressed archive; of an image with layers those of their files.
    pub size: u64,
    /// SHA-256 of the manifest.
    pub manifest: String,
    /// The images that its tree was rendered upon, in the order in which they were met.
    #[serde(with = "as_texts")]
    pub dependencies: Vec<ImageId>,
    /// Of an image that lies on layers: their names, the lowest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<String>>,
    /// Of an image with layers: what the manifests of pods call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub appc_id: Option<String>,
    /// The manifests of registries that it came by, the last one last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Provenance>,
}

/// Ids in the store's notes.
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

/// Reads an image of the store.
///
/// # Errors
/// There is no such image, or its files are damaged.
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

/// The configuration that an image of OCI's or docker's format came with.
///
/// # Errors
/// It can't be read, or is damaged.
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

/// What was noted of an image.
///
/// # Errors
/// It is not there, or damaged.
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

/// The uncompressed archive of an image without layers; reading it fails where it is not what its id says.
pub(crate) fn open_archive(store: &Store, id: &ImageId) -> Result<impl Read + use<>> {
    let path = directory(store, id).join("archive");
    let file = File::open(&path)
        .context(|| format!("the archive of image {} is missing; import the image again: open {path:?}", id.short()))?;
    let reader = BufReader::with_capacity(1 << 17, file);
    Ok(Verified::new(reader, &Digest::sha512(id.digits()), u64::MAX))
}

/// Notes that somebody makes use of an image, or has just ceased to: its time begins to run anew.
pub(crate) fn touch(store: &Store, id: &ImageId) -> Result<()> {
    let path = directory(store, id);
    match open_dir(&path)? {
        Some(dir) => dir.set_modified(SystemTime::now()).context(|| format!("touch {path:?}")),
        // a tree can outlive its image
        None => Ok(()),
    }
}

/// When somebody made use of an image last, or it was imported, or lost its name.
///
/// # Errors
/// It is not there any more.
pub fn last_used(store: &Store, id: &ImageId) -> Result<SystemTime> {
    let path = directory(store, id);
    path.metadata().and_then(|stat| stat.modified()).context(|| format!("stat {path:?}"))
}

/// Replaces a file of an image. The caller holds the lock, so what a writer that was killed has left goes with the next.
///
/// # Errors
/// It can't be written; the old one is then still there.
pub(crate) fn replace_file(store: &Store, id: &ImageId, name: &str, bytes: &[u8]) -> Result<()> {
    let path = directory(store, id);
    let dir = open_dir(&path)?.context(|| format!("image {} is gone", id.short()))?;
    let plain = Attributes { mode: 0o644, owner: None, synced: true };
    atomic::replace(&dir, name.as_ref(), bytes, plain).context(|| format!("write {:?}", path.join(name)))
}

/// Where the store has the files of an image.
pub(crate) fn directory(store: &Store, id: &ImageId) -> PathBuf {
    store.images().join(id.as_str())
}

/// The ids of all images, damaged ones, too.
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
