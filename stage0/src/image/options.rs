//! How an image is imported.

use std::path::PathBuf;

use stage1::appc::ImageManifest;
use stage1::error::{Error, Result};

use crate::image::archive::UnpackLimits;
use crate::image::platform::ImageChoice;
use crate::image::store::provenance::Provenance;
use crate::registry::Reference;

/// The format of an image file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// An application container image.
    Aci,
    /// An OCI image layout.
    Oci,
    /// What `docker save` writes.
    Docker,
    /// A directory with a manifest and blobs, as skopeo's `dir:` has them.
    Dir,
    /// A plain root file system.
    Rootfs,
}

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The image's name, instead of the one in its manifest.
    pub name: Option<String>,
    /// The format; detected when `None`.
    pub kind: Option<ImageFormat>,
    /// Which image to take from an index.
    pub choice: ImageChoice,
    /// Manifest of a plain root file system.
    pub manifest: Option<ImageManifest>,
    /// Bounds on its size, and whether it may contain device nodes.
    pub limits: UnpackLimits,
    /// Registry names for the image, instead of its own name.
    pub references: Vec<Reference>,
    /// Keep the blobs as they were fetched.
    pub keep_blobs: bool,
    /// Where it came from, and the directory of blobs to move into the store.
    pub kept: Option<(Provenance, PathBuf)>,
}

impl ImportOptions {
    /// Fails if the caller gave a program and the image's manifest has one too.
    pub(crate) fn must_not_run(&self) -> Result<()> {
        match self.manifest.as_ref().and_then(|manifest| manifest.app.as_ref()) {
            Some(_) => Err(Error::new("an image says itself what it runs; give --exec to \"podctl app add\"")),
            None => Ok(()),
        }
    }
}
