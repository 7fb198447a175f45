//! `podctl app stop`

use std::time::Duration;

use clap::Args;
use stage1::error::{Context, Result};

use crate::app::lifecycle;
use crate::cli::args::duration::seconds;
use crate::cli::args::one_app::One;
use crate::cli::session::Session;

#[derive(Args, Debug)]
pub struct Stop {
    #[command(flatten)]
    pub(super) one: One,
    /// How long until everything the app has started is killed: seconds, or 5m, 1h30m; 0 for at once
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    timeout: Option<u32>,
}

impl Stop {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        lifecycle::stop(&session.store, &pod, &app, self.timeout(), session.debug).context(|| self.one.doing("stop"))
    }

    pub(super) fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }
}
