//! `podctl image cat-manifest`

use clap::Args;
use serde_json::Value;
use stage1::error::{Context, Result};

use crate::cli::output;
use crate::cli::session::Session;
use crate::image::store::find;

#[derive(Args, Debug)]
pub struct CatManifest {
    /// The image: its name, its id, or the start of its id
    image: String,
}

impl CatManifest {
    pub fn run(self, session: &Session) -> Result<()> {
        let image = find::find(&session.store, &self.image)?;
        let manifest: Value = serde_json::from_slice(&image.manifest).context(|| "read the manifest")?;
        output::json(&manifest)
    }
}
