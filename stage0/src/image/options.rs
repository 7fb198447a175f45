//! How an image is imported.

use std::path::PathBuf;

use stage1::appc::ImageManifest;
use stage1::error::{Error, Result};

use crate::image::archive::Limits;
use crate::image::platform::ImageChoice;
use crate::image::store::provenance::Provenance;
use crate::registry::Reference;

/// What a file or directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
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
pub struct Options {
    /// What to call the image, instead of what it says itself.
    pub name: Option<String>,
    /// What the source holds; else that is found out.
    pub kind: Option<Kind>,
    /// Which image of an index.
    pub choice: ImageChoice,
    /// Manifest of a plain root file system.
    pub manifest: Option<ImageManifest>,
    /// How large it may be, and whether it may bring device nodes.
    pub limits: Limits,
    /// The names of a registry that it gets, instead of its own.
    pub references: Vec<Reference>,
    /// Its blobs are kept as they come.
    pub keep_blobs: bool,
    /// How it came, and the directory with blobs that are moved to the store.
    pub kept: Option<(Provenance, PathBuf)>,
}

impl Options {
    /// Fails if a program was named for an image that names its own.
    pub(crate) fn must_not_run(&self) -> Result<()> {
        match self.manifest.as_ref().and_then(|manifest| manifest.app.as_ref()) {
            Some(_) => Err(Error::new("an image says itself what it runs; give --exec to \"podctl app add\"")),
            None => Ok(()),
        }
    }
}
