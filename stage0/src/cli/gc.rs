//! `podctl gc`

use clap::Args;
use stage1::error::Result;

use super::session::Session;
use crate::pod::gc;

#[derive(Args, Debug)]
pub struct Gc {
    /// How long ago a pod must have ended to be removed
    #[arg(long, value_name = "DURATION", default_value = "30m")]
    grace_period: humantime::Duration,
    /// How long a pod may stay prepared without being run
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    expire_prepared: humantime::Duration,
    /// Only mark the pods whose time begins to run, and remove none
    #[arg(long)]
    mark_only: bool,
}

impl Gc {
    pub fn run(self, session: &Session) -> Result<()> {
        let (grace, prepared) = (self.grace_period.into(), self.expire_prepared.into());
        gc::all(&session.store, gc::Rules { grace, prepared, mark_only: self.mark_only }, session.debug)
    }
}
