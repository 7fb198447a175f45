//! `podctl enter`

use clap::Args;
use stage1::error::Result;

use super::args::command_in_pod::CommandInPod;
use super::args::one_app::OneApp;
use super::session::Session;

/// Without an app, the command runs in the pod itself, outside its apps.
#[derive(Args, Debug)]
pub struct Enter {
    #[command(flatten)]
    one: OneApp,
    #[command(flatten)]
    command: CommandInPod,
}

impl Enter {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find_named(session)?;
        self.command.enter(session, &pod, app.as_ref())
    }
}
