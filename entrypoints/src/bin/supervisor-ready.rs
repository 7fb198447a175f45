//! `supervisor-ready`: tells the host that the pod's systemd is ready. Pod side, executed by a unit of the image.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::{Result, boot, cli};

/// Marks the pod's supervisor as ready, by the link /rkt/supervisor-status -> ready.
#[derive(argh::FromArgs)]
struct SupervisorReady {
    /// print debug messages
    #[argh(switch)]
    debug: bool,
}

impl cli::Tool for SupervisorReady {
    const NAME: &'static str = "supervisor-ready";
    const SWITCHES: &'static [&'static str] = &["debug"];
    const IN_POD: bool = true;

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        boot::supervisor_is_ready()?;
        Ok(0)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<SupervisorReady>()
}
