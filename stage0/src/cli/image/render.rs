//! `podctl image render`

use std::path::PathBuf;

use clap::Args;
use stage1::error::{Context, Result};

use super::progress::spinner;
use crate::cli::session::Session;
use crate::image::store::find;
use crate::image::tree as trees;

#[derive(Args, Debug)]
pub struct Render {
    /// The image: its name, its id, or the start of its id
    image: String,
    /// Make this directory, which must not exist
    directory: PathBuf,
}

impl Render {
    pub fn run(self, session: &Session) -> Result<()> {
        let image = find::find(&session.store, &self.image)?;
        let bar = spinner("copying");
        let copied = trees::copy_out(&session.store, &image.id, &self.directory);
        bar.finish_and_clear();
        copied.context(|| format!("render image {}", image.id.short()))
    }
}
