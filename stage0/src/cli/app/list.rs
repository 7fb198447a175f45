//! `podctl app list`

use clap::Args;
use stage1::error::Result;

use crate::app::status::list;
use crate::cli::args::pod::OnePod;
use crate::cli::output::{Format, print_apps};
use crate::cli::session::Session;
use crate::poddir::find as pods;

#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    pod: OnePod,
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl List {
    pub fn run(self, session: &Session) -> Result<()> {
        let pod = self.pod.find(session)?;
        print_apps(&pods::look(&session.store, &pod, list)?, self.format)
    }
}
