//! `podctl app replace`

use clap::Args;
use stage1::error::{Context, Result};

use crate::app::options::AddOptions;
use crate::app::replace::replace;
use crate::cli::args::new_app::{HowToRunIt, OtherImage};
use crate::cli::args::one_app::{OneApp, doing};
use crate::cli::session::Session;

/// The app keeps its options except those given here. If the new app does not start, podctl puts the old one back.
#[derive(Args, Debug)]
pub struct Replace {
    #[command(flatten)]
    one: OneApp,
    #[command(flatten)]
    image: OtherImage,
    #[command(flatten)]
    how: HowToRunIt,
}

impl Replace {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        let changes = self.how.options(session)?;
        let changes = AddOptions { image: self.image.obtain(session)?, ..changes };
        replace(&session.store, &pod, &app, changes, session.debug).context(|| doing("replace", &app))
    }
}
