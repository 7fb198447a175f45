//! The end of a pod, and what it leaves on the host. Host side.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::cgroup::PodCgroup;
use crate::cross::Target;
use crate::error::{Error, Result};
use crate::sys::{process, signal};

/// How long an orderly end may take: each app's own stop timeout, in parallel, and systemd's rest.
const ORDERLY: Duration = Duration::from_secs(120);
/// How long the kernel may take to end what was killed.
const KILLED: Duration = Duration::from_secs(20);

/// Orders the pod's systemd to stop all apps and end, and waits for that.
///
/// # Errors
/// When the pod is still there after two minutes.
pub fn in_order(target: &Target) -> Result<()> {
    target.kill(signal::systemd_halt())?;
    wait(target, ORDERLY, "use --force to end it at once")
}

/// Ends every process of the pod at once, and waits until they are gone.
pub fn at_once(target: &Target) -> Result<()> {
    target.kill(Signal::KILL)?;
    wait(target, KILLED, "a process of it may hang in the kernel")
}

fn wait(target: &Target, timeout: Duration, hint: &str) -> Result<()> {
    if process::pidfd_wait_end(target.pidfd(), timeout)? {
        return Ok(());
    }
    Err(Error::new(format!("the pod has not ended within {} seconds: {hint}", timeout.as_secs())))
}

/// Removes the cgroups of the ended pod in the current directory. Nothing to remove is no error.
pub fn remove_remains(uuid: &str) -> Result<()> {
    let uuid = crate::pod::check_uuid(uuid)?;
    match PodCgroup::recorded(Path::new(".")) {
        // A pod that was cut off before it wrote the file has its cgroup where we always make it.
        Err(error) if error.errno() == Some(libc::ENOENT) => {}
        recorded => recorded?.remove()?,
    }
    PodCgroup::of(&uuid)?.remove()
}
