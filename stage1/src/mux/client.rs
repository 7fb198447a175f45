//! A client that is attached to an endpoint: its output, how fast it must read, how it learns of the app's end. Host
//! side.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use rustix::termios::Winsize;

use super::client_limits::{DEAD, HOLD, LEAST};
use super::poller::Watched;
use super::ring::Ring;
use crate::error::{Context, Result};
use crate::streams::PASSED_ON;

/// The least room, in bytes, for which an app's output is read: a client that reads a few bytes at a time would cause
/// as many small reads otherwise.
pub(super) const READ_LEAST: u64 = 4096;
/// How long a client may take to close its connection after it was told the end.
pub(super) const FAREWELL: Duration = Duration::from_secs(10);

/// An attached client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: Watched,
    /// It is the caller of `run`: it is never dropped, and stays from one run of the app to the next.
    pub(super) resident: bool,
    /// The position in the stream of the next byte for it.
    pub(super) cursor: u64,
    /// The position where the stream ends for it, once the app has ended.
    pub(super) until: Option<u64>,
    /// When the monitor told it the app's end, by shutdown(2).
    pub(super) told: Option<Instant>,
    /// It may still send, or something that it sent was not read yet.
    pub(super) sends: bool,
    /// It has closed its connection.
    pub(super) hung_up: bool,
    /// When it last read something, or had read everything.
    pub(super) progress: Instant,
    /// Since when the app waits for it, and its position at that time.
    pub(super) full: Option<(Instant, u64)>,
    pub(super) gone: bool,
    /// The size of its window, if it has sent one.
    pub(super) size: Option<Winsize>,
}

impl Client {
    /// A client at the start of the stream. `sends` says that the endpoint has an input.
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

    /// Whether it gets what the app writes from now on.
    pub(super) fn is_live(&self) -> bool {
        self.until.is_none() && !self.hung_up && !self.gone
    }

    /// Whether there is output that was not sent to it yet.
    pub(super) fn waits_for(&self, ring: &Ring) -> bool {
        self.told.is_none() && !self.hung_up && self.cursor < self.until.unwrap_or(ring.written())
    }

    /// Sends it output until it has everything or its socket is full.
    pub(super) fn send(&mut self, ring: &Ring) {
        if self.cursor < ring.oldest() && !self.gone {
            // The ring has overwritten its next byte, which happens only to a client that is being dropped.
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
                    // What it sent before it closed the connection is still to be read.
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

    /// Notes that `lag` bytes of at most `capacity` are queued for it.
    pub(super) fn keep_account(&mut self, lag: u64, capacity: u64, now: Instant) {
        let is_full = lag > capacity - READ_LEAST;
        match self.full {
            _ if lag == 0 => self.full = None,
            Some((since, _)) if !is_full && now >= since + HOLD => self.full = None,
            None if is_full => self.full = Some((now, self.cursor)),
            // It is slow, but reads enough not to be dropped.
            Some((_, then)) if self.cursor - then >= LEAST => self.full = is_full.then_some((now, self.cursor)),
            _ => {}
        }
    }

    /// When it is dropped, unless it reads before. `is_ahead` says that no other client has read more.
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

/// Whether the peer of a socket has closed it, not only shut it down for writing.
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
