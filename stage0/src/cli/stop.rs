//! `podctl stop`

use std::time::Duration;

use clap::Args;
use stage1::error::{Context, Result};

use super::args::duration::duration;
use super::args::pod::Pods;
use super::session::Session;
use crate::pod::stop::{self, StopOptions};

#[derive(Args, Debug)]
pub struct Stop {
    /// Kill the pods at once
    #[arg(long)]
    force: bool,
    /// Kill a pod whose orderly end takes longer than this: seconds, or 5m, 1h30m (default: its apps' stop timeouts)
    #[arg(short, long, alias = "time", value_name = "DURATION", value_parser = duration, conflicts_with = "force")]
    timeout: Option<Duration>,
    #[command(flatten)]
    pods: Pods,
}

impl Stop {
    pub fn run(self, session: &Session) -> Result<()> {
        let options = StopOptions { force: self.force, timeout: self.timeout, debug: session.debug };
        self.pods.each(session, |pod| {
            stop::stop(&session.store, &pod, options).context(|| format!("stop pod {}", pod.short()))
        })
    }
}
