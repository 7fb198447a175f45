//! `run`: boots the prepared pod in the current directory and monitors it until it has ended. Host side.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use stage1::boot::Run as Launcher;
use stage1::confine::insecure::InsecureOptions;
use stage1::pod::RuntimeConfig;
use stage1::{Result, cli};

/// Runs the prepared pod UUID in the current directory until the pod ends, and exits with the pod's status.
#[derive(argh::FromArgs)]
struct Run {
    /// print debug messages, those of the pod's systemd too
    #[argh(switch)]
    debug: bool,
    /// allow apps to be added and removed while the pod runs
    #[argh(switch)]
    mutable: bool,
    /// give the pod's only app the caller's terminal
    #[argh(switch)]
    interactive: bool,
    /// let every app keep all capabilities
    #[argh(switch)]
    disable_capabilities_restriction: bool,
    /// do not hide kernel paths or make them read-only in any app
    #[argh(switch)]
    disable_paths: bool,
    /// install no system call filter for any app
    #[argh(switch)]
    disable_seccomp: bool,
    /// networks: host, none, all, or names with their arguments, NAME:K=V;K=V,NAME (default if not given)
    #[argh(option)]
    net: Vec<String>,
    /// token for the metadata service
    #[argh(option, default = "String::new()")]
    mds_token: String,
    /// directory of the host manager's local configuration
    #[argh(option)]
    local_config: Option<PathBuf>,
    /// user namespace, SHIFT:COUNT
    #[argh(option, default = "String::new()")]
    private_users: String,
    /// host name (rkt-UUID if not given)
    #[argh(option, default = "String::new()")]
    hostname: String,
    /// where resolv.conf and hosts come from: resolv=(host|stage0|none|default),hosts=(host|stage0|default)
    #[argh(option, default = "Default::default()")]
    dns_conf_mode: cli::DnsConfMode,
    /// IPC namespace: auto, private or parent
    #[argh(option, default = "String::new()")]
    ipc: String,
    /// the pod's UUID
    #[argh(positional)]
    uuid: String,
}

impl cli::Tool for Run {
    const NAME: &'static str = "run";
    const SWITCHES: &'static [&'static str] =
        &["debug", "mutable", "interactive", "disable-capabilities-restriction", "disable-paths", "disable-seccomp"];
    const REPEATED: &'static [&'static str] = &["net"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        let config = RuntimeConfig {
            private_users: self.private_users,
            mds_token: self.mds_token,
            hostname: self.hostname,
            debug: self.debug,
            mutable: self.mutable,
            resolv_conf_mode: self.dns_conf_mode.resolv,
            etc_hosts_mode: self.dns_conf_mode.hosts,
            net_list: cli::list(&self.net),
            interactive: self.interactive,
            insecure_options: InsecureOptions {
                disable_paths: self.disable_paths,
                disable_capabilities: self.disable_capabilities_restriction,
                disable_seccomp: self.disable_seccomp,
            },
            ipc_mode: self.ipc,
            ..RuntimeConfig::default()
        };
        Launcher { uuid: self.uuid, config, local_config: self.local_config }.run()
    }
}

fn main() -> ExitCode {
    entrypoints::run::<Run>()
}
