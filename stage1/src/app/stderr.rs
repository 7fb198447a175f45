//! What an app writes to its standard error, told apart from its output in the pod's journal. Pod side.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rustix::fs::FileType;

use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::layout;
use crate::sys::process;

/// The level at which it is logged: "error". What comes by standard output is logged as "info", 6.
const PRIORITY: u8 = 3;
/// What the kernel may hold of it when journald is slow, in bytes: as much as systemd asks for.
const SEND_BUFFER: usize = 8 << 20;

/// Gives this process, which becomes the app, a stream of its own to journald for its standard error. systemd would
/// have both outputs share one, and then nobody can tell them apart. Nothing is done if it does not go to journald.
///
/// # Errors
/// There is no such stream to be had.
pub(super) fn separate(app: &AcName) -> Result<()> {
    let stat = rustix::fs::fstat(rustix::stdio::stderr()).context(|| "fstat(stderr)")?;
    // Of all that it can be, only the journal is a socket.
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Ok(());
    }
    let shown = || format!("connect to {}", layout::JOURNAL_STREAM);
    let mut socket = UnixStream::connect(layout::JOURNAL_STREAM).context(shown)?;
    socket.shutdown(Shutdown::Read).context(shown)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER).context(shown)?;
    socket.write_all(greeting(app).as_bytes()).context(shown)?;
    process::set_standard_fd(&socket, 2)
}

/// How a stream starts: who writes, its unit and level; whether lines may say another level, and whether they are
/// for syslog, for the kernel's log, and for the console too.
fn greeting(app: &AcName) -> String {
    format!("{app}\n{}\n{PRIORITY}\n0\n0\n0\n1\n", layout::app_unit(app))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_starts_as_journald_expects() {
        assert_eq!(greeting(&"db-1".parse().unwrap()), "db-1\napp-db-1.service\n3\n0\n0\n0\n1\n");
    }
}
