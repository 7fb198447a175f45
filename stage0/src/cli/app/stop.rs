//! `podctl app stop`

use std::time::Duration;

use clap::Args;
use stage1::error::Result;

use crate::app::lifecycle;
use crate::cli::args::duration::seconds;
use crate::cli::args::one_app::SomeApps;
use crate::cli::session::Session;

#[derive(Args, Debug)]
pub struct Stop {
    #[command(flatten)]
    pub(super) apps: SomeApps,
    /// Kill all its processes after this long: seconds, or 5m, 1h30m; 0 kills them at once (default: the app's stop
    /// timeout)
    #[arg(short, long, alias = "time", value_name = "DURATION", value_parser = seconds)]
    pub(super) timeout: Option<Duration>,
}

impl Stop {
    pub fn run(self, session: &Session) -> Result<()> {
        self.apps
            .each(session, "stop", |pod, app| lifecycle::stop(&session.store, pod, app, self.timeout, session.debug))
    }
}
