//! The name of a pod's cgroup, and the pod as a scope of the host's systemd: systemd.scope(5). Host side.
//!
//! If the host's PID 1 is systemd, it is the only writer of the cgroups below the root. So it is asked for a scope with
//! `Delegate=yes`. It removes the scope's cgroup when the last process has ended; an empty slice of the same name stays
//! until the pod's remains are removed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::systemd::{Client, JobResult, PRIVATE_SOCKET, Value, is_no_such_unit};

/// The slice in which the host's systemd has containers and virtual machines: systemd.special(7).
pub(super) const MACHINES: &str = "machine.slice";
/// Timeout for calls to the host's systemd.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A UUID, escaped for the name of a unit: systemd-escape(1).
pub(super) fn escaped(uuid: &str) -> String {
    uuid.replace('-', "\\x2d")
}

/// Name of a pod's scope and of its cgroup, on hosts without systemd too: host managers of the rkt family expect it.
pub(super) fn name(uuid: &str) -> String {
    format!("machine-rkt\\x2d{}.scope", escaped(uuid))
}

/// Whether PID 1 of this process's PID namespace is a systemd with a private socket: sd_booted(3).
pub(super) fn host_has_systemd() -> bool {
    let is_systemd = std::fs::read_to_string("/proc/1/comm").is_ok_and(|name| name.trim_end() == "systemd");
    is_systemd && Path::new("/run/systemd/system").is_dir() && Path::new(PRIVATE_SOCKET).exists()
}

/// The cgroup of the slice that stays when the scope with the cgroup `path` has ended. By its name it is below
/// `machine.slice`, whatever slice the scope is in.
pub(super) fn marker(path: &Path) -> PathBuf {
    let name = path.with_extension("slice");
    Path::new(MACHINES).join(name.file_name().unwrap_or_default())
}

/// The slice that contains the cgroup `path` of a pod's scope; `None` if its parent is not a slice.
pub(super) fn slice(path: &Path) -> Option<&str> {
    path.parent()?.file_name()?.to_str().filter(|name| name.ends_with(".slice"))
}

/// Has the host's systemd make the slice that stays, and the scope with the cgroup `path` and the process `pid` in it.
///
/// # Errors
/// systemd refuses it, or has not finished after 30 s.
pub(super) fn start(path: &Path, pid: i32) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline)?;
    let described = ("Description", Value::Text("Pod, until its remains are removed".to_owned()));
    make(&mut systemd, &marker(path), &[described], deadline)?;
    let pid = u32::try_from(pid).context(|| format!("PID {pid}"))?;
    let properties = [
        ("Description", Value::Text("Pod".to_owned())),
        ("Slice", Value::Text(slice(path).unwrap_or(MACHINES).to_owned())),
        ("Delegate", Value::Bool(true)),
        ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        ("PIDs", Value::Numbers(vec![pid])),
    ];
    make(&mut systemd, path, &properties, deadline)
}

/// Has systemd make the unit with the cgroup `path`.
fn make(systemd: &mut Client, path: &Path, properties: &[(&str, Value)], deadline: Instant) -> Result<()> {
    let name = unit(path);
    done("start", &name, systemd.start_transient_unit(&name, properties, deadline)?)
}

/// Sets properties of the scope with the cgroup `path`.
///
/// # Errors
/// The host's systemd refuses one, or does not answer within 30 s.
pub(super) fn set_properties(path: &Path, properties: &[(&str, Value)]) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    Client::connect(Path::new(PRIVATE_SOCKET), deadline)?.set_properties(&unit(path), properties, deadline)
}

/// Has the host's systemd stop the scope with the cgroup `path`, which has no process any more, and the slice that has
/// stayed. A unit that systemd does not know is not an error.
///
/// # Errors
/// systemd refuses it, or has not finished after 30 s.
pub(super) fn forget(path: &Path) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline)?;
    for name in [unit(path), unit(&marker(path))] {
        match systemd.stop_unit(&name, deadline) {
            Err(error) if is_no_such_unit(&error) => {}
            result => done("stop", &name, result?)?,
        }
    }
    Ok(())
}

fn unit(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn done(verb: &str, name: &str, result: JobResult) -> Result<()> {
    match result {
        JobResult::Done => Ok(()),
        result => Err(Error::new(format!("{verb} {name}: the job of the host's systemd ended with {result:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_familys() {
        let name = name("01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(name, r"machine-rkt\x2d01234567\x2d89ab\x2d4def\x2d8123\x2d456789abcdef.scope");
        let stays = marker(&Path::new(MACHINES).join(name));
        assert_eq!(unit(&stays), r"machine-rkt\x2d01234567\x2d89ab\x2d4def\x2d8123\x2d456789abcdef.slice");
    }
}
