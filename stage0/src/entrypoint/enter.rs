//! Running a command in a pod or in one of its apps: the `enter` entrypoint.

use std::convert::Infallible;
use std::ffi::OsString;
use std::process::Command;

use stage1::appc::AcName;
use stage1::cli::FAILURE_CODE;
use stage1::error::{Error, Result, exit};
use stage1::launch::LaunchRecord;
use stage1::layout;

use crate::entrypoint::spawn::{Entrypoint, Stage1};
use crate::poddir::find::{Pod, running_pid};
use crate::poddir::manifest::must_have;
use crate::poddir::pause::must_go_on;
use crate::store::Store;

/// Options of [`enter`] and [`program`].
#[derive(Debug, Default)]
pub struct EnterOptions {
    /// The user, a name or number; if `None` the app's user, or UID 0 in the pod itself.
    pub user: Option<String>,
    /// The group, a name or number.
    pub group: Option<String>,
    /// Environment variables, each as `NAME=value`.
    pub environment: Vec<String>,
    /// The working directory.
    pub working_directory: Option<String>,
    /// Whether to run without the app's confinement.
    pub privileged: bool,
    /// Whether to allocate a terminal: `auto`, `always` or `never`.
    pub tty: Option<&'static str>,
}

impl EnterOptions {
    /// The flags of the enter entrypoint. Unset options are left out: another stage1 may not know their flags.
    fn flags(&self) -> Vec<OsString> {
        let option = |name: &str, value: &str| OsString::from(format!("--{name}={value}"));
        let named = [
            ("user", self.user.as_deref()),
            ("group", self.group.as_deref()),
            ("workdir", self.working_directory.as_deref()),
            ("tty", self.tty),
        ];
        let mut flags: Vec<_> = named.iter().filter_map(|(name, value)| Some(option(name, (*value)?))).collect();
        flags.extend(self.environment.iter().map(|variable| option("env", variable)));
        flags.extend(self.privileged.then(|| OsString::from("--privileged")));
        flags
    }
}

/// Replaces this process with the enter entrypoint, which runs the command and exits with its status.
///
/// # Errors
/// The command is empty, the pod does not run, is paused or has no such app, or the entrypoint can't be executed.
pub fn enter(
    store: &Store,
    pod: &Pod,
    app: Option<&AcName>,
    options: &EnterOptions,
    command: &[OsString],
) -> Result<Infallible> {
    let args = arguments(pod, app, options, command)?;
    Stage1::of(store, pod.dir())?.exec(Entrypoint::Enter, &args, &[(FAILURE_CODE, &exit::COMMAND.to_string())])
}

/// The enter entrypoint as a command to spawn. Killing it kills the command that runs inside.
///
/// # Errors
/// The command is empty, the pod does not run, is paused or has no such app, or the stage1 has no enter entrypoint.
pub fn program(
    store: &Store,
    pod: &Pod,
    app: Option<&AcName>,
    options: &EnterOptions,
    command: &[OsString],
) -> Result<Command> {
    let args = arguments(pod, app, options, command)?;
    Stage1::of(store, pod.dir())?.command(Entrypoint::Enter, &args, &[(FAILURE_CODE, &exit::COMMAND.to_string())])
}

fn arguments(pod: &Pod, app: Option<&AcName>, options: &EnterOptions, command: &[OsString]) -> Result<Vec<OsString>> {
    if command.is_empty() {
        return Err(Error::new("no command was given"));
    }
    let pid = running_pid(pod)?;
    if let Some(app) = app {
        must_have(pod, app)?;
    }
    must_go_on(pod, app)?;
    let mut args = vec![OsString::from(format!("--pid={pid}"))];
    if let Some(app) = app {
        args.push(format!("--appname={app}").into());
        if options.user.is_none() && options.group.is_none() {
            args.extend(apps_user(pod, app)?.map(|uid| OsString::from(format!("--user={uid}"))));
        }
    }
    args.extend(options.flags());
    args.push("--".into());
    args.extend(command.iter().cloned());
    Ok(args)
}

/// The UID that the app runs as. `None` for another stage1, which keeps no launch records: its enter entrypoint chooses
/// the user.
fn apps_user(pod: &Pod, app: &AcName) -> Result<Option<u32>> {
    if !pod.dir().join(layout::launch_record(app)).exists() {
        return Ok(None);
    }
    let dir = stage1::sys::dir::open_dir(pod.dir().join(layout::app_dir(app)))?;
    Ok(Some(LaunchRecord::load(dir, layout::LAUNCH)?.confinement.uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_set_options_become_flags() {
        assert!(EnterOptions::default().flags().is_empty());
        let options = EnterOptions {
            user: Some("web".to_owned()),
            environment: vec!["A=b c".to_owned(), "B=".to_owned()],
            privileged: true,
            tty: Some("always"),
            ..EnterOptions::default()
        };
        assert_eq!(options.flags(), ["--user=web", "--tty=always", "--env=A=b c", "--env=B=", "--privileged"]);
    }
}
