//! `podctl app …`

mod add;
mod exec;
mod list;
mod reopen_log;
mod replace;
mod restart;
mod rm;
mod start;
mod status;
mod stop;

use clap::Subcommand;
use stage1::error::Result;

use super::args::lazy::Lazy;
use super::args::one_app::{OneApp, SomeApps};
use super::session::Session;
pub use exec::Exec;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Add an app to a running pod
    Add(Lazy<add::Add>),
    /// Start apps
    Start(Lazy<SomeApps>),
    /// Stop apps
    Stop(Lazy<stop::Stop>),
    /// Stop apps if they run, then start them
    Restart(Lazy<stop::Stop>),
    /// Replace an app by one with another image or other options
    Replace(Lazy<replace::Replace>),
    /// Stop apps if they run, then remove them from their pod
    Rm(Lazy<rm::Rm>),
    /// List the apps of a pod
    #[command(visible_aliases = ["ls", "ps"])]
    List(Lazy<list::List>),
    /// Show one app, or all apps of a pod
    Status(Lazy<status::Status>),
    /// Run a command in an app
    Exec(Lazy<Exec>),
    /// Reopen an app's log file after it was renamed
    ReopenLog(Lazy<OneApp>),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Add(add) => add.0.run(session),
            Self::Start(apps) => start::run(&apps, session),
            Self::Stop(stop) => stop.0.run(session),
            Self::Restart(stop) => stop.0.restart(session),
            Self::Replace(replace) => replace.0.run(session),
            Self::Rm(rm) => rm.0.run(session),
            Self::List(list) => list.0.run(session),
            Self::Status(status) => status.0.run(session),
            Self::Exec(exec) => exec.0.run(session),
            Self::ReopenLog(one) => reopen_log::run(&one, session),
        }
    }
}
