//! Finding images by name, by id or its first digits, by a manifest's digest, or by a manifest's dependency.

use stage1::appc::Dependency;
use stage1::error::{Context, Error, Result};

use crate::fsutil::digest::Digest;
use crate::image::archive::ImageId;
use crate::image::store::names::{named, names};
use crate::image::store::{Image, directory, ids, info, load};
use crate::registry::{Name, Reference};
use crate::store::Store;

/// The image that was pulled by the manifest with this digest.
///
/// # Errors
/// The store can't be read.
pub(crate) fn by_manifest(store: &Store, manifest: &Digest) -> Result<Option<ImageId>> {
    let manifest = manifest.to_string();
    for id in ids(store)? {
        // skip images that are damaged or have just been removed
        if info(store, &id).is_ok_and(|info| info.kept.iter().any(|kept| kept.manifest == manifest)) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// The image with the name, the id, the first digits of the id, or the manifest's digest `text`.
///
/// # Errors
/// No image or several images match, the image is damaged, or the store can't be read.
pub fn find(store: &Store, text: &str) -> Result<Image> {
    load(store, &find_id(store, text)?)
}

/// The id of the image that [`find`] finds; the image itself may be damaged.
///
/// # Errors
/// No image or several images match, or the store can't be read.
pub fn find_id(store: &Store, text: &str) -> Result<ImageId> {
    look_up(store, text)?.context(|| format!("there is no image {text:?}; \"podctl image list\" shows those there are"))
}

/// [`find_id`], but `None` if no image matches.
///
/// # Errors
/// Several images match, or the store can't be read.
pub fn look_up(store: &Store, text: &str) -> Result<Option<ImageId>> {
    let meant = names_meant(store, text)?;
    if let Some((_, first)) = meant.first() {
        if meant.iter().any(|(_, id)| id != first) {
            let all: Vec<&str> = meant.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Error::new(format!("{text:?} is ambiguous: it may be any of {}", all.join(", "))));
        }
        return Ok(Some(first.clone()));
    }
    let digest = Name::parse(text).ok().and_then(|name| match name {
        Name::Full(reference) => reference.digest().cloned(),
        Name::Short(short) => short.digest().cloned(),
    });
    if let Some(digest) = digest
        && let Some(id) = by_manifest(store, &digest)?
    {
        return Ok(Some(id));
    }
    if let Ok(digest) = Digest::new(text)
        && let Some(id) = by_manifest(store, &digest)?
    {
        return Ok(Some(id));
    }
    // pod manifests have this form of the id
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

/// The names that `text` means, with their images: the name itself, or for a short name the ends of full ones.
///
/// # Errors
/// The store can't be read.
pub fn names_meant(store: &Store, text: &str) -> Result<Vec<(String, ImageId)>> {
    let exact = |name: String| Ok(named(store, &name)?.map(|id| vec![(name, id)]));
    if let Some(found) = exact(text.to_owned())? {
        return Ok(found);
    }
    let short = match Name::parse(text) {
        Ok(Name::Full(reference)) => return Ok(exact(reference.to_string())?.unwrap_or_default()),
        Ok(Name::Short(short)) if short.digest().is_none() => short,
        _ => return Ok(Vec::new()),
    };
    if let Some(found) = exact(short.at("localhost")?.to_string())? {
        return Ok(found);
    }
    let is_meant = |name: &str| Reference::parse(name).is_ok_and(|full| short.is_end_of(&full));
    Ok(names(store)?.into_iter().filter(|(name, _)| is_meant(name)).collect())
}

/// All undamaged images with their names, the last imported first; warns of damaged ones.
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
            // another process has removed it
            Err(_) if !directory(store, &id).exists() => {}
            Err(error) => log::warn!("{}", error.one_line()),
        }
    }
    found.sort_by_key(|(image, _): &(Image, _)| std::cmp::Reverse(image.info.import_time));
    Ok(found)
}

/// The image that a dependency (appc, `dependencies` of an image manifest) names: the last imported one with its id,
/// name and labels.
///
/// # Errors
/// No image matches, or the store can't be read.
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
