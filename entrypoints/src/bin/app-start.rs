//! `app-start`: starts an app of a running pod. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::appc::AcName;
use stage1::cross::Target;
use stage1::{Result, app, cli};

/// Starts the app APP of the pod in the current directory. Does nothing if it runs already.
#[derive(argh::FromArgs)]
struct AppStart {
    /// the app's name
    #[argh(option)]
    app: AcName,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
}

impl cli::Tool for AppStart {
    const NAME: &'static str = "app-start";
    const SWITCHES: &'static [&'static str] = &["debug"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        app::start(&Target::of_current_dir()?, &self.app)?;
        Ok(0)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<AppStart>()
}
