//! `enter`: runs a command in a pod or one of its apps. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::app::{self, Ended, Entry, Tty};
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
    /// user to be: number, name, or path whose owner is meant
    #[argh(option)]
    user: Option<String>,
    /// group to be, likewise
    #[argh(option)]
    group: Option<String>,
    /// variable of the command's environment, NAME=value; may be repeated
    #[argh(option)]
    env: Vec<String>,
    /// directory to start in
    #[argh(option)]
    workdir: Option<String>,
    /// all capabilities, no seccomp filter
    #[argh(switch)]
    privileged: bool,
    /// terminal for the command: auto (as the caller has one), always, never
    #[argh(option, default = "Tty::Auto")]
    tty: Tty,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
}

impl cli::Tool for Enter {
    const NAME: &'static str = "enter";
    const SWITCHES: &'static [&'static str] = &["debug", "privileged"];
    const REPEATED: &'static [&'static str] = &["env"];
    const TAKES_COMMAND: bool = true;

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, command: Vec<OsString>) -> Result<u8> {
        let text = |word: OsString| word.into_string().map_err(|w| Error::new(format!("{w:?} is not UTF-8")));
        let command = command.into_iter().map(text).collect::<Result<_>>()?;
        let entry = Entry {
            pid: self.pid,
            app: self.appname,
            command,
            user: self.user,
            group: self.group,
            environment: self.env,
            working_directory: self.workdir,
            privileged: self.privileged,
            tty: self.tty,
        };
        match app::enter(&entry)? {
            Ended::Exited(code) => Ok(code),
            Ended::Killed(by) => signal::die_by(by),
        }
    }
}

fn main() -> ExitCode {
    cli::run::<Enter>()
}
