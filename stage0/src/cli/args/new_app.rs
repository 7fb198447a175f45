//! The options of a new app

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Context, Error, Result};

use super::bind;
use super::duration::seconds;
use super::extras::Extras;
use super::health::HealthArgs;
use super::limits::LimitOptions;
use super::registry::PullPolicy;
use super::user;
use super::variable::environment;
use super::volume::mounts;
use crate::app::groups::ImageGroups;
use crate::app::options::AddOptions;
use crate::cli::args::candidates::an_image;
use crate::cli::session::Session;

/// The options of a new app.
#[derive(Args, Debug)]
pub struct NewApp {
    /// An image of the store (its name, its id, or the start of its id), or of a registry
    #[arg(add = an_image())]
    pub image: String,
    /// When to pull the image from its registry
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pull: PullPolicy,
    /// Name the app (default: from the image's name)
    #[arg(long, value_name = "NAME")]
    pub name: Vec<String>,
    #[command(flatten)]
    pub how: HowToRunIt,
}

/// The options of how an app is run.
#[derive(Args, Debug)]
pub struct HowToRunIt {
    /// Run this program instead of the image's
    #[arg(long, alias = "entrypoint", value_name = "PROGRAM")]
    exec: Option<String>,
    /// Set a variable of the app's environment; without =VALUE, to the caller's value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Set the environment variables of this file: NAME=VALUE, one on each line
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Run it as this user (a name, a number, or the owner of a path in the image) and group. Without a group, it gets
    /// those of the image's /etc/passwd and /etc/group
    #[arg(short, long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    user: Option<String>,
    /// Run it with this group
    #[arg(long, allow_hyphen_values = true)]
    group: Option<String>,
    /// Add a supplementary group, by number
    #[arg(long = "supplementary-gid", value_name = "GID")]
    supplementary_gids: Vec<u32>,
    /// Take its groups from the image's /etc/passwd and /etc/group (default: all for a --user without a group)
    #[arg(long, value_enum, value_name = "WHICH")]
    image_groups: Option<ImageGroups>,
    /// Start it in this directory
    #[arg(short, long, alias = "workdir", value_name = "DIR")]
    working_dir: Option<String>,
    #[command(flatten)]
    limits: LimitOptions,
    /// Make its root file system read-only
    #[arg(long, alias = "read-only")]
    readonly_rootfs: bool,
    /// Stop it by this signal: SIGINT, RTMIN+3, 10 (default: SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Kill it this long after the stop signal: seconds, or 5m, 1h30m; 0 kills it at once (default: 10)
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    stop_timeout: Option<Duration>,
    /// Restart it when it ends: no, on-failure[:TIMES], always, unless-stopped (default: no). It waits 1 s, 2 s, 4 s
    /// and so on up to 5 min before each restart, and 1 s again after the app ran for 10 min
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Give up on it after this many restarts in a row
    #[arg(long, value_name = "TIMES", requires = "restart")]
    restart_limit: Option<u32>,
    #[command(flatten)]
    health: HealthArgs,
    /// Start it only after another app of the pod has started, is healthy, or has ended with 0
    #[arg(long, value_name = "APP[:started|:healthy|:exited]", value_delimiter = ',')]
    after: Vec<String>,
    /// Connect its standard input to: null, stream, tty, interactive (default: null)
    #[arg(long, value_name = "MODE")]
    stdin: Option<String>,
    /// Connect its standard output to: log, null, stream, tty, interactive (default: log)
    #[arg(long, value_name = "MODE")]
    stdout: Option<String>,
    /// Connect its standard error to the same kinds as --stdout (default: log)
    #[arg(long, value_name = "MODE")]
    stderr: Option<String>,
    /// Also write its output to this file, below the pod's --k8s-log-dir
    #[arg(long, value_name = "PATH")]
    k8s_log_path: Option<String>,
    /// Mount a volume of the pod: volume=NAME,target=PATH
    #[arg(long = "mount", value_name = "MOUNT")]
    mounts: Vec<String>,
    /// Mount a path of the host, a volume of the pod, or a named volume, which is made if it does not exist:
    /// HOSTPATH:PATH[:ro], NAME:PATH[:ro]. A path of the host also takes private, slave (the app sees the host's later
    /// mounts below it; default for a writable mount), shared (the host sees the app's mounts, too), and
    /// ro,bind-recursive=writable (mounts below it keep their own flags): -v /mnt:/mnt:slave
    #[arg(short = 'v', value_name = "SOURCE:PATH")]
    binds: Vec<String>,
    #[command(flatten)]
    extras: Extras,
    /// Pass these arguments instead of the image's
    #[arg(last = true, value_name = "ARG")]
    pub args: Vec<String>,
}

impl NewApp {
    /// Converts the options, and pulls the image as `--pull` says.
    ///
    /// # Errors
    /// An option is invalid, or the image can't be pulled or is not in the store.
    pub fn options(self, session: &Session) -> Result<AddOptions> {
        let image = image_word(&self.image)?;
        let options = AddOptions { name: one_name(self.name)?, ..self.how.options(session)? };
        // last, so that an invalid option is reported before a pull
        Ok(AddOptions { image: self.pull.obtain(session, &image)?, ..options })
    }
}

impl HowToRunIt {
    /// Converts the options to those of an app, still without an image.
    ///
    /// # Errors
    /// An option is invalid.
    pub fn options(self, session: &Session) -> Result<AddOptions> {
        let (mut mounts, mut binds) = (mounts(&self.mounts)?, Vec::new());
        for text in &self.binds {
            match bind::mount(text)? {
                bind::Source::Host(mount) => mounts.push(mount),
                bind::Source::Named(bind) => binds.push(bind),
            }
        }
        mounts.extend(self.extras.mounts()?);
        let (user, group) = user::identity(self.user, self.group)?;
        let mut options = AddOptions {
            image: String::new(),
            image_id: None,
            name: None,
            exec: self.exec,
            args: self.args,
            command: Vec::new(),
            secrets: self.extras.secrets()?,
            annotations: self.extras.annotations()?,
            user_labels: self.extras.labels()?,
            user_annotations: self.extras.user_annotations()?,
            env: environment(&self.env_file, &self.env)?,
            user,
            group,
            supplementary_gids: self.supplementary_gids,
            image_groups: self.image_groups,
            working_dir: self.working_dir,
            isolators: self.limits.isolators()?,
            read_only_rootfs: self.readonly_rootfs,
            mounts,
            binds,
            image_mounts: Vec::new(),
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            restart: self.restart,
            restart_limit: self.restart_limit,
            health: self.health.options()?,
            after: self.after.iter().map(|text| text.parse()).collect::<Result<_>>().context(|| "--after")?,
            streams: [self.stdin, self.stdout, self.stderr],
            k8s_log_path: self.k8s_log_path,
            insecure: InsecureOptions::default(),
            debug: session.debug,
        };
        self.extras.add_devices(&mut options)?;
        Ok(options)
    }
}

/// The options for another image of an existing app.
#[derive(Args, Debug)]
pub struct OtherImage {
    /// Use this image (default: the app's current one)
    #[arg(long, value_name = "IMAGE", add = an_image())]
    image: Option<String>,
    /// When to pull that image from its registry
    #[arg(long, value_enum, default_value = "missing", value_name = "WHEN")]
    pull: PullPolicy,
}

impl OtherImage {
    /// Pulls the image as `--pull` says. Returns its word for the store; the empty text without `--image`.
    ///
    /// # Errors
    /// The image can't be pulled or is not in the store.
    pub fn obtain(self, session: &Session) -> Result<String> {
        self.image.map_or_else(|| Ok(String::new()), |image| self.pull.obtain(session, &image_word(&image)?))
    }
}

/// The image's name without `docker://`.
///
/// # Errors
/// The text has another transport of skopeo.
fn image_word(text: &str) -> Result<String> {
    if let Some(rest) = text.strip_prefix("docker://") {
        return Ok(rest.to_owned());
    }
    let other = ["oci:", "oci-archive:", "docker-archive:", "dir:", "containers-storage:", "docker-daemon:"];
    match other.into_iter().find(|prefix| text.starts_with(prefix)) {
        Some(prefix) => Err(Error::new(format!(
            "{text:?}: podctl cannot run images from {prefix}; \"podctl image import FILE\" takes it into the store"
        ))),
        None => Ok(text.to_owned()),
    }
}

/// The value of `--name`.
///
/// # Errors
/// `--name` was given more than once.
pub(super) fn one_name(mut names: Vec<String>) -> Result<Option<String>> {
    let name = names.pop();
    if names.is_empty() { Ok(name) } else { Err(Error::new("--name is given twice for one app or one pod")) }
}
