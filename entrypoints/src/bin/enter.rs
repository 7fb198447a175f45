//! `enter`: runs a command in a pod or one of its apps. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::app::{self, Ended, Entry};
use stage1::appc::AcName;
use stage1::sys::signal;
use stage1::{Error, Result, cli};

/// Runs a command (after --) in the app, or without --appname in the pod itself. Its end is the command's.
#[derive(argh::FromArgs)]
struct Enter {
    /// PID of the pod's PID 1
    #[argh(option)]
    pid: i32,
    /// the app's name
    #[argh(option)]
    appname: Option<AcName>,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
}

impl cli::Tool for Enter {
    const NAME: &'static str = "enter";
    const SWITCHES: &'static [&'static str] = &["debug"];
    const TAKES_COMMAND: bool = true;

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, command: Vec<OsString>) -> Result<u8> {
        let text = |word: OsString| word.into_string().map_err(|w| Error::new(format!("{w:?} is not UTF-8")));
        let command = command.into_iter().map(text).collect::<Result<_>>()?;
        match app::enter(&Entry { pid: self.pid, app: self.appname, command })? {
            Ended::Exited(code) => Ok(code),
            Ended::Killed(by) => signal::die_by(by),
        }
    }
}

fn main() -> ExitCode {
    cli::run::<Enter>()
}
