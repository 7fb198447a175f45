//! The image store: archives by the hash of their content, names that point to them.
//!
//! `images/<id>/` holds `archive` (the uncompressed tar), `manifest` and `info`; of an image with layers `config`, as
//! it came, instead of an archive. It appears by one rename after the image's tree has been rendered, so an image that
//! is listed is whole. What is read from it is compared with its hash.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use stage1::appc::{AcIdentifier, Dependency, ImageManifest};
use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::pod::remove_if_there;

use crate::fsutil::digest;
use crate::fsutil::digest::{Digest, Verified};
use crate::fsutil::dir::{PRIVATE, make_dir, names_in, open_dir, sync_dir};
use crate::image::archive::ImageId;
use crate::image::kept::Kept;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::registry::{Name, Reference};
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
    pub info: Info,
}

impl Image {
    /// What the manifests of pods call it: they know `sha512-…` alone.
    pub fn appc_id(&self) -> &str {
        self.info.appc_id.as_deref().unwrap_or(self.id.as_str())
    }
}

/// What is noted of an image at its import.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    /// Nanoseconds since 1970.
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
    pub kept: Vec<Kept>,
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

/// The image that came by a manifest from a registry.
///
/// # Errors
/// The store can't be read.
pub(crate) fn by_manifest(store: &Store, manifest: &Digest) -> Result<Option<ImageId>> {
    let manifest = manifest.to_string();
    for id in ids(store)? {
        // one that is damaged or has just gone is none
        if info(store, &id).is_ok_and(|info| info.kept.iter().any(|kept| kept.manifest == manifest)) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// What was noted of an image.
///
/// # Errors
/// It is not there, or damaged.
pub(crate) fn info(store: &Store, id: &ImageId) -> Result<Info> {
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

/// Finds the image that a person means: by its name, its id, or the first digits of its id.
///
/// # Errors
/// No image is meant, or more than one.
pub fn find(store: &Store, text: &str) -> Result<Image> {
    load(store, &find_id(store, text)?)
}

/// Like [`find`], of an image that may be damaged.
///
/// # Errors
/// No image is meant, or more than one.
pub fn find_id(store: &Store, text: &str) -> Result<ImageId> {
    look_up(store, text)?.context(|| format!("there is no image {text:?}; \"podctl image list\" shows those there are"))
}

/// Like [`find_id`], `None` if no image is meant.
///
/// # Errors
/// More than one image is meant.
pub fn look_up(store: &Store, text: &str) -> Result<Option<ImageId>> {
    if let Some(id) = named(store, text)? {
        return Ok(Some(id));
    }
    if let Ok(name) = Name::parse(text)
        && let Some(id) = by_name(store, &name, text)?
    {
        return Ok(Some(id));
    }
    if let Ok(digest) = Digest::new(text)
        && let Some(id) = by_manifest(store, &digest)?
    {
        return Ok(Some(id));
    }
    // what a pod's manifest has
    let is_whole = ImageId::new(text).is_ok_and(|id| !id.is_of_config());
    let is_start = |id: &ImageId| {
        let of = |prefix: &str| text.strip_prefix(prefix).filter(|_| id.as_str().starts_with(&prefix[..6]));
        let digits = of("sha512-").or_else(|| of("sha256:")).or_else(|| of("sha256-")).unwrap_or(text);
        let is_start = !digits.is_empty() && id.digits().starts_with(digits);
        is_start || (is_whole && info(store, id).is_ok_and(|info| info.appc_id.as_deref() == Some(text)))
    };
    let found: Vec<ImageId> = ids(store)?.into_iter().filter(is_start).collect();
    match found.as_slice() {
        [] => Ok(None),
        [id] => Ok(Some(id.clone())),
        several => {
            let several: Vec<_> = several.iter().map(ImageId::short).collect();
            Err(Error::new(format!("{text:?} is ambiguous: it may be any of the images {}", several.join(", "))))
        }
    }
}

/// The image that has a name of a registry: as it is, by its manifest's digest, or, of a short name, by its end.
fn by_name(store: &Store, name: &Name, text: &str) -> Result<Option<ImageId>> {
    let short = match name {
        Name::Full(reference) => {
            let found = named(store, &reference.to_string())?;
            return match reference.digest() {
                Some(digest) if found.is_none() => by_manifest(store, digest),
                _ => Ok(found),
            };
        }
        Name::Short(short) => short,
    };
    if let Some(digest) = short.digest() {
        return by_manifest(store, digest);
    }
    if let Some(id) = named(store, &short.at("localhost")?.to_string())? {
        return Ok(Some(id));
    }
    let is_meant = |name: &str| Reference::parse(name).is_ok_and(|full| short.is_end_of(&full));
    let found: Vec<(String, ImageId)> = names(store)?.into_iter().filter(|(name, _)| is_meant(name)).collect();
    match found.first() {
        Some((_, first)) if found.iter().any(|(_, id)| id != first) => {
            let all: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            Err(Error::new(format!("{text:?} is ambiguous: it may be any of {}", all.join(", "))))
        }
        other => Ok(other.map(|(_, id)| id.clone())),
    }
}

/// All images with the names that point to each, the newest first.
///
/// # Errors
/// The store can't be read.
pub fn list(store: &Store) -> Result<Vec<(Image, Vec<String>)>> {
    let names = names(store)?;
    let mut found = Vec::new();
    for id in ids(store)? {
        let names = names.iter().filter(|(_, target)| *target == id).map(|(name, _)| name.clone()).collect();
        match load(store, &id) {
            Ok(image) => found.push((image, names)),
            // another process has just removed it
            Err(_) if !directory(store, &id).exists() => {}
            Err(error) => log::warn!("{}", error.one_line()),
        }
    }
    found.sort_by_key(|(image, _): &(Image, _)| std::cmp::Reverse(image.info.import_time));
    Ok(found)
}

/// The image that a manifest means by a dependency: the newest that has its id, name and labels.
///
/// # Errors
/// There is none.
pub(crate) fn find_dependency(store: &Store, dependency: &Dependency) -> Result<ImageId> {
    let wanted = dependency.image_id.as_deref().unwrap_or_default();
    let fits = |image: &Image| {
        image.appc_id().starts_with(wanted)
            && (dependency.image_name.is_empty() || image.parsed.name.as_ref() == dependency.image_name)
            && dependency.labels.iter().all(|label| image.parsed.labels.contains(label))
    };
    let found = list(store)?.into_iter().find(|(image, _)| fits(image));
    found.map(|(image, _)| image.id).context(|| {
        let labels: Vec<String> = dependency.labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect();
        let name = [dependency.image_name.as_str(), wanted, &labels.join(",")].join(" ");
        format!("it depends on an image that is not in the store: {}; import that first", name.trim())
    })
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

/// The trees, by the id of their image, that pods use, with the pods.
///
/// # Errors
/// A pod can't be read.
pub fn users(store: &Store) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for mut pod in pods::list(store)? {
        loop {
            for tree in trees_of(&pod)? {
                found.entry(tree).or_default().push(pod.uuid().to_string());
            }
            if pod.dir().exists() {
                break;
            }
            // it has moved on meanwhile, or is gone
            match pods::find_whole(store, pod.uuid()) {
                Ok(moved) => pod = moved,
                Err(_) => break,
            }
        }
    }
    for pods in found.values_mut() {
        pods.sort();
        pods.dedup();
    }
    Ok(found)
}

fn trees_of(pod: &Pod) -> Result<Vec<String>> {
    let mut files = vec![pod.dir().join(layout::STAGE1_TREE)];
    let apps = pod.dir().join("appsinfo");
    files.extend(names_in(&apps)?.into_iter().map(|app| apps.join(app).join("treeStoreID")));
    let mut found = Vec::new();
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(tree) => found.push(tree.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::caused_by(format!("read {file:?}"), error)),
        }
    }
    Ok(found)
}

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

/// Whether a text is one of the two kinds of names: an identifier, or a full name of a registry.
fn is_name(text: &str) -> bool {
    let is_reference = || Reference::parse(text).is_ok_and(|reference| reference.to_string() == text);
    text.len() <= 255 && (text.parse::<AcIdentifier>().is_ok() || is_reference())
}

/// A name as the file name of its link: `/` can't be in one, `%` can't be in a name.
pub(crate) fn link_name(name: &str) -> String {
    name.replace('/', "%")
}

pub(crate) fn checked_name(name: &str) -> Result<AcIdentifier> {
    if name.len() > 255 {
        return Err(Error::new("image name: longer than 255 characters"));
    }
    name.parse::<AcIdentifier>().context(|| format!("image name {name:?}"))
}

/// The image that a name points to.
fn named(store: &Store, name: &str) -> Result<Option<ImageId>> {
    if !is_name(name) {
        return Ok(None);
    }
    let link = store.names().join(link_name(name));
    match std::fs::read_link(&link) {
        Ok(target) => ImageId::new(&target.to_string_lossy()).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::caused_by(format!("read link {link:?}"), error)),
    }
}

pub(crate) fn names(store: &Store) -> Result<Vec<(String, ImageId)>> {
    let mut found = Vec::new();
    for file in names_in(&store.names())? {
        let name = file.to_string_lossy().replace('%', "/");
        if let Some(id) = named(store, &name)? {
            found.push((name, id));
        }
    }
    found.sort();
    Ok(found)
}

/// The names of an image.
///
/// # Errors
/// The store can't be read.
pub fn names_of(store: &Store, id: &ImageId) -> Result<Vec<String>> {
    Ok(names(store)?.into_iter().filter(|(_, target)| target == id).map(|(name, _)| name).collect())
}

/// Gives an image one more name, which may have been another image's until now: that is given back.
///
/// # Errors
/// The image is gone, or the store can't be written.
pub fn tag(store: &Store, id: &ImageId, reference: &Reference) -> Result<Option<ImageId>> {
    let _lock = store.lock_images()?;
    if !has(store, id) {
        return Err(Error::new(format!("there is no image {} any more", id.short())));
    }
    set_reference(store, reference, id)
}

/// Gives an image one more name of its own, without a registry; see [`tag`].
///
/// # Errors
/// As [`tag`].
pub fn name(store: &Store, id: &ImageId, name: &str) -> Result<Option<ImageId>> {
    let _lock = store.lock_images()?;
    if !has(store, id) {
        return Err(Error::new(format!("there is no image {} any more", id.short())));
    }
    set_name(store, name, id)
}

/// Takes a name away; the image stays. Gives back which image that was, and the name in full.
///
/// # Errors
/// No image has this name.
pub fn untag(store: &Store, text: &str) -> Result<(String, ImageId)> {
    let _lock = store.lock_images()?;
    let full = |name: Name| match name {
        Name::Full(reference) => Some(reference.to_string()),
        Name::Short(short) => short.at("localhost").ok().map(|reference| reference.to_string()),
    };
    let names = [Some(text.to_owned()), Name::parse(text).ok().and_then(full)];
    for name in names.into_iter().flatten() {
        if let Some(id) = named(store, &name)? {
            let link = store.names().join(link_name(&name));
            std::fs::remove_file(&link).context(|| format!("remove {link:?}"))?;
            sync_dir(&store.names())?;
            touch(store, &id)?;
            return Ok((name, id));
        }
    }
    Err(Error::new(format!("no image has the name {text:?}; \"podctl image list\" shows all names in full")))
}

/// Points a name of a registry to an image; the caller holds the lock.
pub(crate) fn set_reference(store: &Store, reference: &Reference, id: &ImageId) -> Result<Option<ImageId>> {
    let name = reference.to_string();
    if !is_name(&name) {
        return Err(Error::new(format!("{name:?} is too long for a name here")));
    }
    point(store, &name, id)
}

/// Points a name to an image; the caller holds the lock. Gives back the image that it pointed to before.
pub(crate) fn set_name(store: &Store, name: &str, id: &ImageId) -> Result<Option<ImageId>> {
    point(store, checked_name(name)?.as_ref(), id)
}

fn point(store: &Store, name: &str, id: &ImageId) -> Result<Option<ImageId>> {
    let before = named(store, name)?;
    if before.as_ref() == Some(id) {
        return Ok(None);
    }
    make_dir(&store.names(), PRIVATE)?;
    let link = store.names().join(link_name(name));
    let new = store.names().join(".new");
    remove_if_there(&new)?;
    std::os::unix::fs::symlink(id.as_str(), &new).context(|| format!("symlink {new:?}"))?;
    std::fs::rename(&new, &link).context(|| format!("rename {new:?} to {link:?}"))?;
    sync_dir(&store.names())?;
    before.iter().try_for_each(|before| touch(store, before))?;
    Ok(before)
}
