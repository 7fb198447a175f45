//! `podctl run-prepared`

use clap::Args;
use stage1::error::Result;

use super::args::new_pod::HowToRun;
use super::args::pod::OnePod;
use super::run::to_the_end;
use super::session::Session;
use crate::pod::immutable;
use crate::pod::settings::Settings;

#[derive(Args, Debug)]
pub struct RunPrepared {
    #[command(flatten)]
    pod: OnePod,
    #[command(flatten)]
    run: HowToRun,
    /// Give this terminal to the pod's only app
    #[arg(short, long)]
    interactive: bool,
    /// Remove the pod when it has ended
    #[arg(long)]
    rm: bool,
}

impl RunPrepared {
    pub fn run(self, session: &Session) -> Result<u8> {
        let settings = Settings { interactive: self.interactive, ..self.run.settings()? };
        let pod = self.pod.find(session)?;
        let (pod, settings) = immutable::take_prepared(&session.store, &pod, settings)?;
        to_the_end(session, pod, settings, self.rm)
    }
}
