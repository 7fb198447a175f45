//! What the monitor waits for: epoll(7), one descriptor for all of them.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::error::{Context, Result};

pub(super) use rustix::event::epoll::EventFlags as Interest;

/// The most events that are taken at a time.
const EVENTS: usize = 64;

/// Waits for all that is watched by it.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

impl Poller {
    pub(super) fn new() -> Result<Rc<Self>> {
        epoll::create(epoll::CreateFlags::CLOEXEC).context(|| "epoll_create").map(|fd| Rc::new(Self(fd)))
    }

    /// Readable when something has happened.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What has happened, without waiting: which tokens, and what.
    pub(super) fn take(&self) -> Result<Vec<(u64, Interest)>> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); EVENTS];
        let now = Timespec::try_from(Duration::ZERO).context(|| "no time")?;
        match epoll::wait(&self.0, &mut events, Some(&now)) {
            Ok((ready, _)) => Ok(ready.iter().map(|event| (event.data.u64(), event.flags)).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(errno).context(|| "epoll_wait"),
        }
    }
}

/// A descriptor that can be waited for, until it is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    poller: Rc<Poller>,
    fd: OwnedFd,
    token: u64,
    /// What is waited for; `None`: not even for an end.
    interest: Cell<Option<Interest>>,
}

impl Watched {
    pub(super) fn new(poller: &Rc<Poller>, fd: OwnedFd, token: u64) -> Self {
        Self { poller: Rc::clone(poller), fd, token, interest: Cell::new(None) }
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// Waits for these; an end or an error comes in any case, unless it is `None`.
    pub(super) fn watch(&self, interest: Option<Interest>) -> Result<()> {
        let before = self.interest.replace(interest);
        if before == interest {
            return Ok(());
        }
        let data = epoll::EventData::new_u64(self.token);
        match (before, interest) {
            (None, Some(flags)) => epoll::add(&self.poller.0, &self.fd, data, flags),
            (Some(_), Some(flags)) => epoll::modify(&self.poller.0, &self.fd, data, flags),
            (_, None) => epoll::delete(&self.poller.0, &self.fd),
        }
        .context(|| "epoll_ctl")
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Closing it is not enough: a child may have the same file open, for a moment.
        if self.interest.get().is_some()
            && let Err(errno) = epoll::delete(&self.poller.0, &self.fd)
        {
            log::debug!("epoll_ctl(DEL): {errno}");
        }
    }
}
