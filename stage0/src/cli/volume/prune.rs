//! `podctl volume prune`

use clap::Args;
use stage1::error::Result;

use crate::cli::output::say;
use crate::cli::session::Session;
use crate::volume::removal;

#[derive(Args, Debug)]
pub struct Prune {}

impl Prune {
    /// Removes all unused volumes; prints their names.
    pub fn run(self, session: &Session) -> Result<()> {
        removal::prune(&session.store)?.iter().try_for_each(say)
    }
}
