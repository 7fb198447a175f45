//! Notifying systemd about an app: sd_notify(3). Pod side.

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use rustix::pipe::{PipeFlags, pipe_with};

use super::TIMEOUT;
use crate::error::{Context, Error, Result};
use crate::sys::{fd_passing, process};

/// The environment variable with the path of systemd's notification socket: sd_notify(3).
pub(super) const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// A connection to that socket; `None` if the variable is not set.
pub(super) fn supervisor() -> Result<Option<UnixDatagram>> {
    let Some(path) = std::env::var_os(NOTIFY_SOCKET) else { return Ok(None) };
    let connect = || -> std::io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&path)?;
        Ok(socket)
    };
    connect().map(Some).context(|| format!("connect to {path:?}"))
}

/// Waits until systemd has acted on all that was sent before on `supervisor`: sd_notify_barrier(3).
///
/// # Errors
/// systemd can't be told, or has not acted within [`TIMEOUT`].
pub(super) fn wait_until_heard(supervisor: &UnixDatagram) -> Result<()> {
    let (heard, barrier) = pipe_with(PipeFlags::CLOEXEC).context(|| "pipe")?;
    fd_passing::send_message(supervisor, b"BARRIER=1", &[barrier.as_fd()])
        .context(|| "send the supervisor BARRIER=1")?;
    // systemd closes its copy when it reads the message, and it reads them in order.
    drop(barrier);
    match process::wait_readable(&heard, TIMEOUT)? {
        true => Ok(()),
        false => Err(Error::new(format!("the supervisor has read no message for {} s", TIMEOUT.as_secs()))),
    }
}
