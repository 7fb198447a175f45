//! Images from registries: fetched into a layout in a working directory, imported from there, their blobs kept.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::json;
use stage1::error::{Context, Error, Result};

use crate::fsutil::digest::Digest;
use crate::fsutil::dir::{PRIVATE, make_dir};
use crate::image::blobs;
use crate::image::import::{Imported, import_layout};
use crate::image::kept::Kept;
use crate::image::oci::{self, Listed};
use crate::image::options::Options;
use crate::image::store::{by_manifest, directory, info, load, set_reference};
use crate::image::tree as trees;
use crate::registry::{self, Access, Bars, Blob, Document, Name, Purpose, Reference, Repository};
use crate::store::{Store, TemporaryDir};

/// What a pull did.
#[derive(Debug)]
pub struct Pulled {
    /// The image, new or there before.
    pub imported: Imported,
    /// Its full name.
    pub reference: Reference,
    /// Digest of its manifest: of an index, that of this platform.
    pub manifest: Digest,
}

/// Fetches an image, unless it is there, and names it. `options` say which platform and how large.
///
/// # Errors
/// The name means nothing, no registry gives the image, or it can't be imported; the store is unchanged.
pub fn pull(store: &Store, access: &Access, name: &Name, options: &Options) -> Result<Pulled> {
    let mut errors = Vec::new();
    for reference in access.registries.candidates(name)? {
        match pull_reference(store, access, &reference, options) {
            Ok(pulled) => return Ok(pulled),
            Err(error) => {
                crate::interrupt::check()?;
                errors.push(error);
            }
        }
    }
    Err(joined(errors))
}

/// One error of several.
fn joined(mut errors: Vec<Error>) -> Error {
    match errors.len() {
        1 => errors.swap_remove(0),
        _ => Error::new(errors.iter().map(Error::one_line).collect::<Vec<_>>().join("; ")),
    }
}

fn pull_reference(store: &Store, access: &Access, reference: &Reference, options: &Options) -> Result<Pulled> {
    let endpoints = access.registries.endpoints(reference)?;
    let work = store.temporary_dir()?;
    let mut layout = Layout { path: work.path().join("layout"), whole: HashSet::new() };
    layout.make()?;
    let mut errors = Vec::new();
    for endpoint in &endpoints {
        let mut try_it = || -> Result<_> {
            let repository = access.repository(endpoint, Purpose::Pull)?;
            let manifest = find_manifest(&repository, &endpoint.reference, options)?;
            if let Some(imported) = name_known(store, &manifest.digest, reference)? {
                return Ok((manifest, Some(imported)));
            }
            layout.fill(store, &repository, &manifest, options)?;
            Ok((manifest, None))
        };
        match try_it() {
            Ok((manifest, imported)) => {
                let imported = match imported {
                    Some(imported) => imported,
                    None => import(store, &work, &layout, &manifest, reference, options)?,
                };
                return Ok(Pulled { imported, reference: reference.clone(), manifest: manifest.digest });
            }
            Err(error) => {
                crate::interrupt::check()?;
                errors.push(Error::caused_by(format!("{}", endpoint.reference), error));
            }
        }
    }
    Err(joined(errors))
}

/// The manifest for the platform.
fn find_manifest(repository: &Repository<'_>, reference: &Reference, options: &Options) -> Result<Document> {
    let mut document = repository.manifest(&reference.version())?;
    for _ in 0..oci::MAX_NESTING {
        match oci::listed(&document.bytes, &document.media_type, &options.wanted)? {
            Listed::Image(_) => return Ok(document),
            Listed::Index(chosen) => document = repository.manifest(&chosen.to_string())?,
        }
    }
    Err(Error::new(format!("{reference}: indexes within indexes")))
}

/// Names the image that came by this manifest before, if it and its blobs are whole.
fn name_known(store: &Store, manifest: &Digest, reference: &Reference) -> Result<Option<Imported>> {
    let Some(id) = by_manifest(store, manifest)? else { return Ok(None) };
    let _lock = store.lock_images()?;
    let has_blobs = || {
        let kept = info(store, &id)?.kept.into_iter().find(|kept| kept.manifest == manifest.to_string());
        let all = kept.map_or(Ok(Vec::new()), |kept| kept.digests())?;
        Ok::<bool, Error>(!all.is_empty() && all.iter().all(|digest| blobs::path(store, digest).exists()))
    };
    if !directory(store, &id).join("archive").exists() || !has_blobs()? || trees::quick_fault(store, &id)?.is_some() {
        return Ok(None);
    }
    let Ok(image) = load(store, &id) else { return Ok(None) };
    if let Some(kept) = image.info.kept.iter().find(|kept| kept.manifest == manifest.to_string()) {
        blobs::note(store, &id, kept)?;
    }
    let replaced = set_reference(store, reference, &id)?;
    Ok(Some(Imported { image, name: reference.to_string(), replaced }))
}

/// An OCI layout that is being filled.
struct Layout {
    path: PathBuf,
    /// Blobs that are there and verified.
    whole: HashSet<Digest>,
}

impl Layout {
    fn make(&self) -> Result<()> {
        for algorithm in ["sha256", "sha512"] {
            make_dir(&self.path.join("blobs").join(algorithm), PRIVATE)?;
        }
        self.write("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }).to_string())
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        std::fs::write(&path, text).context(|| format!("write {path:?}"))
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm()).join(digest.digits())
    }

    /// Fetches all that the manifest points to, but for what is in the store.
    fn fill(&mut self, store: &Store, from: &Repository<'_>, manifest: &Document, options: &Options) -> Result<()> {
        let Listed::Image(pointers) = oci::listed(&manifest.bytes, &manifest.media_type, &options.wanted)? else {
            return Err(Error::new("an index is not an image"));
        };
        let mut wanted: Vec<Blob> = Vec::new();
        let layers = pointers.len() - 1;
        for (number, (digest, size)) in pointers.into_iter().enumerate() {
            let label = if number == 0 { "configuration".into() } else { format!("layer {number}/{layers}") };
            let path = self.blob(&digest);
            let is_new = !wanted.iter().any(|other| other.digest == digest) && !self.whole.contains(&digest);
            if is_new && blobs::link(store, &digest, &path)? {
                self.whole.insert(digest);
            } else if is_new {
                wanted.push(Blob { digest, size, label, path });
            }
        }
        let total = wanted.iter().try_fold(0u64, |sum, blob| sum.checked_add(blob.size));
        let total = total.filter(|total| *total <= options.limits.bytes);
        let total = total.context(|| format!("its layers have more than {} bytes", options.limits.bytes))?;
        must_have_space(&self.path, total)?;
        let bars = Bars::default();
        let done: std::sync::Mutex<Vec<Digest>> = std::sync::Mutex::default();
        let fetched = registry::each(&wanted, |blob| {
            registry::fetch(&[from], blob, &bars)?;
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(blob.digest.clone());
            Ok(())
        });
        self.whole.extend(done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        fetched
    }
}

/// Fails if the file system is too full for so many bytes.
fn must_have_space(path: &Path, bytes: u64) -> Result<()> {
    let stat = rustix::fs::statvfs(path).context(|| format!("statvfs({path:?})"))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if bytes > free {
        return Err(Error::new(format!("{bytes} bytes are to be fetched, and {free} are free in {path:?}")));
    }
    Ok(())
}

fn import(
    store: &Store,
    work: &TemporaryDir,
    layout: &Layout,
    manifest: &Document,
    reference: &Reference,
    options: &Options,
) -> Result<Imported> {
    let path = layout.blob(&manifest.digest);
    std::fs::write(&path, &manifest.bytes).context(|| format!("write {path:?}"))?;
    let pointer = json!({
        "mediaType": manifest.media_type,
        "digest": manifest.digest.to_string(),
        "size": manifest.bytes.len(),
        "annotations": { "org.opencontainers.image.ref.name": reference.to_string() },
    });
    layout.write("index.json", &json!({ "schemaVersion": 2, "manifests": [pointer] }).to_string())?;
    let Listed::Image(pointers) = oci::listed(&manifest.bytes, &manifest.media_type, &options.wanted)? else {
        return Err(Error::new("an index is not an image"));
    };
    let kept = Kept {
        manifest: manifest.digest.to_string(),
        media_type: manifest.media_type.clone(),
        blobs: pointers.iter().map(|(digest, _)| digest.to_string()).collect(),
    };
    let options = Options {
        references: vec![reference.clone()],
        kept: Some((kept, layout.path.join("blobs"))),
        ..options.clone()
    };
    import_layout(store, work, &layout.path, &options)
}
