//! `podctl app restart`

use stage1::error::Result;

use super::stop::Stop;
use crate::app::lifecycle;
use crate::cli::session::Session;

impl Stop {
    /// Stops each app, then starts it.
    pub fn restart(self, session: &Session) -> Result<()> {
        self.apps.each(session, "restart", |pod, app| {
            lifecycle::restart(&session.store, pod, app, self.timeout, session.debug)
        })
    }
}
