//! Options of an import.

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
    /// An application container image (appc).
    Aci,
    /// An OCI image layout (OCI image-spec, image-layout.md).
    Oci,
    /// An archive of `docker save`.
    Docker,
    /// A directory with a manifest and blobs, as skopeo's `dir:` writes it.
    Dir,
    /// A plain root file system.
    Rootfs,
}

/// Options of an import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// The image's name, in place of the one in its manifest.
    pub name: Option<String>,
    /// The format; detected if `None`.
    pub kind: Option<ImageFormat>,
    /// Which of several images to import.
    pub choice: ImageChoice,
    /// The manifest for a plain root file system.
    pub manifest: Option<ImageManifest>,
    /// Bounds on its size, and whether it may contain device nodes.
    pub limits: UnpackLimits,
    /// Registry names for the image, in place of its own name.
    pub references: Vec<Reference>,
    /// Whether to keep the layers' blobs as they were fetched.
    pub keep_blobs: bool,
    /// Where the image came from, and the directory of blobs to move into the store.
    pub kept: Option<(Provenance, PathBuf)>,
}

impl ImportOptions {
    /// Fails if the caller gave a program and the image's manifest has one too.
    pub(crate) fn must_not_run(&self) -> Result<()> {
        match self.manifest.as_ref().and_then(|manifest| manifest.app.as_ref()) {
            Some(_) => Err(Error::new("the image itself says what to run; give --exec to \"podctl app add\"")),
            None => Ok(()),
        }
    }
}
