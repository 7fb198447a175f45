//! `stop`: ends the pod in the current directory. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::cross::Target;
use stage1::{Result, cli, shutdown};

/// Shuts down the pod UUID in the current directory and waits until it has ended; with --force kills it.
#[derive(argh::FromArgs)]
struct Stop {
    /// kill all processes of the pod at once
    #[argh(switch)]
    force: bool,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
    /// the pod's UUID
    #[argh(positional)]
    uuid: String,
}

impl cli::Tool for Stop {
    const NAME: &'static str = "stop";
    const SWITCHES: &'static [&'static str] = &["force", "debug"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        stage1::pod::check_uuid(&self.uuid)?;
        shutdown::wake_monitor()?;
        let Some(target) = Target::recorded_if_running()? else { return Ok(0) };
        if self.force {
            shutdown::at_once(&target)?
        } else {
            shutdown::in_order(&target)?
        }
        Ok(0)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<Stop>()
}
