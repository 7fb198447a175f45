//! Moving an image from a working directory into the store, and naming it.

use rustix::fs::{CWD, RenameFlags};
use stage1::error::{Context, Result};

use crate::fsutil::dir::{PRIVATE, make_dir, sync_dir};
use crate::image::archive::ImageId;
use crate::image::options::ImportOptions;
use crate::image::store::names::{set_name, set_reference};
use crate::image::store::{Image, directory, load};
use crate::store::{Store, TemporaryDir};

/// The result of an import.
#[derive(Debug)]
pub struct Imported {
    /// The image, which may have been in the store before.
    pub image: Image,
    /// The name that now points to it.
    pub name: String,
    /// The other image that the name pointed to before, if any.
    pub replaced: Option<ImageId>,
}

/// Names an image of the store. The caller must hold the lock.
pub(crate) fn name_it(store: &Store, id: &ImageId, options: &ImportOptions) -> Result<Imported> {
    let image = load(store, id)?;
    if let Some(first) = options.references.first() {
        let mut replaced = None;
        for reference in &options.references {
            replaced = set_reference(store, reference, id)?.or(replaced);
        }
        return Ok(Imported { image, name: first.to_string(), replaced });
    }
    let name = options.name.clone().unwrap_or_else(|| image.parsed.name.to_string());
    let replaced = set_name(store, &name, id)?;
    Ok(Imported { image, name, replaced })
}

/// Moves the image from the working directory into the store; replaces a damaged one. The caller must hold the lock.
pub(crate) fn place(store: &Store, work: &TemporaryDir, id: &ImageId) -> Result<()> {
    make_dir(&store.images(), PRIVATE)?;
    let (from, to) = (work.path().join("image"), directory(store, id));
    let flags = if to.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    rustix::fs::renameat_with(CWD, &from, CWD, &to, flags).context(|| format!("rename {from:?} to {to:?}"))?;
    sync_dir(&store.images())
}
