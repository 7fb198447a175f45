//! `podctl update`

use clap::Args;
use stage1::error::{Context, Error, Result};

use super::args::limits::LiveLimits;
use super::args::one_app::{OneApp, doing};
use super::args::pod_limits::PodLimits;
use super::session::Session;
use crate::app::update::update;
use crate::pod;

#[derive(Args, Debug)]
pub struct Update {
    #[command(flatten)]
    one: OneApp,
    #[command(flatten)]
    limits: LiveLimits,
    #[command(flatten)]
    whole: PodLimits,
}

impl Update {
    pub fn run(self, session: &Session) -> Result<()> {
        let (limits, whole) = (self.limits.isolators()?, self.whole.isolators()?);
        if !whole.is_empty() {
            let (pod, app) = self.one.find_named(session)?;
            if let Some(app) = app.filter(|_| limits.is_empty()) {
                return Err(Error::new(format!(
                    "the options --pod-… limit the pod as a whole: leave out the app {app}, or give it a limit too"
                )));
            }
            pod::update::update(&pod, &whole).context(|| format!("update pod {}", pod.short()))?;
            if limits.is_empty() {
                return Ok(());
            }
        }
        let (pod, app) = self.one.find(session)?;
        update(&session.store, &pod, &app, &limits, session.debug).context(|| doing("update", &app))
    }
}
