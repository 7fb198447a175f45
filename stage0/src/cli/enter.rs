//! `podctl enter`

use clap::Args;
use stage1::appc::AcName;
use stage1::error::{Context, Result};

use super::exec::How;
use super::session::Session;
use crate::poddir::find as pods;

#[derive(Args, Debug)]
pub struct Enter {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// The app to enter (else the pod around its apps)
    #[arg(long)]
    app: Option<String>,
    #[command(flatten)]
    how: How,
}

impl Enter {
    pub fn run(self, session: &Session) -> Result<()> {
        let app = self.app.as_ref().map(|app| app.parse::<AcName>().context(|| "app name")).transpose()?;
        let pod = pods::find(&session.store, &self.uuid)?;
        self.how.enter(session, &pod, app.as_ref())
    }
}
