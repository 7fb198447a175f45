//! What an app writes on its way to the pod's journal. Pod side.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::NAMES;
use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::layout;

/// What the kernel may hold of a stream when journald is slow, in bytes: as much as systemd asks for.
const SEND_BUFFER: usize = 8 << 20;

/// The level at which a standard stream is logged, "info" or "error", which tells them apart.
fn priority(name: &str) -> u8 {
    if name == NAMES[2] { 3 } else { 6 }
}

/// Opens a stream to journald for what `app` writes to its standard stream `name`.
///
/// # Errors
/// journald can't be reached.
pub(crate) fn stream(app: &AcName, name: &str) -> Result<UnixStream> {
    let shown = || format!("connect to {}", layout::JOURNAL_STREAM);
    let mut socket = UnixStream::connect(layout::JOURNAL_STREAM).context(shown)?;
    socket.shutdown(Shutdown::Read).context(shown)?;
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER).context(shown)?;
    socket.write_all(greeting(app, name).as_bytes()).context(shown)?;
    Ok(socket)
}

/// How a stream starts: who writes, its unit and level; whether lines may say another level, and whether they are
/// for syslog, for the kernel's log, and for the console too.
fn greeting(app: &AcName, name: &str) -> String {
    format!("{app}\n{}\n{}\n0\n0\n0\n1\n", layout::app_unit(app), priority(name))
}

/// A stream of the multiplexer that goes to the journal as well. As an app itself would, the multiplexer waits for
/// journald when that is slow.
#[derive(Debug)]
pub(super) struct Journal {
    app: AcName,
    name: &'static str,
    /// From the first byte of a run of the app to its end.
    socket: Option<UnixStream>,
    failed: bool,
}

impl Journal {
    pub(super) fn of(app: &AcName, name: &'static str) -> Self {
        Self { app: app.clone(), name, socket: None, failed: false }
    }

    /// Passes output on. An app does not end for want of a journal: it is said once.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        match self.try_write(bytes) {
            Ok(()) => self.failed = false,
            Err(error) => {
                self.socket = None;
                if !self.failed {
                    log::warn!("{} is not in the journal any more: {}", self.name, error.one_line());
                }
                self.failed = true;
            }
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut socket = match self.socket.take() {
            Some(socket) => socket,
            None => stream(&self.app, self.name)?,
        };
        socket.write_all(bytes).context(|| "write to the journal")?;
        self.socket = Some(socket);
        Ok(())
    }

    /// The output has ended: so has its last line.
    pub(super) fn finish(&mut self) {
        self.socket = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_starts_as_journald_expects() {
        let app = "db-1".parse().unwrap();
        assert_eq!(greeting(&app, "stderr"), "db-1\napp-db-1.service\n3\n0\n0\n0\n1\n");
        assert_eq!(greeting(&app, "stdout"), "db-1\napp-db-1.service\n6\n0\n0\n0\n1\n");
    }
}
