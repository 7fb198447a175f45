//! `app-exec`: becomes an app. Pod side, executed by the pod's systemd as the app's main process.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::appc::AcName;
use stage1::{Result, app, cli};

/// Becomes the app APP: its mount namespace, its confinement, its command, as its launch record says.
#[derive(argh::FromArgs)]
struct AppExec {
    /// print debug messages
    #[argh(switch)]
    debug: bool,
    /// the app's name
    #[argh(positional)]
    app: AcName,
}

impl cli::Tool for AppExec {
    const NAME: &'static str = "app-exec";
    const SWITCHES: &'static [&'static str] = &["debug"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        match app::exec(&self.app)? {}
    }
}

fn main() -> ExitCode {
    cli::run::<AppExec>()
}
