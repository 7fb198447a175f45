//! Running a command in a pod: the options of `podctl enter` and `podctl app exec`

use std::ffi::OsString;

use clap::Args;
use stage1::appc::AcName;
use stage1::error::Result;

use super::user;
use crate::cli::session::Session;
use crate::entrypoint::enter::{self, EnterOptions};
use crate::poddir::find::Pod;

/// The command to run in a pod, and its options.
#[derive(Args, Debug)]
pub struct CommandInPod {
    /// Run it as this user (a name, a number, or a path in the image whose owner it is) and group (default: the app's;
    /// use root to do more than the app may)
    #[arg(short, long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    user: Option<String>,
    /// Set a variable of its environment
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Start it in this directory
    #[arg(short, long, alias = "working-dir", value_name = "DIR")]
    workdir: Option<String>,
    /// Run it with all capabilities and without a seccomp filter
    #[arg(long)]
    privileged: bool,
    /// Allocate a terminal when; -t alone means always
    #[arg(
        short, long, value_enum, default_value = "auto", default_missing_value = "always", num_args = 0..=1,
        require_equals = true, value_name = "WHEN"
    )]
    tty: Tty,
    /// Accepted as in other tools (-it): the command always gets the standard input
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// When a command gets a terminal.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Tty {
    /// If podctl has one
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl CommandInPod {
    /// Replaces this process with the enter entrypoint.
    ///
    /// # Errors
    /// As [`enter::enter`].
    pub fn enter(self, session: &Session, pod: &Pod, app: Option<&AcName>) -> Result<()> {
        let (user, group) = user::identity(self.user, None)?;
        let options = EnterOptions {
            user,
            group,
            environment: self.env,
            working_directory: self.workdir,
            privileged: self.privileged,
            tty: match self.tty {
                Tty::Auto => None,
                Tty::Always => Some("always"),
                Tty::Never => Some("never"),
            },
        };
        match enter::enter(&session.store, pod, app, &options, &self.command)? {}
    }
}
