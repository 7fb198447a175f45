//! `podctl update`

use clap::Args;
use stage1::error::{Context, Result};

use super::args::limits::LiveLimits;
use super::args::one_app::{OneApp, doing};
use super::session::Session;
use crate::app::update::update;

#[derive(Args, Debug)]
pub struct Update {
    #[command(flatten)]
    one: OneApp,
    #[command(flatten)]
    limits: LiveLimits,
}

impl Update {
    pub fn run(self, session: &Session) -> Result<()> {
        let limits = self.limits.isolators()?;
        let (pod, app) = self.one.find(session)?;
        update(&session.store, &pod, &app, &limits, session.debug).context(|| doing("update", &app))
    }
}
