//! `podctl stop`

use clap::Args;
use stage1::error::{Context, Result};

use super::args::each::each;
use super::session::Session;
use crate::pod::directory as pods;
use crate::pod::stop;

#[derive(Args, Debug)]
pub struct Stop {
    /// Kill at once instead of an orderly end
    #[arg(long)]
    force: bool,
    /// UUIDs of pods, or the start of them
    #[arg(required = true, value_name = "UUID")]
    uuids: Vec<String>,
}

impl Stop {
    pub fn run(self, session: &Session) -> Result<()> {
        each(&self.uuids, |uuid| {
            let pod = pods::find(&session.store, uuid)?;
            stop::stop(&session.store, &pod, self.force, session.debug).context(|| format!("stop pod {}", pod.short()))
        })
    }
}
