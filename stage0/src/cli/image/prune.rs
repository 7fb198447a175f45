//! `podctl image prune`

use std::time::Duration;

use clap::Args;
use stage1::error::Result;

use super::gc::print;
use crate::cli::args::duration::duration;
use crate::cli::output::Format;
use crate::cli::session::Session;
use crate::image::gc::{Which, collect};

#[derive(Args, Debug)]
pub struct Prune {
    /// Remove images that have a name, too
    #[arg(long, short)]
    all: bool,
    /// Keep images that were imported, used or lost their name less than this long ago
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    grace_period: Duration,
    /// Print what was removed as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Prune {
    pub fn run(self, session: &Session) -> Result<()> {
        let which = if self.all { Which::Unused } else { Which::Unnamed };
        print(&collect(&session.store, self.grace_period, which)?, self.format)
    }
}
