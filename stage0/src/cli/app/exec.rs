//! `podctl app exec`

use clap::Args;
use stage1::error::Result;

use crate::cli::args::one_app::app_name;
use crate::cli::exec::How;
use crate::cli::session::Session;
use crate::poddir::find as pods;
use crate::poddir::manifest::only_one;

#[derive(Args, Debug)]
pub struct Exec {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// The app (else the only one of the pod)
    #[arg(long)]
    app: Option<String>,
    #[command(flatten)]
    how: How,
}

impl Exec {
    pub fn run(self, session: &Session) -> Result<()> {
        let app = app_name(self.app.as_ref())?;
        let pod = pods::find(&session.store, &self.uuid)?;
        let app = app.map_or_else(|| only_one(&pod), Ok)?;
        self.how.enter(session, &pod, Some(&app))
    }
}
