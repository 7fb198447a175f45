//! `iottymux`: the multiplexer of an app's streams. Pod side, executed by the pod's systemd beside the app.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::appc::AcName;
use stage1::{Result, cli, iomux};

/// Serves the streams of the app APP to the clients of the sockets in /rkt/iottymux/APP, as the file env there says.
#[derive(argh::FromArgs)]
struct Iottymux {
    /// print debug messages
    #[argh(switch)]
    debug: bool,
    /// the app's name
    #[argh(positional)]
    app: AcName,
}

impl cli::Tool for Iottymux {
    const NAME: &'static str = "iottymux";
    const SWITCHES: &'static [&'static str] = &["debug"];
    const IN_POD: bool = true;

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        iomux::serve::serve(&self.app)?;
        Ok(0)
    }
}

fn main() -> ExitCode {
    cli::run::<Iottymux>()
}
