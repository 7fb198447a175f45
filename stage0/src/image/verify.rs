//! Verifying images and repairing them.

use std::io;

use rustix::io::Errno;
use stage1::error::{Context, Error, Result};

use crate::fsutil::digest;
use crate::image::archive;
use crate::image::archive::ImageId;
use crate::image::store::blobs;
use crate::image::store::{config, directory, has, load, open_archive, replace_file};
use crate::image::tree as trees;
use crate::image::tree::list::is_damage;
use crate::image::tree::{checked_dir, layer_store, location};
use crate::store::Store;

/// The result of [`verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The image is undamaged.
    Whole,
    /// The image was damaged, as the text says, and was repaired.
    Mended(String),
    /// The image is damaged, as the text says: podctl refuses it until it is imported again.
    Damaged(String),
}

/// Reads every byte of an image and its tree, and repairs what can be made from the rest. A damaged archive is renamed,
/// so that a new import brings it back.
///
/// # Errors
/// The image is not in the store, or the store can't be read or written.
pub fn verify(store: &Store, id: &ImageId) -> Result<Health> {
    if !has(store, id) {
        return Err(Error::new(format!("there is no image {} any more", id.short())));
    }
    if id.is_of_config() {
        return verify_layered(store, id);
    }
    if let Some(fault) = archive_fault(store, id)? {
        return Ok(Health::Damaged(fault));
    }
    let mut mended = Vec::new();
    mended.extend(mend_manifest(store, id)?);
    let image = match load(store, id) {
        Ok(image) => image,
        // only the image's record says what the tree was rendered upon
        Err(error) => {
            must_be_damage(&error)?;
            return Ok(Health::Damaged(format!("{}; import the image again", error.one_line())));
        }
    };
    for dependency in &image.info.dependencies {
        if !has(store, dependency) {
            return Ok(Health::Damaged(format!("it depends on image {}, which is gone", dependency.short())));
        }
    }
    if let Some(fault) = trees::full_fault(store, id)? {
        trees::rebuild(store, id)?;
        mended.push(format!("tree: {fault}"));
    }
    mended.extend(blobs::mend(store, id)?);
    Ok(if mended.is_empty() { Health::Whole } else { Health::Mended(mended.join("; ")) })
}

/// [`verify`] for an image with layers. A damaged layer is set aside, so that a new import brings it back.
fn verify_layered(store: &Store, id: &ImageId) -> Result<Health> {
    let again = |what: String| Ok(Health::Damaged(format!("{what}; import or pull the image again")));
    let image = match load(store, id).and_then(|image| config(store, id).map(|config| (image, config))) {
        Ok((image, Some(_))) => image,
        Ok((_, None)) => return again("its configuration is missing".into()),
        Err(error) => {
            must_be_damage(&error)?;
            return again(error.one_line());
        }
    };
    let mut damaged = Vec::new();
    for name in image.info.layers.iter().flatten() {
        if let Some(fault) = checked_dir::full_fault(&layer_store::directory(store, name))? {
            let work = store.temporary_dir()?;
            let _lock = store.lock_images()?;
            if layer_store::directory(store, name).exists() {
                layer_store::put_aside(store, &work, name)?;
            }
            damaged.push(location::of_layer(name, &fault));
        }
    }
    if !damaged.is_empty() {
        return again(damaged.join("; "));
    }
    let mut mended = Vec::new();
    if let Some(fault) = trees::full_fault(store, id)? {
        if image.info.layers.is_none() {
            let work = store.temporary_dir()?;
            let _lock = store.lock_images()?;
            location::put_aside(store, &work, id)?;
            return again(format!("tree: {fault}"));
        }
        trees::rebuild(store, id)?;
        mended.push(format!("tree: {fault}"));
    }
    mended.extend(blobs::mend(store, id)?);
    Ok(if mended.is_empty() { Health::Whole } else { Health::Mended(mended.join("; ")) })
}

/// Fails if an error does not mean damage, but a fault of this process or the machine.
fn must_be_damage(error: &Error) -> Result<()> {
    match error.errno().map(Errno::from_raw_os_error) {
        Some(errno) if !is_damage(errno) => Err(Error::new(error.one_line())),
        _ => Ok(()),
    }
}

/// What is wrong with an image's archive, if anything; a damaged one is renamed to `archive.damaged`.
fn archive_fault(store: &Store, id: &ImageId) -> Result<Option<String>> {
    let read =
        open_archive(store, id).and_then(|mut archive| io::copy(&mut archive, &mut io::sink()).context(|| "archive"));
    let Err(error) = read else { return Ok(None) };
    must_be_damage(&error)?;
    let (from, to) = (directory(store, id).join("archive"), directory(store, id).join("archive.damaged"));
    if from.exists() {
        std::fs::rename(&from, &to).context(|| format!("rename {from:?} to {to:?}"))?;
    }
    Ok(Some(format!("{}; import the image again", error.one_line())))
}

/// Replaces the manifest beside the archive if it differs from the archive's; returns a sentence if it did.
fn mend_manifest(store: &Store, id: &ImageId) -> Result<Option<String>> {
    let manifest = archive::manifest(open_archive(store, id)?)?;
    let path = directory(store, id).join("manifest");
    if std::fs::read(&path).is_ok_and(|found| digest::of_bytes(&found) == digest::of_bytes(&manifest)) {
        return Ok(None);
    }
    let _lock = store.lock_images()?;
    replace_file(store, id, "manifest", &manifest)?;
    Ok(Some("manifest: its content differs".into()))
}
