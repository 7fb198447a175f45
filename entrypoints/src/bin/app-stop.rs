//! `app-stop`: stops an app of a running pod. Host side.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use stage1::appc::AcName;
use stage1::cross::Target;
use stage1::{Result, app, cli};

/// Stops the app APP of the pod in the current directory. Exits with 5 if the pod has no such app.
#[derive(argh::FromArgs)]
struct AppStop {
    /// the app's name
    #[argh(option)]
    app: AcName,
    /// kill all processes of the app after this many seconds, 0 for at once (default: the app's own timeout)
    #[argh(option)]
    timeout: Option<u32>,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
}

impl cli::Tool for AppStop {
    const NAME: &'static str = "app-stop";
    const SWITCHES: &'static [&'static str] = &["debug"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        let timeout = self.timeout.map(|seconds| Duration::from_secs(seconds.into()));
        app::stop(&Target::of_current_dir()?, &self.app, timeout)?;
        Ok(0)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<AppStop>()
}
