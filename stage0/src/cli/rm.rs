//! `podctl rm`

use clap::Args;
use stage1::error::{Context, Result};

use super::args::each::each;
use super::session::Session;
use crate::pod::gc;
use crate::poddir::find as pods;

#[derive(Args, Debug)]
pub struct Rm {
    /// UUIDs of pods, or the start of them
    #[arg(required = true, value_name = "UUID")]
    uuids: Vec<String>,
}

impl Rm {
    pub fn run(self, session: &Session) -> Result<()> {
        each(&self.uuids, |uuid| {
            let pod = pods::find(&session.store, uuid)?;
            let short = pod.short();
            gc::rm(&session.store, pod, session.debug).context(|| format!("remove pod {short}"))
        })
    }
}
