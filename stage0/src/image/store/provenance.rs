//! How an image came from a registry.

use serde::{Deserialize, Serialize};
use stage1::error::Result;

use crate::fsutil::digest::Digest;

/// A manifest that an image came by, and all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Digest of the manifest, which is a blob as well.
    pub manifest: String,
    /// What the manifest is.
    pub media_type: String,
    /// Digests of configuration and layers, the lowest first.
    pub blobs: Vec<String>,
    /// The repository that it came from, where blobs that are not kept can be had again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl Provenance {
    /// All its digests.
    ///
    /// # Errors
    /// The note is damaged.
    pub fn digests(&self) -> Result<Vec<Digest>> {
        std::iter::once(&self.manifest).chain(&self.blobs).map(|text| Digest::new(text)).collect()
    }
}
