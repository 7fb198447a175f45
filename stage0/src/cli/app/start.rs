//! `podctl app start`

use stage1::error::Result;

use crate::app::lifecycle;
use crate::cli::args::one_app::SomeApps;
use crate::cli::session::Session;

pub fn run(apps: &SomeApps, session: &Session) -> Result<()> {
    apps.each(session, "start", |pod, app| lifecycle::start(&session.store, pod, app, session.debug))
}
