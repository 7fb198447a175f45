//! Where somebody may connect. Whoever does is taken, or is told why not, also when this process has no descriptor
//! left: a caller who stays in the queue would wake it again and again. Host side.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::poller::{Interest, Watched};
use crate::error::{Context, Result};

/// Descriptors that are kept for callers when the apps have all others.
const SPARE: usize = 4;
/// How long callers wait when the whole system has no room for one.
const REST: Duration = Duration::from_millis(100);

/// Descriptors that are kept for callers. The last one is for those who are only told that there is none.
#[derive(Debug)]
pub(super) struct Spare(Vec<File>);

impl Spare {
    /// # Errors
    /// There is not even one descriptor.
    pub(super) fn new() -> Result<Self> {
        let mut spare = Self(vec![nothing().context(|| "keep a descriptor for callers")?]);
        spare.fill();
        Ok(spare)
    }

    /// Keeps again what was lent, as far as there are descriptors.
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

/// What comes of a call.
#[derive(Debug)]
pub(super) enum Call {
    /// Nobody calls.
    Nobody,
    /// It can be talked to.
    Taken(OwnedFd),
    /// It has the last descriptor, for as long as it takes to say so.
    Refused(OwnedFd),
}

/// Where somebody may connect.
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

    /// Waits for callers, or does not for a while; until when.
    pub(super) fn arm(&mut self, now: Instant) -> Result<Option<Instant>> {
        self.rests_until = self.rests_until.filter(|until| *until > now);
        self.socket.watch(self.rests_until.is_none().then_some(Interest::IN))?;
        Ok(self.rests_until)
    }

    /// Takes one caller. `lends`: it may have a spare descriptor.
    ///
    /// # Errors
    /// The socket is broken.
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
