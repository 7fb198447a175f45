//! `podctl app rm`

use clap::Args;
use stage1::error::Result;

use crate::app::lifecycle;
use crate::cli::args::one_app::SomeApps;
use crate::cli::session::Session;

#[derive(Args, Debug)]
pub struct Rm {
    #[command(flatten)]
    apps: SomeApps,
    /// Keep the volumes that only its image declares, for the next app of this name
    #[arg(long)]
    keep_volumes: bool,
}

impl Rm {
    pub fn run(self, session: &Session) -> Result<()> {
        self.apps.each(session, "remove", |pod, app| {
            lifecycle::rm(&session.store, pod, app, self.keep_volumes, session.debug)
        })
    }
}
