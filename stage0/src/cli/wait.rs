//! `podctl wait`

use std::time::Duration;

use clap::Args;
use stage1::error::{Context, Result};

use super::args::duration::duration;
use super::args::each::each;
use super::args::patience::Patience;
use super::session::Session;
use crate::pod::wait::{self, Until};
use crate::poddir::find as pods;

#[derive(Args, Debug)]
pub struct Wait {
    /// Give up after this long (default: never)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// UUIDs of pods, or the start of them
    #[arg(required = true, value_name = "UUID")]
    uuids: Vec<String>,
}

impl Wait {
    pub fn run(self, session: &Session) -> Result<()> {
        let deadline = Patience(self.timeout).deadline();
        each(&self.uuids, |uuid| {
            let pod = pods::find(&session.store, uuid)?;
            wait::wait(&session.store, &pod, Until::Ended, deadline).context(|| format!("wait for pod {}", pod.short()))
        })
    }
}
