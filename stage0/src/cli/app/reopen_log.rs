//! `podctl app reopen-log`

use stage1::error::{Context, Result};

use crate::cli::args::one_app::{OneApp, doing};
use crate::cli::session::Session;
use crate::entrypoint::attach;

pub fn run(one: &OneApp, session: &Session) -> Result<()> {
    let (pod, app) = one.find(session)?;
    attach::reopen_log(&session.store, &pod, &app, session.debug).context(|| doing("reopen the log file of", &app))
}
