//! `podctl enter`

use clap::Args;
use stage1::error::Result;

use super::args::one_app::app_name;
use super::exec::CommandInPod;
use super::session::Session;
use crate::poddir::find as pods;

#[derive(Args, Debug)]
pub struct Enter {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// Enter this app (default: the pod itself, outside its apps)
    #[arg(long)]
    app: Option<String>,
    #[command(flatten)]
    command: CommandInPod,
}

impl Enter {
    pub fn run(self, session: &Session) -> Result<()> {
        let app = app_name(self.app.as_ref())?;
        let pod = pods::find(&session.store, &self.uuid)?;
        self.command.enter(session, &pod, app.as_ref())
    }
}
