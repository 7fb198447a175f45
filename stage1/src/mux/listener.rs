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

#[cfg(test)]
mod tests {
    use super::super::poller::Poller;
    use super::*;
    use crate::cross::in_child;
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket_with};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use std::os::fd::AsRawFd;

    #[test]
    fn nobody_stays_in_the_queue_for_want_of_a_descriptor() {
        let tmp = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(tmp.path().join("s")).unwrap();
        let socket = || socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        let at = socket();
        bind(&at, &address).unwrap();
        listen(&at, 16).unwrap();
        let callers: Vec<OwnedFd> = (0..8).map(|_| socket()).collect();
        callers.iter().for_each(|caller| connect(caller, &address).unwrap());
        // The limit is the child's alone.
        in_child(Instant::now() + Duration::from_secs(10), || {
            let mut listener = Listener::new(Watched::new(&Poller::new()?, at, 0));
            let mut spare = Spare::new()?;
            let next = nothing().context(|| "open")?.as_raw_fd() as u64;
            let limit = getrlimit(Resource::Nofile);
            setrlimit(Resource::Nofile, Rlimit { current: Some(next), ..limit }).context(|| "setrlimit")?;
            let (mut taken, mut refused) = (Vec::new(), 0);
            loop {
                match listener.accept(&mut spare, true)? {
                    Call::Taken(socket) => taken.push(socket),
                    Call::Refused(_) => refused += 1,
                    Call::Nobody => break,
                }
                spare.fill();
            }
            assert_eq!((taken.len(), refused, spare.0.len()), (SPARE - 1, 8 - (SPARE - 1), 1));
            drop(taken);
            spare.fill();
            assert_eq!(spare.0.len(), SPARE);
            Ok(())
        })
        .unwrap();
    }
}
