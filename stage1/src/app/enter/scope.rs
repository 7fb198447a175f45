//! The cgroup of a command that is run in an app which does not run itself: a scope of the pod's supervisor, with the
//! limits and the device policy that the app's unit has. Pod side.

use std::path::Path;

use crate::app::deadline;
use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::systemd::{Client, JobResult, PRIVATE_SOCKET, Value};

/// SIGKILL: what is entered ends with the pod, as it would with its app.
const STOP_SIGNAL: i32 = 9;

/// Has this process, which is in the pod's namespaces, moved to a scope of its own with these limits: see
/// [`crate::unit::installed_limits`].
///
/// # Errors
/// The supervisor refuses, or this process is not in the scope afterwards.
pub(super) fn make(app: &AcName, limits: Vec<(&'static str, Value)>) -> Result<()> {
    let pid = std::process::id();
    let name = format!("entered-{app}-{pid}.scope");
    let mut properties = vec![
        ("Description", Value::Text(format!("Command in app {app}"))),
        ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        ("KillSignal", Value::I32(STOP_SIGNAL)),
        ("PIDs", Value::Numbers(vec![pid])),
    ];
    properties.extend(limits);
    let start = || {
        let deadline = deadline();
        let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline)?;
        match systemd.start_transient_unit(&name, &properties, deadline)? {
            JobResult::Done => check(&name),
            result => Err(Error::new(format!("systemd's job ended with {result:?}"))),
        }
    };
    start().context(|| format!("app {app} does not run, and no cgroup like its own can be had"))
}

/// Whether this process is in the scope, by the unified hierarchy, in which the supervisor of every pod follows its
/// processes: cgroups(7).
fn check(name: &str) -> Result<()> {
    let text = std::fs::read_to_string("/proc/self/cgroup").context(|| "read /proc/self/cgroup")?;
    let place = text.lines().find_map(|line| line.strip_prefix("0::"));
    if place.is_some_and(|place| place.ends_with(&format!("/{name}"))) {
        return Ok(());
    }
    Err(Error::new(format!("this process is not in {name}: {text:?}")))
}
