//! Images to registries: what was pulled is pushed bit for bit.

use stage1::error::{Context, Error, Result};

use crate::fsutil::digest::Digest;
use crate::image::blobs;
use crate::image::store::Image;
use crate::registry::{self, Access, Bars, Blob, Document, MAX_MANIFEST, Progress, Purpose, Reference};
use crate::store::Store;

/// Sends an image to a registry, under this name. Gives back the digest of its manifest.
///
/// # Errors
/// The image did not come from a registry, its blobs are not whole any more, or the registry refuses it.
pub fn push(store: &Store, access: &Access, image: &Image, to: &Reference) -> Result<Digest> {
    let short = image.id.short();
    let kept = image.info.kept.last().context(|| {
        format!("image {short} did not come from a registry: its layers are not kept as they came, and can't be pushed")
    })?;
    let work = store.temporary_dir()?;
    let mut files = Vec::new();
    {
        let _lock = store.share_images()?;
        for digest in kept.digests()? {
            let path = work.path().join(digest.digits());
            if !path.exists() && !blobs::link(store, &digest, &path)? {
                return Err(Error::new(format!(
                    "blob {digest} of image {short} is not there any more, or damaged: pull the image again"
                )));
            }
            let size = path.metadata().context(|| format!("stat {path:?}"))?.len();
            let label = if files.len() < 2 { "configuration".into() } else { format!("layer {}", files.len() - 1) };
            if !files.iter().any(|other: &Blob| other.digest == digest) {
                files.push(Blob { digest, size, label, path });
            }
        }
    }
    let manifest = files.remove(0);
    if manifest.size > MAX_MANIFEST {
        return Err(Error::new("its manifest is too large"));
    }
    let bytes = std::fs::read(&manifest.path).context(|| format!("read {:?}", manifest.path))?;
    let document = Document { bytes, media_type: kept.media_type.clone(), digest: manifest.digest.clone() };
    // mirrors are for pulling
    let endpoint = access.registries.endpoints(to)?.pop().context(|| "no registry")?;
    let repository = access.repository(&endpoint, Purpose::Push)?;
    let bars = Bars::default();
    registry::each(&files, |blob| {
        let bar = bars.add(&blob.label, blob.size);
        if !repository.has_blob(&blob.digest)? {
            repository.put_blob(&blob.digest, &blob.path, &Progress(&|bytes| bar.more(bytes)))?;
        }
        bar.done();
        Ok(())
    })?;
    repository.put_manifest(&endpoint.reference.version(), &document)?;
    Ok(document.digest)
}
