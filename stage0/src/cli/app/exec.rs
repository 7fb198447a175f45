//! `podctl exec`, and `podctl app exec`

use clap::Args;
use stage1::error::Result;

use crate::cli::args::one_app::One;
use crate::cli::exec::How;
use crate::cli::session::Session;

#[derive(Args, Debug)]
pub struct Exec {
    #[command(flatten)]
    one: One,
    #[command(flatten)]
    how: How,
}

impl Exec {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        self.how.enter(session, &pod, Some(&app))
    }
}
