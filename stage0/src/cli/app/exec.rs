//! `podctl exec`, and `podctl app exec`

use clap::Args;
use stage1::error::Result;

use crate::cli::args::command_in_pod::CommandInPod;
use crate::cli::args::one_app::OneApp;
use crate::cli::session::Session;

#[derive(Args, Debug)]
pub struct Exec {
    #[command(flatten)]
    one: OneApp,
    #[command(flatten)]
    command: CommandInPod,
}

impl Exec {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        self.command.enter(session, &pod, Some(&app))
    }
}
