//! `app-add`: adds an app to a running pod. Host side.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::app::Addition;
use stage1::appc::AcName;
use stage1::boot::IdShift;
use stage1::cross::Target;
use stage1::pod::{self, InsecureOptions};
use stage1::{Result, cli};

/// Makes the app APP, which the pod manifest lists and whose rootfs is in place, startable.
#[derive(argh::FromArgs)]
struct AppAdd {
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

impl cli::Tool for AppAdd {
    const NAME: &'static str = "app-add";
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
        addition.add(&target)?;
        Ok(0)
    }
}

fn main() -> ExitCode {
    cli::run::<AppAdd>()
}
