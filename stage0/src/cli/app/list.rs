//! `podctl app list`

use clap::Args;
use stage1::error::Result;

use crate::app::status::list;
use crate::cli::args::listing::Listing;
use crate::cli::args::pod::OnePod;
use crate::cli::output::print_apps;
use crate::cli::session::Session;
use crate::poddir::find as pods;

#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    pod: OnePod,
    #[command(flatten)]
    how: Listing,
}

impl List {
    pub fn run(self, session: &Session) -> Result<()> {
        let pod = self.pod.find(session)?;
        print_apps(&pods::look(&session.store, &pod, list)?, &self.how)
    }
}
