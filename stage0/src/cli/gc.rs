//! `podctl gc`

use std::time::Duration;

use clap::Args;
use stage1::error::Result;

use super::args::duration::duration;
use super::session::Session;
use crate::pod::gc;

#[derive(Args, Debug)]
pub struct Gc {
    /// How long ago a pod must have ended to be removed
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    grace_period: Duration,
    /// How long a pod may stay prepared without being run
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    expire_prepared: Duration,
    /// Only mark the pods whose time begins to run, and remove none
    #[arg(long)]
    mark_only: bool,
}

impl Gc {
    pub fn run(self, session: &Session) -> Result<()> {
        let (grace, prepared) = (self.grace_period, self.expire_prepared);
        gc::all(&session.store, gc::Rules { grace, prepared, mark_only: self.mark_only }, session.debug)
    }
}
