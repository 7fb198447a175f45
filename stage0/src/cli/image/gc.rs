//! `podctl image gc`

use std::time::Duration;

use clap::Args;
use stage1::error::Result;

use crate::cli::args::duration::duration;
use crate::cli::output::{self, Format, say};
use crate::cli::session::Session;
use crate::image::archive::ImageId;
use crate::image::gc::{Collected, Which, collect};

#[derive(Args, Debug)]
pub struct Gc {
    /// Keep images that were imported, used or lost their name less than this long ago
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    grace_period: Duration,
    /// Print what was removed as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Gc {
    pub fn run(self, session: &Session) -> Result<()> {
        let collected = collect(&session.store, self.grace_period, Which::Unnamed)?;
        print(&collected, self.format)
    }
}

/// Prints what was removed.
pub fn print(collected: &Collected, format: Format) -> Result<()> {
    let images: Vec<String> = collected.images.iter().map(ImageId::to_string).collect();
    match format {
        Format::Json => output::json(&serde_json::json!({
            "images": images, "trees": collected.trees, "layers": collected.layers, "blobs": collected.blobs,
        })),
        Format::Text => {
            images.iter().try_for_each(|id| say(format!("image {id}")))?;
            collected.trees.iter().try_for_each(|name| say(format!("tree {name}")))?;
            collected.layers.iter().try_for_each(|name| say(format!("layer {name}")))?;
            collected.blobs.iter().try_for_each(|digest| say(format!("blob {digest}")))
        }
    }
}
