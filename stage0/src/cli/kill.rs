//! `podctl kill`

use clap::Args;
use rustix::process::Signal;
use stage1::app::parse_stop_signal;
use stage1::error::{Context, Error, Result};

use super::args::one_app::{OneApp, doing};
use super::session::Session;
use crate::app::processes;
use crate::pod::stop;
use crate::poddir::manifest::only_one;

#[derive(Args, Debug)]
pub struct Kill {
    #[command(flatten)]
    one: OneApp,
    /// Send this signal: HUP, SIGUSR1, 10 (default: KILL)
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
}

impl Kill {
    pub fn run(self, session: &Session) -> Result<()> {
        let signal = self.signal.as_deref().map(|text| signal(text).context(|| "--signal")).transpose()?;
        let (pod, app) = self.one.find_named(session)?;
        let Some(app) = app.map_or_else(|| signal.map(|_| only_one(&pod)).transpose(), |app| Ok(Some(app)))? else {
            let options = stop::StopOptions { force: true, timeout: None, debug: session.debug };
            return stop::stop(&session.store, &pod, options).context(|| format!("kill pod {}", pod.short()));
        };
        crate::poddir::manifest::must_have(&pod, &app)?;
        crate::poddir::find::running_pid(&pod)?;
        processes::signal(&pod, &app, signal.unwrap_or(Signal::KILL)).context(|| doing("kill", &app))
    }
}

fn signal(text: &str) -> Result<Signal> {
    let number = parse_stop_signal(text)?;
    Signal::from_named_raw(i32::from(number))
        .ok_or_else(|| Error::new(format!("{text:?} is a real-time signal, which podctl kill does not support")))
}
