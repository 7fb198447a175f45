//! What an app reads from one endpoint: what clients have sent, until the app takes it. Host side.

use rustix::io::Errno;

use super::poller::Watched;
use crate::error::{Context, Result};

/// The input of an app.
#[derive(Debug)]
pub(super) struct Input {
    /// Closed once the end of the input was asked for.
    pub(super) sink: Option<Watched>,
    /// The end of the input can be passed on by closing the sink.
    pub(super) ends_by_close: bool,
    /// An app runs, and reads.
    pub(super) reader: bool,
    pub(super) pending: Vec<u8>,
    pub(super) written: usize,
    /// The client whose input was read last; the others come first next time.
    pub(super) last: Option<usize>,
}

impl Input {
    pub(super) fn new(ends_by_close: bool) -> Self {
        Self { sink: None, ends_by_close, reader: false, pending: Vec::new(), written: 0, last: None }
    }

    /// Whether there is an app that reads.
    pub(super) fn is_read(&self) -> bool {
        self.reader && self.sink.is_some()
    }

    /// Whether it can take more from a client.
    pub(super) fn takes(&self) -> bool {
        self.is_read() && self.pending.is_empty()
    }

    /// Writes what can be written of what a client has sent.
    pub(super) fn write(&mut self) -> Result<()> {
        let Some(sink) = &self.sink else { return Ok(()) };
        while self.written < self.pending.len() {
            match rustix::io::write(sink, &self.pending[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // The app has ended: what it has not read is dropped.
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
