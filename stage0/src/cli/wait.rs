//! `podctl wait`

use clap::Args;
use stage1::error::{Context, Result};

use super::args::each::each;
use super::args::patience::Patience;
use super::session::Session;
use crate::pod::directory as pods;
use crate::pod::wait::{self, Until};

#[derive(Args, Debug)]
pub struct Wait {
    /// How long at most (else as long as it takes)
    #[arg(long, value_name = "DURATION")]
    timeout: Option<humantime::Duration>,
    /// UUIDs of pods, or the start of them
    #[arg(required = true, value_name = "UUID")]
    uuids: Vec<String>,
}

impl Wait {
    pub fn run(self, session: &Session) -> Result<()> {
        let deadline = Patience(self.timeout.map(Into::into)).deadline();
        each(&self.uuids, |uuid| {
            let pod = pods::find(&session.store, uuid)?;
            wait::wait(&session.store, &pod, Until::Ended, deadline).context(|| format!("wait for pod {}", pod.short()))
        })
    }
}
