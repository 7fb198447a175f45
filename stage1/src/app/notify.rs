//! Notifying systemd about an app: sd_notify(3). Pod side.

use std::os::unix::net::UnixDatagram;

use crate::error::{Context, Result};

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
