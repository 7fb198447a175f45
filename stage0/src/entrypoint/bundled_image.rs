//! The stage1 image of new pods: the one built into podctl, or a file.

use std::fs::File;
use std::path::Path;

use stage1::error::{Context, Error, Result};

use crate::entrypoint::spawn::Entrypoint;
use crate::fsutil::dir::in_words;
use crate::image::archive::ImageId;
use crate::image::import::import_archive;
use crate::image::store as images;
use crate::image::store::Image;
use crate::store::Store;

/// The id and the archive of the image that was embedded when podctl was built.
#[cfg(podctl_stage1)]
const BUILT_IN: Option<(&str, &[u8])> = Some((env!("PODCTL_STAGE1_ID"), include_bytes!(env!("PODCTL_STAGE1_FILE"))));
#[cfg(not(podctl_stage1))]
const BUILT_IN: Option<(&str, &[u8])> = None;

/// Imports the stage1 image in `file`, or the built-in one, into the store if it is not there yet.
///
/// # Errors
/// The file can't be imported, its manifest lacks an entrypoint, or `file` is `None` and no image is built in.
pub fn get(store: &Store, file: Option<&Path>) -> Result<Image> {
    let image = imported(store, file)?;
    Entrypoint::ALL
        .iter()
        .try_for_each(|entrypoint| entrypoint.named_by(&image.parsed).map(drop))
        .context(|| format!("image {} ({}) does not run pods", image.parsed.name, image.id.short()))?;
    Ok(image)
}

fn imported(store: &Store, file: Option<&Path>) -> Result<Image> {
    match (file, BUILT_IN) {
        (Some(path), _) => {
            let import = || {
                let file = File::open(path).context(|| "open").map_err(in_words(path))?;
                import_archive(store, file, None)
            };
            Ok(import().context(|| format!("stage1 image {path:?}"))?.image)
        }
        (None, Some((id, bytes))) => built_in(store, id, bytes).context(|| "the built-in stage1 image"),
        (None, None) => Err(Error::new("this podctl was built without a stage1 image: name one with --stage1 FILE")),
    }
}

fn built_in(store: &Store, id: &str, bytes: &[u8]) -> Result<Image> {
    let id = ImageId::new(id)?;
    if images::has(store, &id) {
        return images::load(store, &id);
    }
    let image = import_archive(store, bytes, None)?.image;
    if image.id != id {
        return Err(Error::new(format!("its content is {}, not {}", image.id.short(), id.short())));
    }
    Ok(image)
}
