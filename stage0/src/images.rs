//! The image store: archives by the hash of their content, names that point to them.
//!
//! `images/<id>/` holds `archive` (the uncompressed tar), `manifest` and `info`; it appears by one rename after the
//! image's tree has been rendered, so an image that is listed is whole.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use stage1::appc::{AcIdentifier, ImageManifest};
use stage1::error::{Context, Error, Result};

use crate::archive::{self, Hashed, ImageId, Limits};
use crate::store::{PRIVATE, Store, TemporaryDir, make_dir, names_in, sync_file_system};
use crate::trees;

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

/// What is noted of an image at its import.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    /// Nanoseconds since 1970.
    pub import_time: i64,
    /// Bytes of the uncompressed archive.
    pub size: u64,
}

/// What an import did.
#[derive(Debug)]
pub struct Imported {
    /// The image, new or there before.
    pub image: Image,
    /// The name that now points to it.
    pub name: String,
    /// The image that the name pointed to before, if it was another one.
    pub replaced: Option<ImageId>,
}

/// Imports an ACI. It is called `name`, or as its manifest says.
///
/// # Errors
/// The archive can't be read, is not an image, or holds anything that could leave its root; the store is unchanged.
pub fn import_archive(store: &Store, source: impl Read, name: Option<&str>) -> Result<Imported> {
    let name = name.map(checked_name).transpose()?;
    import(store, name, |out| {
        let mut source = archive::decoded(source)?;
        io::copy(&mut source, out).context(|| "copy the archive into the store").map(drop)
    })
}

/// Imports a plain root file system: it becomes an ACI with this manifest.
///
/// # Errors
/// The directory can't be read; the store is unchanged.
pub fn import_directory(store: &Store, directory: &Path, manifest: &ImageManifest) -> Result<Imported> {
    let json = serde_json::to_vec(manifest).context(|| "write the image manifest")?;
    import(store, None, |out| archive::pack(&json, directory, out))
}

fn import(
    store: &Store,
    name: Option<AcIdentifier>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<Imported> {
    let work = store.temporary_dir()?;
    let archive = work.path().join("archive");
    let (id, size) = write_archive(&archive, write)?;
    let _lock = store.lock_images()?;
    if !directory(store, &id).exists() {
        add(store, &work, &archive, &id, size).context(|| "import")?;
    }
    let image = load(store, &id)?;
    let name = match name {
        Some(name) => name.to_string(),
        None => image.parsed.name.to_string(),
    };
    let replaced = set_name(store, &name, &id)?;
    Ok(Imported { image, name, replaced })
}

fn write_archive(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<(ImageId, u64)> {
    let shown = || format!("write {path:?}");
    let file = File::create_new(path).context(shown)?;
    let mut hashed = Hashed::new(BufWriter::with_capacity(1 << 17, file), Limits::default());
    write(&mut hashed)?;
    let (id, size, out) = hashed.finish();
    out.into_inner().context(shown)?;
    Ok((id, size))
}

/// Puts a new image into the store; the caller holds the lock.
fn add(store: &Store, work: &TemporaryDir, archive: &Path, id: &ImageId, size: u64) -> Result<()> {
    let manifest = trees::render_archive(store, work, archive, id)?;
    ImageManifest::parse(&manifest)?;
    let info = Info { import_time: crate::time::nanoseconds(SystemTime::now()), size };
    let dir = work.path().join("image");
    make_dir(&dir, PRIVATE)?;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).context(|| format!("write {path:?}"))
    };
    write("manifest", &manifest)?;
    write("info", &serde_json::to_vec(&info).context(|| "write image info")?)?;
    let to = dir.join("archive");
    std::fs::rename(archive, &to).context(|| format!("rename {archive:?} to {to:?}"))?;
    sync_file_system(&dir)?;
    make_dir(&store.images(), PRIVATE)?;
    let to = directory(store, id);
    std::fs::rename(&dir, &to).context(|| format!("rename {dir:?} to {to:?}"))?;
    sync_file_system(&to)
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
    let manifest = read("manifest")?;
    let parsed = ImageManifest::parse(&manifest).context(|| format!("image {}", id.short()))?;
    let info = serde_json::from_slice(&read("info")?).context(|| format!("info of image {}", id.short()))?;
    Ok(Image { id: id.clone(), manifest, parsed, info })
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
    if let Some(id) = named(store, text)? {
        return load(store, &id);
    }
    let is_start = |id: &ImageId| {
        let digits = text.strip_prefix("sha512-").unwrap_or(text);
        !digits.is_empty() && id.digits().starts_with(digits)
    };
    let found: Vec<ImageId> = ids(store)?.into_iter().filter(is_start).collect();
    match found.as_slice() {
        [] => Err(Error::new(format!("there is no image {text:?}; \"podctl image list\" shows those there are"))),
        [id] => load(store, id),
        several => {
            let several: Vec<_> = several.iter().map(ImageId::short).collect();
            Err(Error::new(format!("{text:?} is ambiguous: it may be any of the images {}", several.join(", "))))
        }
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
        found.push((load(store, &id)?, names));
    }
    found.sort_by_key(|(image, _): &(Image, _)| std::cmp::Reverse(image.info.import_time));
    Ok(found)
}

/// The uncompressed archive of an image.
pub(crate) fn open_archive(store: &Store, id: &ImageId) -> Result<impl Read> {
    let path = directory(store, id).join("archive");
    Ok(BufReader::with_capacity(1 << 17, File::open(&path).context(|| format!("open {path:?}"))?))
}

fn directory(store: &Store, id: &ImageId) -> PathBuf {
    store.images().join(id.as_str())
}

fn ids(store: &Store) -> Result<Vec<ImageId>> {
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

/// A name as the file name of its link: `/` can't be in one, `%` can't be in a name.
fn link_name(name: &str) -> String {
    name.replace('/', "%")
}

fn checked_name(name: &str) -> Result<AcIdentifier> {
    if name.len() > 255 {
        return Err(Error::new("image name: longer than 255 characters"));
    }
    name.parse::<AcIdentifier>().context(|| format!("image name {name:?}"))
}

/// The image that a name points to.
fn named(store: &Store, name: &str) -> Result<Option<ImageId>> {
    if name.parse::<AcIdentifier>().is_err() || name.len() > 255 {
        return Ok(None);
    }
    let link = store.names().join(link_name(name));
    match std::fs::read_link(&link) {
        Ok(target) => ImageId::new(&target.to_string_lossy()).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::caused_by(format!("read link {link:?}"), error)),
    }
}

fn names(store: &Store) -> Result<Vec<(String, ImageId)>> {
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

/// Points a name to an image; the caller holds the lock. Gives back the image that it pointed to before.
fn set_name(store: &Store, name: &str, id: &ImageId) -> Result<Option<ImageId>> {
    let before = named(store, checked_name(name)?.as_ref())?;
    if before.as_ref() == Some(id) {
        return Ok(None);
    }
    make_dir(&store.names(), PRIVATE)?;
    let link = store.names().join(link_name(name));
    let new = store.names().join(".new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::caused_by(format!("remove {new:?}"), error));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(id.as_str(), &new).context(|| format!("symlink {new:?}"))?;
    std::fs::rename(&new, &link).context(|| format!("rename {new:?} to {link:?}"))?;
    Ok(before)
}
