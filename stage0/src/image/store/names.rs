//! Names of images: symbolic links whose target is the image's id. An image can have any number of names.

use std::io;

use stage1::appc::AcIdentifier;
use stage1::error::{Context, Error, Result};

use crate::fsutil::atomic;
use crate::fsutil::dir::{PRIVATE, make_dir, names_in, sync_dir};
use crate::image::archive::ImageId;
use crate::image::store::{has, touch};
use crate::registry::{Name, Reference};
use crate::store::Store;

/// Whether a text is an image name: an AC identifier (appc) or a full registry name, of at most 255 bytes.
fn is_name(text: &str) -> bool {
    let is_reference = || Reference::parse(text).is_ok_and(|reference| reference.to_string() == text);
    text.len() <= 255 && (text.parse::<AcIdentifier>().is_ok() || is_reference())
}

/// The file name of a name's link: `%` stands for `/`; a name has no `%`.
pub(crate) fn link_name(name: &str) -> String {
    name.replace('/', "%")
}

/// Parses an AC identifier of at most 255 bytes.
pub(crate) fn checked_name(name: &str) -> Result<AcIdentifier> {
    if name.len() > 255 {
        return Err(Error::new("image name: longer than 255 characters"));
    }
    name.parse::<AcIdentifier>().context(|| format!("image name {name:?}"))
}

/// The image that a name points to; `None` if the name does not exist.
pub(crate) fn named(store: &Store, name: &str) -> Result<Option<ImageId>> {
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

/// All names, in order, with the images that they point to.
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

/// The names of an image, in order.
///
/// # Errors
/// The store can't be read.
pub fn names_of(store: &Store, id: &ImageId) -> Result<Vec<String>> {
    Ok(names(store)?.into_iter().filter(|(_, target)| target == id).map(|(name, _)| name).collect())
}

/// Points a registry name to an image; returns the other image that it pointed to before, if any.
///
/// # Errors
/// The image is gone, the name is too long, or the store can't be locked or written.
pub fn tag(store: &Store, id: &ImageId, reference: &Reference) -> Result<Option<ImageId>> {
    let _lock = store.lock_images()?;
    if !has(store, id) {
        return Err(Error::new(format!("there is no image {} any more", id.short())));
    }
    set_reference(store, reference, id)
}

/// Points an AC identifier, a name without a registry, to an image; returns the other image that it pointed to before,
/// if any.
///
/// # Errors
/// The image is gone, the name is invalid, or the store can't be locked or written.
pub fn name(store: &Store, id: &ImageId, name: &str) -> Result<Option<ImageId>> {
    let _lock = store.lock_images()?;
    if !has(store, id) {
        return Err(Error::new(format!("there is no image {} any more", id.short())));
    }
    set_name(store, name, id)
}

/// Removes a name; the image stays. Returns the full name and the image's id.
///
/// # Errors
/// No image has this name, or the store can't be locked or written.
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

/// Points a registry name to an image; returns the other image that it pointed to before, if any. The caller must hold
/// the lock.
pub(crate) fn set_reference(store: &Store, reference: &Reference, id: &ImageId) -> Result<Option<ImageId>> {
    let name = reference.to_string();
    if !is_name(&name) {
        return Err(Error::new(format!("image name {name:?}: longer than 255 characters")));
    }
    point(store, &name, id)
}

/// Points an AC identifier to an image; returns the other image that it pointed to before, if any. The caller must hold
/// the lock.
pub(crate) fn set_name(store: &Store, name: &str, id: &ImageId) -> Result<Option<ImageId>> {
    point(store, checked_name(name)?.as_ref(), id)
}

fn point(store: &Store, name: &str, id: &ImageId) -> Result<Option<ImageId>> {
    let before = named(store, name)?;
    if before.as_ref() == Some(id) {
        return Ok(None);
    }
    make_dir(&store.names(), PRIVATE)?;
    atomic::replace_link(&store.names(), &link_name(name), id.as_str())?;
    sync_dir(&store.names())?;
    before.iter().try_for_each(|before| touch(store, before))?;
    Ok(before)
}
