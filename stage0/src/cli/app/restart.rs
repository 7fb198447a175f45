//! `podctl app restart`

use stage1::error::{Context, Result};

use super::stop::Stop;
use crate::app::lifecycle;
use crate::cli::args::one_app::doing;
use crate::cli::session::Session;

impl Stop {
    /// Stops the app, then starts it.
    pub fn restart(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        lifecycle::restart(&session.store, &pod, &app, self.timeout, session.debug).context(|| doing("restart", &app))
    }
}
