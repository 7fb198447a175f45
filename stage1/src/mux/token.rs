//! The tokens that epoll(7) returns for descriptors: each names an app, a channel of it, and the job. Host side.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::poller::{Poller, Watched};

/// Makes the tokens of one channel's descriptors, each a different one.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    pub(super) poller: Rc<Poller>,
    base: u64,
    serial: Rc<Cell<u32>>,
}

/// What to do when a descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Listen,
    Source,
    Sink,
    Client,
    Peer,
    Syslog,
    Console,
}

impl Tokens {
    pub(super) fn new(poller: &Rc<Poller>, serial: &Rc<Cell<u32>>, app: u16, channel: u8) -> Self {
        Self {
            poller: Rc::clone(poller),
            base: u64::from(app) << 48 | u64::from(channel) << 40,
            serial: Rc::clone(serial),
        }
    }

    pub(super) fn token(&self, job: Job) -> u64 {
        self.serial.set(self.serial.get().wrapping_add(1));
        self.base | (job as u64) << 32 | u64::from(self.serial.get())
    }

    pub(super) fn watched(&self, fd: OwnedFd, job: Job) -> Watched {
        Watched::new(&self.poller, fd, self.token(job))
    }

    /// The app, the channel and the job of a token.
    pub(super) fn parse(token: u64) -> Option<(u16, u8, Job)> {
        let jobs = [Job::Listen, Job::Source, Job::Sink, Job::Client, Job::Peer, Job::Syslog, Job::Console];
        let [app, other, channel, job, ..] = token.to_be_bytes();
        let job = *jobs.get(usize::from(job))?;
        Some((u16::from_be_bytes([app, other]), channel, job))
    }
}
