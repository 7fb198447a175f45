//! `reaper`: writes down how an app ended. Pod side, executed by the pod's systemd after the app's end.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::appc::AcName;
use stage1::{Result, app, cli};

/// Writes the exit status of the app APP to /rkt/status/APP from what systemd says in the environment.
#[derive(argh::FromArgs)]
struct Reaper {
    /// print debug messages
    #[argh(switch)]
    debug: bool,
    /// the app's name
    #[argh(positional)]
    app: AcName,
}

impl cli::Tool for Reaper {
    const NAME: &'static str = "reaper";
    const SWITCHES: &'static [&'static str] = &["debug"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        app::record_exit(&self.app)?;
        Ok(0)
    }
}

fn main() -> ExitCode {
    cli::run::<Reaper>()
}
