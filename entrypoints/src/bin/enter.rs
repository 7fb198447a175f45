//! `enter`: runs a command in a pod or one of its apps. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::app::{self, Ended, Entry, Tty};
use stage1::appc::AcName;
use stage1::sys::{process, signal};
use stage1::{Error, Result, cli};

/// Runs the command after -- in the app, or without --appname in the pod itself, and exits as the command does.
#[derive(argh::FromArgs)]
struct Enter {
    /// PID of the pod's PID 1
    #[argh(option)]
    pid: i32,
    /// the app's name
    #[argh(option)]
    appname: Option<AcName>,
    /// user: a number, a name, or a path in the app, for the owner of that file
    #[argh(option)]
    user: Option<String>,
    /// group: a number, a name, or a path in the app, for the group of that file
    #[argh(option)]
    group: Option<String>,
    /// set a variable of the command's environment, NAME=value; may be repeated
    #[argh(option)]
    env: Vec<String>,
    /// run the command in this directory
    #[argh(option)]
    workdir: Option<String>,
    /// keep all capabilities and install no seccomp filter
    #[argh(switch)]
    privileged: bool,
    /// give the command a terminal: auto (if the caller has one), always, never
    #[argh(option, default = "Tty::Auto")]
    tty: Tty,
    /// run the app itself, which has the host's PID namespace, for the process at this descriptor
    #[argh(option)]
    on_host: Option<i32>,
    /// kill what is left of the app, which has the host's PID namespace, for the process at this descriptor
    #[argh(option)]
    on_host_end: Option<i32>,
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
        match (self.on_host, self.on_host_end, &self.appname) {
            (Some(talk), None, Some(app)) => return app::run_on_host(app, &process::adopt_fd(talk)?).map(|()| 0),
            (None, Some(talk), Some(app)) => return app::end_on_host(app, &process::adopt_fd(talk)?).map(|()| 0),
            _ => {}
        }
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

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<Enter>()
}
