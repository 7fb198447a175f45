//! epoll(7) for the monitor.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::error::{Context, Result};

pub(super) use rustix::event::epoll::EventFlags as Interest;

/// The most events that one call returns.
const EVENTS: usize = 64;

/// An epoll instance.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

impl Poller {
    pub(super) fn new() -> Result<Rc<Self>> {
        epoll::create(epoll::CreateFlags::CLOEXEC).context(|| "epoll_create").map(|fd| Rc::new(Self(fd)))
    }

    /// The descriptor to poll: readable when a watched descriptor is ready.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The tokens of the descriptors that are ready, and what each is ready for. Does not wait.
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

/// A descriptor that a [`Poller`] can watch until it is dropped.
#[derive(Debug)]
pub(super) struct Watched {
    poller: Rc<Poller>,
    fd: OwnedFd,
    token: u64,
    /// What is watched for; `None` if nothing, not even an end.
    interest: Cell<Option<Interest>>,
}

impl Watched {
    pub(super) fn new(poller: &Rc<Poller>, fd: OwnedFd, token: u64) -> Self {
        Self { poller: Rc::clone(poller), fd, token, interest: Cell::new(None) }
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// Watches for `interest`, and for an end and an error in any case; for nothing if it is `None`.
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
        // Closing is not enough: a forked child may have the same open file for a moment.
        if self.interest.get().is_some()
            && let Err(errno) = epoll::delete(&self.poller.0, &self.fd)
        {
            log::debug!("epoll_ctl(DEL): {errno}");
        }
    }
}
