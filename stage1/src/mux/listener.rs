//! A listening socket of the monitor. A caller is accepted, or told why not, also when this process has no descriptor
//! left: a caller that stayed in the queue would wake the monitor again and again. Host side.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::poller::{Interest, Watched};
use crate::error::{Context, Result};

/// How many descriptors are kept for callers when the apps have all others.
const SPARE: usize = 4;
/// How long the monitor does not accept callers when the whole system has no descriptor left.
const REST: Duration = Duration::from_millis(100);

/// Descriptors that are kept for callers. The last one is for callers that are only told that there is none.
#[derive(Debug)]
pub(super) struct Spare(Vec<File>);

impl Spare {
    /// Opens the descriptors.
    ///
    /// # Errors
    /// Not even one can be opened.
    pub(super) fn new() -> Result<Self> {
        let mut spare = Self(vec![nothing().context(|| "keep a descriptor for callers")?]);
        spare.fill();
        Ok(spare)
    }

    /// Opens those again that were given away, as far as there are descriptors.
    pub(super) fn fill(&mut self) {
        while self.0.len() < SPARE {
            match nothing() {
                Ok(file) => self.0.push(file),
                Err(_) => return,
            }
        }
    }
}

fn nothing() -> std::io::Result<File> {
    File::open("/dev/null")
}

/// The result of accepting.
#[derive(Debug)]
pub(super) enum Call {
    /// No caller waits.
    Nobody,
    /// A caller was accepted.
    Taken(OwnedFd),
    /// A caller was accepted with the last descriptor: tell it so, and close the connection.
    Refused(OwnedFd),
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Watched,
    rests_until: Option<Instant>,
}

impl Listener {
    pub(super) fn new(socket: Watched) -> Self {
        Self { socket, rests_until: None }
    }

    pub(super) fn token(&self) -> u64 {
        self.socket.token()
    }

    /// Tells epoll(7) to wait for callers, unless the listener rests. Returns when the rest ends.
    pub(super) fn arm(&mut self, now: Instant) -> Result<Option<Instant>> {
        self.rests_until = self.rests_until.filter(|until| *until > now);
        self.socket.watch(self.rests_until.is_none().then_some(Interest::IN))?;
        Ok(self.rests_until)
    }

    /// Accepts one caller. If `lends`, the caller may get a spare descriptor.
    ///
    /// # Errors
    /// accept(2) fails for a reason other than a lack of descriptors or memory.
    pub(super) fn accept(&mut self, spare: &mut Spare, lends: bool) -> Result<Call> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let mut last = false;
        loop {
            match accept_with(&self.socket, flags) {
                Ok(socket) if last => return Ok(Call::Refused(socket)),
                Ok(socket) => return Ok(Call::Taken(socket)),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(Call::Nobody),
                Err(Errno::MFILE) if spare.0.pop().is_some() => last = spare.0.is_empty() || !lends,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.rests_until = Some(Instant::now() + REST);
                    return Ok(Call::Nobody);
                }
                Err(errno) => return Err(errno).context(|| "accept"),
            }
        }
    }
}
