//! `podctl volume create`

use clap::Args;
use stage1::error::{Error, Result};

use crate::cli::args::label;
use crate::cli::output::say;
use crate::cli::session::Session;
use crate::volume::name::VolumeName;
use crate::volume::named;

#[derive(Args, Debug)]
pub struct Create {
    /// The name of the volume
    name: VolumeName,
    /// Give it a label
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    labels: Vec<String>,
    /// Succeed if the volume exists already
    #[arg(long)]
    ignore: bool,
}

impl Create {
    pub fn run(self, session: &Session) -> Result<()> {
        let labels = label::pairs(&self.labels)?;
        if !named::ensure(&session.store, &self.name, &labels)? && !self.ignore {
            return Err(Error::new(format!("there is a volume {} already: --ignore leaves it as it is", self.name)));
        }
        say(&self.name)
    }
}
