//! Pulling images from registries: fetches the layers that the store lacks into a working directory and unpacks them.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use stage1::error::{Context, Error, Result};

use crate::fsutil::digest::Digest;
use crate::fsutil::dir::{PRIVATE, make_dir};
use crate::image::import::Imported;
use crate::image::import::layered;
use crate::image::import::layered::Source;
use crate::image::oci::{self, Listed};
use crate::image::options::ImportOptions;
use crate::image::store::blobs;
use crate::image::store::find::by_manifest;
use crate::image::store::names::set_reference;
use crate::image::store::provenance::Provenance;
use crate::image::store::{directory, load};
use crate::image::tree as trees;
use crate::image::tree::layer_store;
use crate::registry::{self, Access, Bars, Blob, Document, Name, Purpose, Reference, Repository};
use crate::store::{Store, TemporaryDir};

/// The result of a pull.
#[derive(Debug)]
pub struct Pulled {
    /// The image, which may have been in the store before.
    pub imported: Imported,
    /// Its full name.
    pub reference: Reference,
    /// The digest of its manifest; for an index, of the platform's manifest in it.
    pub manifest: Digest,
}

/// Pulls an image, unless the store has it, and names it. `options` have the platform and the size limits.
///
/// # Errors
/// The short name has no registry, none of the registries serves the image, or it can't be imported. The store is
/// unchanged then.
pub fn pull(store: &Store, access: &Access, name: &Name, options: &ImportOptions) -> Result<Pulled> {
    let mut errors = Vec::new();
    for reference in access.registries.candidates(name)? {
        match pull_reference(store, access, &reference, options) {
            Ok(pulled) => return Ok(pulled),
            Err(error) => {
                crate::interrupt::check()?;
                errors.push((reference, error));
            }
        }
    }
    Err(joined(errors))
}

/// Joins the errors of several places to one, each with its place.
fn joined(mut errors: Vec<(Reference, Error)>) -> Error {
    if errors.len() == 1 {
        return errors.swap_remove(0).1;
    }
    let all: Vec<String> = errors.iter().map(|(place, error)| format!("{place}: {}", error.one_line())).collect();
    Error::new(all.join("; "))
}

fn pull_reference(store: &Store, access: &Access, reference: &Reference, options: &ImportOptions) -> Result<Pulled> {
    let endpoints = access.registries.endpoints(reference)?;
    let work = store.temporary_dir()?;
    let fetched = Fetched::new(&work)?;
    let mut errors = Vec::new();
    for endpoint in &endpoints {
        let try_it = || -> Result<_> {
            let repository = access.repository(endpoint, Purpose::Pull)?;
            let manifest = find_manifest(&repository, &endpoint.reference, options)?;
            if !options.keep_blobs
                && let Some(imported) = name_known(store, &manifest.digest, reference)?
            {
                return Ok((manifest, imported));
            }
            let imported = fetch(store, &work, &repository, &manifest, reference, &fetched, options)?;
            Ok((manifest, imported))
        };
        match try_it() {
            Ok((manifest, imported)) => {
                return Ok(Pulled { imported, reference: reference.clone(), manifest: manifest.digest });
            }
            Err(error) => {
                crate::interrupt::check()?;
                errors.push((endpoint.reference.clone(), error));
            }
        }
    }
    Err(joined(errors))
}

/// Fetches the manifest for the platform.
fn find_manifest(repository: &Repository<'_>, reference: &Reference, options: &ImportOptions) -> Result<Document> {
    let mut document = repository.manifest(&reference.version())?;
    for _ in 0..oci::MAX_NESTING {
        match oci::listed(&document.bytes, &document.media_type, &options.choice)? {
            Listed::Image(_) => return Ok(document),
            Listed::Index(chosen) => document = repository.manifest(&chosen.to_string())?,
        }
    }
    Err(Error::new(format!("{reference}: indexes are nested more than {} deep", oci::MAX_NESTING)))
}

/// Names the image that this manifest brought before. `None` if the store does not have it, undamaged and with the
/// manifest.
fn name_known(store: &Store, manifest: &Digest, reference: &Reference) -> Result<Option<Imported>> {
    let Some(id) = by_manifest(store, manifest)? else { return Ok(None) };
    let _lock = store.lock_images()?;
    let has_source = directory(store, &id).join(if id.is_of_config() { "config" } else { "archive" }).exists();
    if !has_source || !blobs::path(store, manifest).exists() || trees::quick_fault(store, &id)?.is_some() {
        return Ok(None);
    }
    let Ok(image) = load(store, &id) else { return Ok(None) };
    if let Some(kept) = image.info.kept.iter().find(|kept| kept.manifest == manifest.to_string()) {
        blobs::note(store, &id, &Provenance { from: Some(reference.location()), ..kept.clone() })?;
    }
    let replaced = set_reference(store, reference, &id)?;
    Ok(Some(Imported { image, name: reference.to_string(), replaced }))
}

/// The blobs that were fetched into a working directory, and verified.
struct Fetched {
    /// The directory of blobs that only the import needs.
    passing: PathBuf,
    /// The directory of blobs to move into the store.
    kept: PathBuf,
    /// The paths of the verified blobs.
    whole: Mutex<HashSet<PathBuf>>,
}

impl Fetched {
    fn new(work: &TemporaryDir) -> Result<Self> {
        let (passing, kept) = (work.path().join("fetched"), work.path().join("blobs"));
        for dir in [&passing, &kept] {
            for algorithm in ["sha256", "sha512"] {
                make_dir(&dir.join(algorithm), PRIVATE)?;
            }
        }
        Ok(Self { passing, kept, whole: Mutex::default() })
    }

    fn path(dir: &Path, digest: &Digest) -> PathBuf {
        dir.join(digest.algorithm()).join(digest.digits())
    }

    /// Links a blob from the store into the working directory, or fetches it, unless that was done.
    fn obtain(&self, store: &Store, from: &Repository<'_>, blob: &Blob, bars: &Bars) -> Result<()> {
        let whole = || self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if whole().contains(&blob.path) {
            return Ok(());
        }
        if !blobs::link(store, &blob.digest, &blob.path)? {
            registry::fetch(&[from], blob, bars)?;
        }
        whole().insert(blob.path.clone());
        Ok(())
    }

    /// Removes the blobs that only the import needed.
    fn forget(&self) -> Result<()> {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        for path in whole.extract_if(|path| path.starts_with(&self.passing)) {
            std::fs::remove_file(&path).context(|| format!("remove {path:?}"))?;
        }
        Ok(())
    }
}

/// The layers of an image in a registry.
struct Remote<'a> {
    store: &'a Store,
    from: &'a Repository<'a>,
    fetched: &'a Fetched,
    layers: Vec<Blob>,
    bars: Bars,
}

impl Source for Remote<'_> {
    fn open(&self, number: usize) -> Result<Box<dyn Read + '_>> {
        let blob = self.layers.get(number).context(|| "the manifest has fewer layers")?;
        self.fetched.obtain(self.store, self.from, blob, &self.bars)?;
        let file = File::open(&blob.path).context(|| format!("open {:?}", blob.path))?;
        Ok(Box::new(file))
    }

    /// Unknown, so that only the download shows a progress bar.
    fn size(&self, _: usize) -> Option<u64> {
        None
    }

    fn finish(&self) -> Result<()> {
        self.fetched.forget()
    }
}

/// Fetches the configuration and the layers that the store lacks, and imports the image.
fn fetch(
    store: &Store,
    work: &TemporaryDir,
    from: &Repository<'_>,
    manifest: &Document,
    reference: &Reference,
    fetched: &Fetched,
    options: &ImportOptions,
) -> Result<Imported> {
    let Listed::Image(pointers) = oci::listed(&manifest.bytes, &manifest.media_type, &options.choice)? else {
        return Err(Error::new("the manifest is an index, not an image"));
    };
    let kept = Provenance {
        manifest: manifest.digest.to_string(),
        media_type: manifest.media_type.clone(),
        blobs: pointers.iter().map(|(digest, _)| digest.to_string()).collect(),
        from: Some(reference.location()),
    };
    let total = pointers.iter().try_fold(0u64, |sum, (_, size)| sum.checked_add(*size));
    total
        .filter(|total| *total <= options.limits.bytes)
        .context(|| format!("its layers have more than {} bytes", options.limits.bytes))?;
    let dir = if options.keep_blobs { &fetched.kept } else { &fetched.passing };
    let count = pointers.len() - 1;
    let blobs = pointers.into_iter().enumerate().map(|(number, (digest, size))| {
        let label = if number == 0 { "configuration".into() } else { format!("layer {number}/{count}") };
        let path = Fetched::path(dir, &digest);
        Blob { digest, size, label, path }
    });
    let mut layers: Vec<Blob> = blobs.collect();
    let config = layers.remove(0);
    let bars = Bars::default();
    fetched.obtain(store, from, &config, &bars)?;
    let bytes = std::fs::read(&config.path).context(|| format!("read {:?}", config.path))?;
    let image = oci::described(&manifest.bytes, &bytes, &reference.to_string(), &options.choice)?;
    let diffs = image.diffs()?;
    let is_there = |number: usize| diffs.get(number).is_some_and(|diff| layer_store::is_there(store, diff));
    let missing = layers.iter().enumerate().filter(|(number, _)| options.keep_blobs || !is_there(*number));
    must_have_space(dir, missing.map(|(_, blob)| blob.size).sum())?;
    if options.keep_blobs {
        registry::each(&layers, |blob| fetched.obtain(store, from, blob, &bars))?;
    }
    let path = Fetched::path(&fetched.kept, &manifest.digest);
    std::fs::write(&path, &manifest.bytes).context(|| format!("write {path:?}"))?;
    let options = ImportOptions {
        references: vec![reference.clone()],
        kept: Some((kept, fetched.kept.clone())),
        ..options.clone()
    };
    let remote = Remote { store, from, fetched, layers, bars };
    layered::import(store, work, &image, &remote, &options)
}

/// Fails unless the file system of `path` has at least `bytes` free.
fn must_have_space(path: &Path, bytes: u64) -> Result<()> {
    let stat = rustix::fs::statvfs(path).context(|| format!("statvfs({path:?})"))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if bytes > free {
        return Err(Error::new(format!(
            "not enough disk space: {bytes} bytes to fetch, {free} bytes free in {path:?}"
        )));
    }
    Ok(())
}
