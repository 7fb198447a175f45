//! `prepare-app`: builds an app's namespace by hand. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::app::Addition;
use stage1::appc::AcName;
use stage1::boot::IdShift;
use stage1::cross::Target;
use stage1::pod::{self, InsecureOptions};
use stage1::{Result, cli};

/// Builds, or builds again, the mount namespace and launch record of the app APP of the pod in the current directory.
#[derive(argh::FromArgs)]
struct PrepareApp {
    /// the app's name
    #[argh(option)]
    app: AcName,
    /// the pod's UUID
    #[argh(option)]
    uuid: Option<String>,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
    /// keep all capabilities
    #[argh(switch)]
    disable_capabilities_restriction: bool,
    /// neither hide kernel paths nor make them read-only
    #[argh(switch)]
    disable_paths: bool,
    /// no system call filter
    #[argh(switch)]
    disable_seccomp: bool,
    /// user namespace, SHIFT:COUNT
    #[argh(option)]
    private_users: Option<IdShift>,
}

impl cli::Tool for PrepareApp {
    const NAME: &'static str = "prepare-app";
    const SWITCHES: &'static [&'static str] =
        &["debug", "disable-capabilities-restriction", "disable-paths", "disable-seccomp"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        self.uuid.as_deref().map(pod::check_uuid).transpose()?;
        let target = Target::of_current_dir()?;
        let insecure = InsecureOptions {
            disable_paths: self.disable_paths,
            disable_capabilities: self.disable_capabilities_restriction,
            disable_seccomp: self.disable_seccomp,
        };
        let addition = Addition { app: self.app, insecure, private_users: self.private_users };
        addition.prepare(&target)?;
        Ok(0)
    }
}

fn main() -> ExitCode {
    cli::run::<PrepareApp>()
}
