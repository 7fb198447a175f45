//! `podctl manual`: the manual pages, for packages

use std::path::PathBuf;

use clap::Args;
use stage1::error::{Context, Result};

/// Writes the manual pages of all verbs into a directory.
#[derive(Args, Debug)]
pub struct Manual {
    /// The existing directory
    directory: PathBuf,
}

impl Manual {
    pub fn run(self, command: clap::Command) -> Result<()> {
        clap_mangen::generate_to(command.disable_help_subcommand(true), &self.directory)
            .context(|| format!("write manual pages to {:?}", self.directory))
    }
}
