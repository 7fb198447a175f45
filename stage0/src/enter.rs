//! Running a command in a pod.

use std::convert::Infallible;
use std::ffi::OsString;

use stage1::appc::AcName;
use stage1::error::{Error, Result};

use crate::apps;
use crate::entrypoint::{Entrypoint, Stage1};
use crate::pods::{Pod, running_pid};
use crate::store::Store;

/// Replaces this process by the enter entrypoint, which runs the command and ends as it does.
///
/// # Errors
/// The pod does not run, it has no such app, or the entrypoint can't be executed.
pub fn enter(store: &Store, pod: &Pod, app: Option<&AcName>, command: &[OsString]) -> Result<Infallible> {
    if command.is_empty() {
        return Err(Error::new("no command was given"));
    }
    let pid = running_pid(pod)?;
    if let Some(app) = app {
        apps::must_have(pod, app)?;
    }
    let mut args = vec![OsString::from(format!("--pid={pid}"))];
    if let Some(app) = app {
        args.push(format!("--appname={app}").into());
    }
    args.push("--".into());
    args.extend(command.iter().cloned());
    Stage1::of(store, pod.dir())?.exec(Entrypoint::Enter, &args, &[])
}
