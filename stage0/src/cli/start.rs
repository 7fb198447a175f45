//! `podctl start` and `podctl restart`

use std::time::Duration;

use clap::Args;
use stage1::error::{Context, Result};

use super::args::duration::duration;
use super::args::pod::Pods;
use super::session::Session;
use crate::pod::start;
use crate::pod::stop::{self, StopOptions};
use crate::poddir::find as pods;

#[derive(Args, Debug)]
#[command(
    after_help = "Apps that were stopped by \"podctl app stop\" stay stopped, unless their restart policy is always."
)]
pub struct Start {
    #[command(flatten)]
    pods: Pods,
}

impl Start {
    pub fn run(self, session: &Session) -> Result<()> {
        self.pods.each(session, |pod| {
            start::start(&session.store, &pod, session.debug).context(|| format!("start pod {}", pod.short()))
        })
    }
}

#[derive(Args, Debug)]
pub struct Restart {
    /// Kill a pod that takes longer than this to end: seconds, or 5m, 1h30m (default: the stop timeouts of its apps)
    #[arg(short, long, alias = "time", value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    pods: Pods,
}

impl Restart {
    pub fn run(self, session: &Session) -> Result<()> {
        let options = StopOptions { force: false, timeout: self.timeout, debug: session.debug };
        self.pods.each(session, |pod| {
            let restart = || {
                stop::stop(&session.store, &pod, options)?;
                start::start(&session.store, &pods::find_whole(&session.store, pod.uuid())?, session.debug)
            };
            restart().context(|| format!("restart pod {}", pod.short()))
        })
    }
}
