//! The name of a pod's cgroup; and the pod as a scope of the host's own systemd, where there is one. Host side.
//!
//! A cgroup has one writer. Below the root that is the host's systemd, so it is asked for a scope that is ours
//! (`Delegate=yes`); it removes the scope's cgroup from the hierarchies it manages when nothing runs there.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::systemd::{Client, JobResult, PRIVATE_SOCKET, Value};

/// Where the host's systemd has its containers and virtual machines.
pub(super) const MACHINES: &str = "machine.slice";
/// How long the host's systemd may take to make a scope.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A UUID as it is in the name of a unit: systemd-escape(1).
pub(super) fn escaped(uuid: &str) -> String {
    uuid.replace('-', "\\x2d")
}

/// The name of a pod's scope, and of its cgroup in any case: what host managers of the family look for.
pub(super) fn name(uuid: &str) -> String {
    format!("machine-rkt\\x2d{}.scope", escaped(uuid))
}

/// Whether PID 1, as seen from here, is a systemd that takes orders: sd_booted(3).
pub(super) fn host_has_systemd() -> bool {
    let is_systemd = std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim_end() == "systemd");
    is_systemd && Path::new("/run/systemd/system").is_dir() && Path::new(PRIVATE_SOCKET).exists()
}

/// Has the host's systemd make the scope whose cgroup is `path`, with the process `pid` in it.
///
/// # Errors
/// It refuses, or is not done in half a minute.
pub(super) fn start(path: &Path, pid: i32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let deadline = Instant::now() + TIMEOUT;
    let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline)?;
    let pid = u32::try_from(pid).context(|| format!("PID {pid}"))?;
    let properties = [
        ("Description", Value::Text("Pod".to_owned())),
        ("Slice", Value::Text(MACHINES.to_owned())),
        ("Delegate", Value::Bool(true)),
        ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        ("PIDs", Value::Numbers(vec![pid])),
    ];
    match systemd.start_transient_unit(&name, &properties, deadline)? {
        JobResult::Done => Ok(()),
        result => Err(Error::new(format!("start {name}: the job of the host's systemd ended with {result:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_familys() {
        let name = name("01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(name, r"machine-rkt\x2d01234567\x2d89ab\x2d4def\x2d8123\x2d456789abcdef.scope");
    }
}
