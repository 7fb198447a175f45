//! The end of a pod, and what it leaves on the host. Host side.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::app;
use crate::cgroup::PodCgroup;
use crate::cross::Target;
use crate::error::{Context, Error, Result};
use crate::pod::{Pod, remove_if_there};
use crate::streams::call;
use crate::sys::{dir, process, signal};

/// How long an orderly end may take at least: apps that say nothing of it get systemd's 90 seconds.
const ORDERLY: Duration = Duration::from_secs(120);
/// How long the kernel may take to end what was killed.
const KILLED: Duration = Duration::from_secs(20);

/// What the rest of an orderly end may take, beyond the apps.
const REST: Duration = Duration::from_secs(30);

/// How long an orderly end of the pod in the directory `pod` may take: two minutes, or what its apps say they need.
pub fn time_to_end(pod: &Path) -> Duration {
    let declared = |pod: &Pod| {
        let timeouts = pod.manifest.apps.iter().map(|app| app::stop_timeout(&pod.app(&app.name)?));
        // one app's words that can't be read say nothing of the others'
        timeouts.filter_map(|timeout| timeout.ok().flatten()).max().unwrap_or_default()
    };
    let longest = Pod::load(pod).map(|pod| declared(&pod)).unwrap_or_else(|error| {
        log::debug!("stop timeouts: {}", error.one_line());
        Duration::ZERO
    });
    // an app's end, the end of what it leaves behind, its handlers; all apps at the same time
    ORDERLY.max(longest.saturating_mul(3).saturating_add(REST))
}

/// Tells the monitor of the pod in the current directory that somebody ends the pod in order: how its apps end from
/// now on is no failure of theirs, and the monitor does not wait without end for whoever reads the output of `run`. A
/// monitor that has ended needs not be told.
fn announce() {
    if let Err(error) = call::from_host(&[call::STOP]) {
        log::debug!("{}", error.one_line());
    }
}

/// Has the pod's monitor order its systemd to stop all apps and end, orders it once more in case the monitor can't, and
/// waits for that.
///
/// # Errors
/// When the pod is still there after [`time_to_end`].
pub fn in_order(target: &Target) -> Result<()> {
    announce();
    target.kill(signal::systemd_halt())?;
    wait(target, time_to_end(Path::new(".")), "use --force to end it at once")
}

/// Ends every process of the pod at once, and waits until they are gone. What a freezer holds is thawed: on cgroup v1
/// it would not even die.
///
/// # Errors
/// They do not end in time.
pub fn at_once(target: &Target) -> Result<()> {
    target.kill(Signal::KILL)?;
    if process::pidfd_wait_end(target.pidfd(), Duration::from_millis(100))? {
        return Ok(());
    }
    if let Err(error) = PodCgroup::recorded(Path::new(".")).and_then(|cgroup| cgroup.thaw()) {
        log::warn!("{}", error.one_line());
    }
    wait(target, KILLED, "a process of it may hang in the kernel")
}

/// Continues the monitor of the pod in the current directory, if it was stopped (SIGSTOP): a pod has ended
/// when its monitor has. The monitor is the parent of PID 1, and works in the pod's directory.
///
/// # Errors
/// It can't be looked at.
pub fn wake_monitor() -> Result<()> {
    let Some(pid) = crate::pod::read_pid(Path::new("."))? else { return Ok(()) };
    let Some(monitor) = parent(pid)? else { return Ok(()) };
    let Ok(pidfd) = process::pidfd_open(monitor) else { return Ok(()) };
    // by number: it counts only if it still has that number when its directory has been looked at
    let its = dir::open_dir(format!("/proc/{monitor}/cwd"));
    let is_monitor =
        its.is_ok_and(|its| dir::open_dir(".").and_then(|own| dir::same_file(&its, &own)).unwrap_or(false));
    if is_monitor { process::pidfd_kill(&pidfd, Signal::CONT) } else { Ok(()) }
}

/// The parent of a process, from /proc/PID/stat: proc_pid_stat(5). `None` if there is no such process.
fn parent(pid: i32) -> Result<Option<i32>> {
    let path = format!("/proc/{pid}/stat");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(_) => return Ok(None),
    };
    // the second field is the name, in parentheses, whatever is in it
    let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
    parent.context(|| format!("{path} has no parent in it")).map(Some)
}

fn wait(target: &Target, timeout: Duration, hint: &str) -> Result<()> {
    if process::pidfd_wait_end(target.pidfd(), timeout)? {
        return Ok(());
    }
    Err(Error::new(format!("the pod has not ended within {} seconds: {hint}", timeout.as_secs())))
}

/// Has the ended pod in the current directory leave its networks, and removes its cgroups. What is gone already is not an error.
/// `local_config` is the host manager's configuration directory.
///
/// # Errors
/// Something could not be removed; all else is.
pub fn remove_remains(uuid: &str, local_config: &Path) -> Result<()> {
    remove_remains_of(Path::new("."), &crate::pod::check_uuid(uuid)?, local_config)
}

/// The same for the ended pod in the directory `pod`.
///
/// # Errors
/// A network could not be left, or a cgroup not removed; the rest is done.
pub fn remove_remains_of(pod: &Path, uuid: &str, local_config: &Path) -> Result<()> {
    // The cgroups first: after that no process of the pod uses a network.
    let parts = [
        remove_cgroups(pod, uuid),
        crate::net::leave(pod, uuid, local_config),
        remove_journal_link(Path::new(HOST_JOURNAL), uuid),
    ];
    let failed: Vec<String> = parts.into_iter().filter_map(|part| Some(part.err()?.one_line())).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
}

fn remove_cgroups(pod: &Path, uuid: &str) -> Result<()> {
    match PodCgroup::recorded(pod) {
        Ok(recorded) => recorded.remove(uuid)?,
        // A pod that was cut off before it wrote the file, or while it did, has its cgroup where we always make it.
        Err(error) if error.errno() == Some(libc::ENOENT) => {}
        Err(error) => log::warn!("{}", error.one_line()),
    }
    PodCgroup::of(uuid)?.remove(uuid)
}

/// Where the host's journals are, if it has any.
const HOST_JOURNAL: &str = "/var/log/journal";

/// Removes a link there to the pod's journal. Our `run` makes none: the host's tools would then read what the pod
/// writes; but somebody may have wanted that.
fn remove_journal_link(journals: &Path, uuid: &str) -> Result<()> {
    let link = journals.join(uuid.replace('-', ""));
    match link.symlink_metadata() {
        Ok(stat) if stat.is_symlink() => remove_if_there(&link),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(|| format!("stat {link:?}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_to_this_pods_journal_is_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let uuid = "01234567-89ab-cdef-0123-456789abcdef";
        let [mine, other] = ["0123456789abcdef0123456789abcdef", "1123456789abcdef0123456789abcdef"];
        remove_journal_link(&tmp.path().join("none"), uuid).unwrap();
        for name in [mine, other] {
            std::os::unix::fs::symlink("/nowhere", tmp.path().join(name)).unwrap();
        }
        remove_journal_link(tmp.path(), uuid).unwrap();
        assert!(tmp.path().join(mine).symlink_metadata().is_err());
        assert!(tmp.path().join(other).symlink_metadata().is_ok());
        std::fs::create_dir(tmp.path().join(mine)).unwrap();
        remove_journal_link(tmp.path(), uuid).unwrap();
        assert!(tmp.path().join(mine).is_dir());
    }
}
