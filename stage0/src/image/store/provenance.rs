//! The record of where an image was pulled from.

use serde::{Deserialize, Serialize};
use stage1::error::Result;

use crate::fsutil::digest::Digest;

/// A registry manifest that an image was pulled by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The digest of the manifest, which the store keeps as a blob.
    pub manifest: String,
    /// The media type of the manifest.
    pub media_type: String,
    /// The digests of the configuration and of the layers, the lowest first.
    pub blobs: Vec<String>,
    /// The repository that it was pulled from, to fetch blobs that were not kept; `None` in records of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl Provenance {
    /// The digests of the manifest and of all blobs.
    ///
    /// # Errors
    /// The record has an invalid digest.
    pub fn digests(&self) -> Result<Vec<Digest>> {
        std::iter::once(&self.manifest).chain(&self.blobs).map(|text| Digest::new(text)).collect()
    }
}
