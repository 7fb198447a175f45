//! `podctl rm`

use clap::Args;
use stage1::error::{Context, Result};

use super::args::pod::Pods;
use super::session::Session;
use crate::pod::gc;

#[derive(Args, Debug)]
pub struct Rm {
    #[command(flatten)]
    pods: Pods,
}

impl Rm {
    pub fn run(self, session: &Session) -> Result<()> {
        self.pods.each(session, |pod| {
            let short = pod.short();
            gc::rm(&session.store, pod, session.debug).context(|| format!("remove pod {short}"))
        })
    }
}
