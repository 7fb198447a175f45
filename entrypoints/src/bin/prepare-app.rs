//! `prepare-app`: builds an app's namespace by hand. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::app::AdditionFlags;
use stage1::{Result, cli};

/// Builds the mount namespace and the launch record of an app; rebuilds them if they exist.
struct PrepareApp(AdditionFlags);

impl argh::FromArgs for PrepareApp {
    fn from_args(name: &[&str], args: &[&str]) -> Result<Self, argh::EarlyExit> {
        AdditionFlags::from_args(name, args).map(Self)
    }
}

impl cli::Tool for PrepareApp {
    const NAME: &'static str = "prepare-app";
    const SWITCHES: &'static [&'static str] = AdditionFlags::SWITCHES;

    fn debug(&self) -> bool {
        self.0.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        let (addition, target) = self.0.addition()?;
        addition.prepare(&target).map(drop)?;
        Ok(0)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<PrepareApp>()
}
