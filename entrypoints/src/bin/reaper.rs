//! `reaper`: records how an app ended. Pod side, executed by the pod's systemd after the app's end.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use stage1::app::{self, Again};
use stage1::appc::AcName;
use stage1::{Result, cli};

/// Writes the exit status of the app APP to /rkt/status/APP and the details to /rkt/status/APP.exit, from the variables
/// that systemd sets for ExecStopPost.
#[derive(argh::FromArgs)]
struct Reaper {
    /// systemd restarts the app: on-failure or always (default: never)
    #[argh(option)]
    restart: Option<String>,
    /// maximum number of restarts in a row (default: no limit)
    #[argh(option)]
    limit: Option<u32>,
    /// the app's health check restarts it when it is unhealthy
    #[argh(switch)]
    checked: bool,
    /// a connection to a socket of the app restarts it
    #[argh(switch)]
    sockets: bool,
    /// time for the monitor to read the rest of the app's output, in milliseconds (default: 0)
    #[argh(option, default = "0")]
    wait: u64,
    /// run outside of the app's cgroup, because the reaper in it may have been killed
    #[argh(switch)]
    late: bool,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
    /// the app's name
    #[argh(positional)]
    app: AcName,
}

impl cli::Tool for Reaper {
    const NAME: &'static str = "reaper";
    const SWITCHES: &'static [&'static str] = &["checked", "debug", "late", "sockets"];
    const IN_POD: bool = true;

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        if self.late {
            app::record_exit_late(&self.app)?;
            return Ok(0);
        }
        let restart = self.restart.as_deref().map(app::parse_restart).transpose()?.unwrap_or_default().restart;
        let wait = Duration::from_millis(self.wait);
        app::record_exit(
            &self.app,
            Again { restart, limit: self.limit, checked: self.checked, sockets: self.sockets },
            wait,
        )?;
        Ok(0)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<Reaper>()
}
