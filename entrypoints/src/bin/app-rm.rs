//! `app-rm`: removes an app of a running pod. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::appc::AcName;
use stage1::cross::Target;
use stage1::{Result, app, cli};

/// Removes unit, mounts and launch record of the app APP from the pod in the current directory. Refuses a running app.
#[derive(argh::FromArgs)]
struct AppRm {
    /// the app's name
    #[argh(option)]
    app: AcName,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
}

impl cli::Tool for AppRm {
    const NAME: &'static str = "app-rm";
    const SWITCHES: &'static [&'static str] = &["debug"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        app::rm(&Target::of_current_dir()?, &self.app)?;
        Ok(0)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<AppRm>()
}
