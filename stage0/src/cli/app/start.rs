//! `podctl app start`

use stage1::error::{Context, Result};

use crate::app::lifecycle;
use crate::cli::args::one_app::{OneApp, doing};
use crate::cli::session::Session;

pub fn run(one: &OneApp, session: &Session) -> Result<()> {
    let (pod, app) = one.find(session)?;
    lifecycle::start(&session.store, &pod, &app, session.debug).context(|| doing("start", &app))
}
