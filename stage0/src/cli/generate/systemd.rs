//! `podctl generate systemd`

use clap::Args;
use stage1::error::{Context, Result};

use crate::cli::args::pod::OnePod;
use crate::cli::output::say;
use crate::cli::session::Session;
use crate::poddir::find::Pod;
use crate::podfile::unit;

#[derive(Args, Debug)]
pub struct Systemd {
    #[command(flatten)]
    pod: OnePod,
}

impl Systemd {
    pub fn run(self, session: &Session) -> Result<()> {
        let pod = self.pod.find(session)?;
        let (_, text) = unit_of(session, &pod)?;
        say(text.trim_end())
    }
}

/// The name and the text of a pod's unit.
pub fn unit_of(session: &Session, pod: &Pod) -> Result<(String, String)> {
    let called = pod.name()?.map_or_else(|| pod.uuid().to_string(), |name| name.to_string());
    let podctl = std::env::current_exe().context(|| "where is podctl?")?;
    let text = unit::text(&podctl, session.store.dir(), &called)?;
    Ok((unit::name(&called), text))
}
