//! `app-exec`: executes an app's command. Pod side, executed by the pod's systemd as the app's main process.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::app::{self, Event, Readiness};
use stage1::appc::AcName;
use stage1::{Result, cli};

/// Joins the mount namespace of the app APP, confines itself and executes the app's command, as the launch record says;
/// or runs the app's handlers of an event in the same way.
#[derive(argh::FromArgs)]
struct AppExec {
    /// run the handlers of this event instead: pre-start or post-stop
    #[argh(option)]
    event: Option<Event>,
    /// wait for the time of the app's next restart instead
    #[argh(switch)]
    back_off: bool,
    /// wait for the apps that this app starts after instead
    #[argh(switch)]
    r#await: bool,
    /// run the app's health check instead
    #[argh(switch)]
    health: bool,
    /// leave it to the app to report that it is ready (sd_notify)
    #[argh(switch)]
    notify: bool,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
    /// the app's name
    #[argh(positional)]
    app: AcName,
}

impl cli::Tool for AppExec {
    const NAME: &'static str = "app-exec";
    const SWITCHES: &'static [&'static str] = &["await", "back-off", "debug", "health", "notify"];
    const IN_POD: bool = true;

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        if self.back_off {
            app::back_off(&self.app)?;
            return Ok(0);
        }
        if self.r#await {
            app::await_others(&self.app)?;
            return Ok(0);
        }
        if self.health {
            app::check_health(&self.app)?;
            return Ok(0);
        }
        if let Some(event) = self.event {
            app::run_handlers(&self.app, event)?;
            return Ok(0);
        }
        match app::exec(&self.app, if self.notify { Readiness::Told } else { Readiness::Executed })? {}
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<AppExec>()
}
