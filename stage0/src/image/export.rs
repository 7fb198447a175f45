//! Exporting images as application container images.

use std::io::{self, Write};

use stage1::error::{Context, Result};

use crate::image::archive::ImageId;
use crate::image::tree::layered::open_archive;
use crate::store::Store;

/// Writes an image to `to` as an uncompressed application container image (appc, "App Container Image"); returns its
/// size in bytes.
///
/// # Errors
/// The archive is missing or damaged, can't be made from the image's layers, or `to` can't be written.
pub fn export(store: &Store, id: &ImageId, to: &mut impl Write) -> Result<u64> {
    let mut archive = open_archive(store, id)?;
    io::copy(&mut archive, to).context(|| format!("copy the archive of image {}", id.short()))
}
