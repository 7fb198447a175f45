//! `podctl generate kube`

use clap::Args;
use stage1::error::{Context, Result};

use crate::cli::args::pod::OnePod;
use crate::cli::output::say;
use crate::cli::session::Session;
use crate::podfile::generate;

#[derive(Args, Debug)]
pub struct Kube {
    #[command(flatten)]
    pod: OnePod,
}

impl Kube {
    pub fn run(self, session: &Session) -> Result<()> {
        let pod = self.pod.find(session)?;
        let text = generate::kube(&session.store, &pod).context(|| format!("pod {}", pod.short()))?;
        say(text.trim_end())
    }
}
