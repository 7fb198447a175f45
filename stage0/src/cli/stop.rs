//! `podctl stop`

use std::time::Duration;

use clap::Args;
use stage1::error::{Context, Result};

use super::args::duration::duration;
use super::args::each::each;
use super::session::Session;
use crate::pod::stop::{self, StopOptions};
use crate::poddir::find as pods;

#[derive(Args, Debug)]
pub struct Stop {
    /// Kill the pods at once
    #[arg(long)]
    force: bool,
    /// Kill a pod whose orderly end takes longer than this: seconds, or 5m, 1h30m (default: as long as its apps may take)
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "force")]
    timeout: Option<Duration>,
    /// UUIDs of pods, or the start of them
    #[arg(required = true, value_name = "UUID")]
    uuids: Vec<String>,
}

impl Stop {
    pub fn run(self, session: &Session) -> Result<()> {
        let options = StopOptions { force: self.force, timeout: self.timeout, debug: session.debug };
        each(&self.uuids, |uuid| {
            let pod = pods::find(&session.store, uuid)?;
            stop::stop(&session.store, &pod, options).context(|| format!("stop pod {}", pod.short()))
        })
    }
}
