//! `app-add`: adds an app to a running pod. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::app::{self, AdditionFlags};
use stage1::{Result, cli};

/// Adds an app, so that it can be started.
struct AppAdd(AdditionFlags);

impl argh::FromArgs for AppAdd {
    fn from_args(name: &[&str], args: &[&str]) -> Result<Self, argh::EarlyExit> {
        AdditionFlags::from_args(name, args).map(Self)
    }
}

impl cli::Tool for AppAdd {
    const NAME: &'static str = "app-add";
    const SWITCHES: &'static [&'static str] = AdditionFlags::SWITCHES;

    fn debug(&self) -> bool {
        self.0.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        let only_limits = self.0.update;
        let (addition, target) = self.0.addition()?;
        if only_limits {
            app::update(&target, &addition.app)?
        } else {
            addition.add(&target)?
        }
        Ok(0)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<AppAdd>()
}
