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
    #[command(flatten)]
    pods: Pods,
}

impl Wait {
    pub fn run(self, session: &Session) -> Result<()> {
        let deadline = Patience(self.timeout).deadline();
        self.pods.each(session, |pod| {
            wait::wait(&session.store, &pod, Until::Ended, deadline).context(|| format!("wait for pod {}", pod.short()))
        })
    }
}
