//! Somebody who is attached to an endpoint: what it gets, how fast it has to take it, how it is told the end. Host side.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use rustix::termios::Winsize;

use super::bounds::{DEAD, HOLD, LEAST};
use super::poller::Watched;
use super::ring::Ring;
use crate::error::{Context, Result};
use crate::streams::PASSED_ON;

/// Less than this is not read from the app at a time, in bytes: what clients have taken bit by bit comes together.
pub(super) const READ_LEAST: u64 = 4096;
/// How long a client may take to close its connection when it has been told the end.
pub(super) const FAREWELL: Duration = Duration::from_secs(10);

/// Somebody who is attached.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: Watched,
    /// It is the caller of `run`: never dropped, and there from one run of the app to the next.
    pub(super) resident: bool,
    /// What it gets next.
    pub(super) cursor: u64,
    /// What it does not get any more: the app has ended.
    pub(super) until: Option<u64>,
    /// When it has been told the end.
    pub(super) told: Option<Instant>,
    /// It may send something, or there is something of it that was not read.
    pub(super) sends: bool,
    /// It has closed its side altogether.
    pub(super) hung_up: bool,
    /// When it last took something, or had nothing to take.
    pub(super) progress: Instant,
    /// Since when the app has waited for it, and what it got next then.
    pub(super) full: Option<(Instant, u64)>,
    pub(super) gone: bool,
    /// The size of its window, if it has said one.
    pub(super) size: Option<Winsize>,
}

impl Client {
    /// One that has got all up to `cursor`. `sends`: the app has an input.
    pub(super) fn new(socket: Watched, resident: bool, sends: bool) -> Self {
        Self {
            socket,
            resident,
            cursor: 0,
            until: None,
            told: None,
            sends,
            hung_up: false,
            progress: Instant::now(),
            full: None,
            gone: false,
            size: None,
        }
    }

    /// Whether what the app writes is for it.
    pub(super) fn is_live(&self) -> bool {
        self.until.is_none() && !self.hung_up && !self.gone
    }

    /// Whether there is something for it that it has not got.
    pub(super) fn waits_for(&self, ring: &Ring) -> bool {
        self.told.is_none() && !self.hung_up && self.cursor < self.until.unwrap_or(ring.written())
    }

    /// Sends what there is for it, as much as it takes.
    pub(super) fn send(&mut self, ring: &Ring) {
        if self.cursor < ring.oldest() && !self.gone {
            // It was overtaken, which is only let happen to those that were to go anyway.
            self.gone = true;
        }
        while !self.gone && !self.hung_up && self.told.is_none() {
            let mut bytes = ring.since(self.cursor);
            if let Some(until) = self.until {
                bytes = &bytes[..bytes.len().min(usize::try_from(until - self.cursor).unwrap_or(usize::MAX))];
            }
            if bytes.is_empty() {
                if self.until.is_some() {
                    self.tell_end();
                }
                self.progress = Instant::now();
                return;
            }
            match rustix::net::send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.cursor += count as u64;
                    self.progress = Instant::now();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // What it has sent before it went is still to be read.
                    self.hung_up = true;
                    self.gone = !self.sends;
                }
            }
        }
    }

    pub(super) fn tell_passed_on(&mut self) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if rustix::net::send(&self.socket, &[PASSED_ON], flags).is_err() {
            self.gone = true;
        }
        self.tell_end();
    }

    pub(super) fn tell_end(&mut self) {
        if self.told.is_some() {
            return;
        }
        self.told = Some(Instant::now());
        if rustix::net::shutdown(&self.socket, Shutdown::Write).is_err() {
            self.gone = true;
        }
    }

    /// `lag` bytes of at most `capacity` wait for it.
    pub(super) fn keep_account(&mut self, lag: u64, capacity: u64, now: Instant) {
        let is_full = lag > capacity - READ_LEAST;
        match self.full {
            _ if lag == 0 => self.full = None,
            Some((since, _)) if !is_full && now >= since + HOLD => self.full = None,
            None if is_full => self.full = Some((now, self.cursor)),
            // It is slow, but not so slow that it would have to go.
            Some((_, then)) if self.cursor - then >= LEAST => self.full = is_full.then_some((now, self.cursor)),
            _ => {}
        }
    }

    /// When it is to be dropped, as it is now; `is_ahead`: of all clients.
    pub(super) fn deadline(&self, is_ahead: bool) -> Option<Instant> {
        if self.resident {
            return None;
        }
        if let Some(told) = self.told {
            return Some(told + FAREWELL);
        }
        if self.until.is_some() {
            return Some(self.progress + FAREWELL);
        }
        let (since, _) = self.full?;
        Some(if is_ahead { self.progress.max(since) + DEAD } else { since + HOLD })
    }
}

/// Whether the other side of a socket is closed altogether, not only for writing.
pub(super) fn has_hung_up(socket: impl AsFd) -> Result<bool> {
    poll_now(socket, PollFlags::empty()).map(|ready| ready.contains(PollFlags::POLLHUP))
}

pub(super) fn is_readable(fd: impl AsFd) -> Result<bool> {
    poll_now(fd, PollFlags::POLLIN).map(|ready| ready.contains(PollFlags::POLLIN))
}

fn poll_now(fd: impl AsFd, events: PollFlags) -> Result<PollFlags> {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(fds[0].revents().unwrap_or(PollFlags::empty())),
        Err(errno) => Err(errno).context(|| "poll"),
    }
}
