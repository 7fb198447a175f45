//! `podctl prepare`

use clap::Args;
use stage1::error::Result;

use super::args::new_pod::NewPod;
use super::output::say;
use super::session::Session;

#[derive(Args, Debug)]
#[command(
    after_help = "More apps follow after ---, each with its own image, options and arguments. As an argument, --- is written \\---; at the end of the line it needs no backslash."
)]
pub struct Prepare {
    #[command(flatten)]
    pub pod: NewPod,
}

impl Prepare {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, _) = self.pod.prepare(session)?;
        say(pod.uuid())
    }
}
