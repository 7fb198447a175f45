//! `podctl app rm`

use clap::Args;
use stage1::error::{Context, Result};

use crate::app::lifecycle;
use crate::cli::args::one_app::{OneApp, doing};
use crate::cli::session::Session;

#[derive(Args, Debug)]
pub struct Rm {
    #[command(flatten)]
    one: OneApp,
    /// Keep the volumes that only its image declares, for the next app of this name
    #[arg(long)]
    keep_volumes: bool,
}

impl Rm {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        lifecycle::rm(&session.store, &pod, &app, self.keep_volumes, session.debug).context(|| doing("remove", &app))
    }
}
