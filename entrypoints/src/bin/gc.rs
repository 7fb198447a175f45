//! `gc`: removes what an ended pod left on the host. Host side.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use stage1::net::LOCAL_CONFIG;
use stage1::{Result, cli, shutdown};

/// Removes the cgroups and networks that the ended pod UUID in the current directory left on the host. May be repeated.
#[derive(argh::FromArgs)]
struct Gc {
    /// print debug messages
    #[argh(switch)]
    debug: bool,
    /// directory of the host manager's local configuration
    #[argh(option, default = "LOCAL_CONFIG.into()")]
    local_config: PathBuf,
    /// the pod's UUID
    #[argh(positional)]
    uuid: String,
}

impl cli::Tool for Gc {
    const NAME: &'static str = "gc";
    const SWITCHES: &'static [&'static str] = &["debug"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        shutdown::remove_remains(&self.uuid, &self.local_config)?;
        Ok(0)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<Gc>()
}
