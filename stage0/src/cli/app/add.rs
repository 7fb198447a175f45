//! `podctl app add`

use clap::Args;
use stage1::error::{Context, Result};

use crate::app::add::add;
use crate::app::interrupted;
use crate::app::options::AddOptions;
use crate::cli::args::insecure::InsecureArgs;
use crate::cli::args::new_app::NewApp;
use crate::cli::args::pod::OnePod;
use crate::cli::session::Session;

#[derive(Args, Debug)]
pub struct Add {
    #[command(flatten)]
    pod: OnePod,
    #[command(flatten)]
    pub app: NewApp,
    #[command(flatten)]
    insecure: InsecureArgs,
}

impl Add {
    pub fn run(self, session: &Session) -> Result<()> {
        let pod = self.pod.find(session)?;
        interrupted::finish(&session.store, &pod, session.debug)?;
        let insecure = self.insecure.into();
        let options = self.app.options(session).map(|options| AddOptions { insecure, ..options });
        options
            .and_then(|options| add(&session.store, &pod, &options))
            .context(|| format!("add an app to pod {}", pod.short()))
    }
}
