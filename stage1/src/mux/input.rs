//! An app's input at one endpoint: what clients have sent and the app has not read yet. Host side.

use rustix::io::Errno;

use super::poller::Watched;
use crate::error::{Context, Result};

/// The input of an app.
#[derive(Debug)]
pub(super) struct Input {
    /// The pipe or terminal; `None` once the end of the input was passed on.
    pub(super) sink: Option<Watched>,
    /// Closing the sink passes the end of the input on.
    pub(super) ends_by_close: bool,
    /// The app runs, and has not closed its input.
    pub(super) reader: bool,
    pub(super) pending: Vec<u8>,
    pub(super) written: usize,
    /// The index of the client whose input was read last; the others come first next time.
    pub(super) last: Option<usize>,
}

impl Input {
    pub(super) fn new(ends_by_close: bool) -> Self {
        Self { sink: None, ends_by_close, reader: false, pending: Vec::new(), written: 0, last: None }
    }

    /// Whether the app reads.
    pub(super) fn is_read(&self) -> bool {
        self.reader && self.sink.is_some()
    }

    /// Whether more can be read from a client.
    pub(super) fn takes(&self) -> bool {
        self.is_read() && self.pending.is_empty()
    }

    /// Writes what a client has sent, as far as the app reads it.
    pub(super) fn write(&mut self) -> Result<()> {
        let Some(sink) = &self.sink else { return Ok(()) };
        while self.written < self.pending.len() {
            match rustix::io::write(sink, &self.pending[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // The app has ended: drop what it has not read.
                Err(Errno::PIPE | Errno::IO) => {
                    self.reader = false;
                    break;
                }
                Err(errno) => return Err(errno).context(|| "write the app's input"),
            }
        }
        self.pending.clear();
        self.written = 0;
        Ok(())
    }
}
