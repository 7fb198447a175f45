//! The options of a new app

use clap::Args;
use stage1::error::Result;

use super::duration::seconds;
use super::limits::Limits;
use super::registry::When;
use super::variable::environment;
use super::volume::mounts;
use crate::app::options::AddOptions;
use crate::cli::session::Session;
use crate::poddir::insecure::Insecure;

/// An app that is to be.
#[derive(Args, Debug)]
pub struct NewApp {
    /// An image of the store (its name, its id, or the start of it), or one that a registry has
    pub image: String,
    /// When to fetch the image from its registry
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pull: When,
    /// What to call the app (else as the image is called)
    #[arg(long)]
    pub name: Option<String>,
    /// The program to run, instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    exec: Option<String>,
    /// A variable of the app's environment
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The user it runs as: a name, a number, or a path in the image whose owner is meant
    #[arg(long, allow_hyphen_values = true)]
    user: Option<String>,
    /// The group it runs as
    #[arg(long, allow_hyphen_values = true)]
    group: Option<String>,
    /// A further group, by number
    #[arg(long = "supplementary-gid", value_name = "GID")]
    supplementary_gids: Vec<u32>,
    /// The directory it starts in
    #[arg(long, value_name = "DIR")]
    working_dir: Option<String>,
    #[command(flatten)]
    limits: Limits,
    /// Its root file system can't be written to
    #[arg(long)]
    readonly_rootfs: bool,
    /// The signal that asks it to end: SIGINT, RTMIN+3, 10 (else SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How long it then has to end before it is killed: seconds, or 5m, 1h30m; 0 to kill it at once (else 10)
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    stop_timeout: Option<u32>,
    /// Whether to start it again when it has ended: no, on-failure, always
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Its standard input: null, stream, tty, interactive (else null)
    #[arg(long, value_name = "MODE")]
    stdin: Option<String>,
    /// Its standard output: log, null, stream, tty, interactive (else log)
    #[arg(long, value_name = "MODE")]
    stdout: Option<String>,
    /// Its standard error, likewise
    #[arg(long, value_name = "MODE")]
    stderr: Option<String>,
    /// Its log file, below the pod's --k8s-log-dir, for all that it writes
    #[arg(long, value_name = "PATH")]
    k8s_log_path: Option<String>,
    /// Mount a volume of the pod: volume=NAME,target=PATH
    #[arg(long = "mount", value_name = "MOUNT")]
    mounts: Vec<String>,
    /// Arguments, instead of the image's
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
