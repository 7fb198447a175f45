//! The options of a new app

use std::time::Duration;

use clap::Args;
use stage1::error::Result;

use super::duration::seconds;
use super::limits::LimitOptions;
use super::registry::PullPolicy;
use super::variable::environment;
use super::volume::mounts;
use crate::app::options::AddOptions;
use crate::cli::session::Session;
use crate::poddir::insecure::Insecure;

/// An app that is to be.
#[derive(Args, Debug)]
pub struct NewApp {
    /// An image of the store (its name, its id, or the start of its id), or of a registry
    pub image: String,
    /// Pull the image from its registry when
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pull: PullPolicy,
    /// Name the app (default: from the image's name)
    #[arg(long)]
    pub name: Option<String>,
    /// Run this program instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    exec: Option<String>,
    /// Set a variable of the app's environment
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Run it as this user: a name, a number, or a path in the image, for its owner
    #[arg(long, allow_hyphen_values = true)]
    user: Option<String>,
    /// Run it with this group
    #[arg(long, allow_hyphen_values = true)]
    group: Option<String>,
    /// Add a group, by number
    #[arg(long = "supplementary-gid", value_name = "GID")]
    supplementary_gids: Vec<u32>,
    /// Start it in this directory
    #[arg(long, value_name = "DIR")]
    working_dir: Option<String>,
    #[command(flatten)]
    limits: LimitOptions,
    /// Make its root file system read-only
    #[arg(long)]
    readonly_rootfs: bool,
    /// Ask it to end by this signal: SIGINT, RTMIN+3, 10 (default: SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Kill it this long after that signal: seconds, or 5m, 1h30m; 0 kills it at once (default: 10)
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    stop_timeout: Option<Duration>,
    /// Restart it when it ends: no, on-failure, always (default: no)
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Connect its standard input to: null, stream, tty, interactive (default: null)
    #[arg(long, value_name = "MODE")]
    stdin: Option<String>,
    /// Connect its standard output to: log, null, stream, tty, interactive (default: log)
    #[arg(long, value_name = "MODE")]
    stdout: Option<String>,
    /// Connect its standard error to the same
    #[arg(long, value_name = "MODE")]
    stderr: Option<String>,
    /// Write its output to this file, too, below the pod's --k8s-log-dir
    #[arg(long, value_name = "PATH")]
    k8s_log_path: Option<String>,
    /// Mount a volume of the pod: volume=NAME,target=PATH
    #[arg(long = "mount", value_name = "MOUNT")]
    mounts: Vec<String>,
    /// Pass these arguments instead of the image's
    #[arg(last = true, value_name = "ARG")]
    pub args: Vec<String>,
}

impl NewApp {
    /// What it is to be. Its image is fetched, if it has to be.
    ///
    /// # Errors
    /// The first option that makes no sense; or the image can't be fetched.
    pub fn options(self, session: &Session) -> Result<AddOptions> {
        let options = AddOptions {
            image: self.image,
            name: self.name,
            exec: self.exec,
            args: self.args,
            env: environment(&self.env)?,
            user: self.user,
            group: self.group,
            supplementary_gids: self.supplementary_gids,
            working_dir: self.working_dir,
            isolators: self.limits.isolators()?,
            read_only_rootfs: self.readonly_rootfs,
            mounts: mounts(&self.mounts)?,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            restart: self.restart,
            streams: [self.stdin, self.stdout, self.stderr],
            k8s_log_path: self.k8s_log_path,
            insecure: Insecure::default(),
            debug: session.debug,
        };
        // last: what makes no sense costs no time
        Ok(AddOptions { image: self.pull.obtain(session, &options.image)?, ..options })
    }
}
