//! Running a command in a pod: the options of `podctl enter` and `podctl app exec`

use std::ffi::OsString;

use clap::Args;
use stage1::appc::AcName;
use stage1::error::Result;

use super::session::Session;
use crate::entrypoint::enter;
use crate::poddir::find::Pod;

/// How a command is run in a pod, and which.
#[derive(Args, Debug)]
pub struct How {
    /// The user it runs as: a name, a number, or a path in the image whose owner is meant; and the group
    #[arg(long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    user: Option<String>,
    /// A variable of its environment
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The directory it starts in
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// With all capabilities and without a seccomp filter, to look into what the app can't do
    #[arg(long)]
    privileged: bool,
    /// Whether it gets a terminal; -t alone is for always
    #[arg(
        short, long, value_enum, default_value = "auto", default_missing_value = "always", num_args = 0..=1,
        require_equals = true, value_name = "WHEN"
    )]
    tty: Tty,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// When a command gets a terminal.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Tty {
    /// If podctl has one
    Auto,
    /// In any case
    Always,
    /// In no case
    Never,
}

impl How {
    /// Replaces this process by the command's companion.
    pub fn enter(self, session: &Session, pod: &Pod, app: Option<&AcName>) -> Result<()> {
        let (user, group) = match self.user {
            Some(both) => match both.split_once(':') {
                Some((user, group)) => (Some(user.to_owned()), Some(group.to_owned())),
                None => (Some(both), None),
            },
            None => (None, None),
        };
        let options = enter::Options {
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
