//! `podctl wait`

use std::time::Duration;

use clap::Args;
use stage1::error::{Context, Result};

use super::args::duration::duration;
use super::args::patience::Patience;
use super::args::pod::Pods;
use super::session::Session;
use crate::pod::wait::{self, Until};

#[derive(Args, Debug)]
pub struct Wait {
    /// Give up after this long (default: never)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Wait until at least one app of each pod runs, and all running apps with health checks are healthy
    #[arg(long)]
    healthy: bool,
    #[command(flatten)]
    pods: Pods,
}

impl Wait {
    pub fn run(self, session: &Session) -> Result<()> {
        let deadline = Patience(self.timeout).deadline();
        let until = if self.healthy { Until::Healthy } else { Until::Ended };
        self.pods.each(session, |pod| {
            wait::wait(&session.store, &pod, until, deadline).context(|| format!("wait for pod {}", pod.short()))
        })
    }
}
