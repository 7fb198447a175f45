//! The cgroup of a command in an app that does not run: a scope of the pod's systemd with the limits and the device
//! policy of the app's unit. Pod side.

use std::path::Path;

use crate::app::deadline;
use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::systemd::{Client, JobResult, PRIVATE_SOCKET, Value};

/// SIGKILL: the command ends with the pod, as it would with its app.
const STOP_SIGNAL: i32 = 9;

/// Makes the pod's systemd move this process, which is in the pod's namespaces, to a new scope with these limits: see
/// [`crate::unit::installed_limits`].
///
/// # Errors
/// systemd refuses, or this process is not in the scope afterwards.
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

/// Whether this process is in the scope, by the unified hierarchy, in which every pod's systemd tracks processes:
/// cgroups(7).
fn check(name: &str) -> Result<()> {
    let text = std::fs::read_to_string("/proc/self/cgroup").context(|| "read /proc/self/cgroup")?;
    let place = text.lines().find_map(|line| line.strip_prefix("0::"));
    if place.is_some_and(|place| place.ends_with(&format!("/{name}"))) {
        return Ok(());
    }
    Err(Error::new(format!("this process is not in {name}: {text:?}")))
}
