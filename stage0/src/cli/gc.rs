//! `podctl gc`

use std::time::Duration;

use clap::Args;
use stage1::error::Result;

use super::args::duration::duration;
use super::session::Session;
use crate::app::interrupted;
use crate::pod::gc;
use crate::poddir::find as pods;
use crate::volume::removal;

#[derive(Args, Debug)]
pub struct Gc {
    /// Remove pods that ended at least this long ago
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = duration)]
    grace_period: Duration,
    /// Remove pods that were prepared this long ago and never run
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    expire_prepared: Duration,
    /// Only mark ended pods, so that their grace period begins; remove none
    #[arg(long)]
    mark_only: bool,
}

impl Gc {
    pub fn run(self, session: &Session) -> Result<()> {
        for pod in pods::list(&session.store)? {
            if let Err(error) = interrupted::finish(&session.store, &pod, session.debug) {
                log::warn!("pod {}: {}", pod.uuid(), error.one_line());
            }
        }
        removal::finish_interrupted(&session.store)?;
        let (grace, prepared) = (self.grace_period, self.expire_prepared);
        gc::all(&session.store, gc::Rules { grace, prepared, mark_only: self.mark_only }, session.debug)
    }
}
