//! Pushing images to registries. A pulled image is pushed bit for bit: layers whose blobs the store did not keep, and
//! which the target registry lacks, are fetched again from the registry that the image came from.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use stage1::error::{Context, Error, Result};

use crate::fsutil::digest::Digest;
use crate::image::oci::{self, Listed};
use crate::image::platform::ImageChoice;
use crate::image::store::blobs;
use crate::image::store::{Image, directory};
use crate::registry::{self, Access, Bars, Blob, Document, MAX_MANIFEST, Progress, Purpose, Reference, Repository};
use crate::store::Store;

/// Pushes an image to a registry under the name `to`; returns the digest of its manifest.
///
/// # Errors
/// The image did not come from a registry, a blob is damaged and can't be fetched again, or the registry can't be
/// reached or refuses the image.
pub fn push(store: &Store, access: &Access, image: &Image, to: &Reference) -> Result<Digest> {
    let short = image.id.short();
    let kept = image.info.kept.last().context(|| {
        format!(
            "image {short} did not come from a registry: its layers are not there as they came, and can't be pushed"
        )
    })?;
    let work = store.temporary_dir()?;
    let digest = Digest::new(&kept.manifest)?;
    let path = work.path().join(digest.digits());
    let gone =
        |what: &str| Error::new(format!("{what} of image {short} is not there any more, or damaged: pull it again"));
    let mut files: Vec<Blob> = Vec::new();
    let bytes = {
        let _lock = store.share_images()?;
        if !blobs::link(store, &digest, &path)? {
            return Err(gone("the manifest"));
        }
        if path.metadata().context(|| format!("stat {path:?}"))?.len() > MAX_MANIFEST {
            return Err(Error::new("its manifest is too large"));
        }
        let bytes = std::fs::read(&path).context(|| format!("read {path:?}"))?;
        let Listed::Image(pointers) = oci::listed(&bytes, &kept.media_type, &ImageChoice::default())? else {
            return Err(Error::new("the manifest is an index, not an image"));
        };
        for (number, (digest, size)) in pointers.into_iter().enumerate() {
            let path = work.path().join(digest.digits());
            let label = if number == 0 { "configuration".into() } else { format!("layer {number}") };
            if files.iter().any(|other| other.digest == digest) {
                continue;
            }
            if !path.exists() && !blobs::link(store, &digest, &path)? && number == 0 {
                copy_config(store, image, &digest, &path)?;
            }
            if !path.exists() && kept.from.is_none() {
                return Err(gone(&format!("blob {digest}")));
            }
            files.push(Blob { digest, size, label, path });
        }
        bytes
    };
    let document = Document { bytes, media_type: kept.media_type.clone(), digest };
    // the last endpoint is the registry itself; the others are mirrors, which only serve pulls
    let endpoint = access.registries.endpoints(to)?.pop().context(|| "no registry")?;
    let repository = access.repository(&endpoint, Purpose::Push)?;
    // the registry that the image came from can mount its blobs from the other repository
    let beside = kept.from.as_deref().map(Reference::parse).transpose()?;
    let beside = beside.filter(|one| one.registry() == endpoint.reference.registry());
    let missing: Mutex<Vec<Blob>> = Mutex::default();
    registry::each(&files, |blob| {
        let mount = |from: &Reference| repository.mount_blob(&blob.digest, from.repository());
        if !repository.has_blob(&blob.digest)? && !beside.as_ref().map(mount).transpose()?.unwrap_or(false) {
            missing.lock().unwrap_or_else(PoisonError::into_inner).push(blob.clone());
        }
        Ok(())
    })?;
    let missing = missing.into_inner().unwrap_or_else(PoisonError::into_inner);
    let from = match &kept.from {
        Some(from) if missing.iter().any(|blob| !blob.path.exists()) => sources(access, from, &document.digest)?,
        _ => Vec::new(),
    };
    let from: Vec<&Repository<'_>> = from.iter().collect();
    let bars = Bars::default();
    registry::each(&missing, |blob| {
        let passing = !blob.path.exists();
        if passing {
            registry::fetch(&from, blob, &bars).context(|| "fetch it again from where it came")?;
        }
        let bar = bars.add(&blob.label, blob.size);
        repository.put_blob(&blob.digest, &blob.path, &Progress(&|bytes| bar.more(bytes)))?;
        bar.done();
        if passing { std::fs::remove_file(&blob.path).context(|| format!("remove {:?}", blob.path)) } else { Ok(()) }
    })?;
    repository.put_manifest(&endpoint.reference.version(), &document)?;
    Ok(document.digest)
}

/// The repositories to fetch an image's blobs from: the one that it came from, and its mirrors.
fn sources<'a>(access: &'a Access, from: &str, manifest: &Digest) -> Result<Vec<Repository<'a>>> {
    let reference = Reference::parse(&format!("{from}@{manifest}"))?;
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for endpoint in access.registries.endpoints(&reference)? {
        match access.repository(&endpoint, Purpose::Pull) {
            Ok(repository) => found.push(repository),
            Err(error) => errors.push(error.one_line()),
        }
    }
    if found.is_empty() {
        let why = errors.join("; ");
        return Err(Error::new(format!(
            "its layers are to be fetched again from {from}, which can't be reached: {why}; \"image pull --keep-blobs\" \
             keeps them"
        )));
    }
    Ok(found)
}

/// Writes the image's configuration to `to` if it has the digest.
fn copy_config(store: &Store, image: &Image, digest: &Digest, to: &Path) -> Result<()> {
    let path = directory(store, &image.id).join("config");
    match std::fs::read(&path) {
        Ok(bytes) if digest.is_of(&bytes) => std::fs::write(to, &bytes).context(|| format!("write {to:?}")),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::caused_by(format!("read {path:?}"), error)),
    }
}
