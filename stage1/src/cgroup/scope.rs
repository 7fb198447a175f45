//! The name of a pod's cgroup; and the pod as a scope of the host's own systemd, where there is one. Host side.
//!
//! A cgroup has one writer. Below the root that is the host's systemd, so it is asked for a scope that is ours
//! (`Delegate=yes`); it removes the scope's cgroup from the hierarchies it manages when nothing runs there any more. What
//! stays there until the pod's remains are removed is a slice of the same name, which has nothing in it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::systemd::{Client, JobResult, PRIVATE_SOCKET, Value, is_no_such_unit};

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

/// The cgroup that stays when the scope whose cgroup is `path` has ended.
pub(super) fn marker(path: &Path) -> PathBuf {
    path.with_extension("slice")
}

/// Has the host's systemd make the scope whose cgroup is `path`, with the process `pid` in it, and before it the slice
/// that is to stay.
///
/// # Errors
/// It refuses, or is not done in half a minute.
pub(super) fn start(path: &Path, pid: i32) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline)?;
    let described = ("Description", Value::Text("Pod, until its remains are removed".to_owned()));
    make(&mut systemd, &marker(path), &[described], deadline)?;
    let pid = u32::try_from(pid).context(|| format!("PID {pid}"))?;
    let properties = [
        ("Description", Value::Text("Pod".to_owned())),
        ("Slice", Value::Text(MACHINES.to_owned())),
        ("Delegate", Value::Bool(true)),
        ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        ("PIDs", Value::Numbers(vec![pid])),
    ];
    make(&mut systemd, path, &properties, deadline)
}

/// Has systemd make the unit whose cgroup is `path`.
fn make(systemd: &mut Client, path: &Path, properties: &[(&str, Value)], deadline: Instant) -> Result<()> {
    let name = unit(path);
    done("start", &name, systemd.start_transient_unit(&name, properties, deadline)?)
}

/// Has the host's systemd remove the scope whose cgroup is `path`, in which nothing runs any more, and the slice that has
/// stayed. What it does not know is no error.
///
/// # Errors
/// It refuses, or is not done in half a minute.
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
