//! One endpoint of a multiplexer: its socket, its clients, the app's output, the app's input. Pod side.
//!
//! Nothing here waits: [`Channel::watch`] says what to wait for, [`Channel::handle`] does what can be done.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};

use super::journal::Journal;
use super::k8s::{self, Lines, Log};
use super::ring::Ring;
use super::{BUFFER, DEAD, HOLD, LEAST, PASSED_ON, PIPE, REPLAY};
use crate::error::{Context, Result};

/// Less than this is not read from the app at a time, in bytes: what clients have taken bit by bit comes together.
const READ_LEAST: u64 = 4096;
/// The most that a client's input may be read at a time, in bytes.
const INPUT: usize = 64 << 10;
/// How many times in a row a client's input is read while others wait.
const TURNS: usize = 16;
/// How long a client may take to close its connection when it has been told the end.
const FAREWELL: Duration = Duration::from_secs(10);

/// What one thing that is waited for is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Listen,
    Source,
    Sink,
    Client(usize),
}

/// An endpoint.
#[derive(Debug)]
pub(super) struct Channel {
    name: &'static str,
    listener: OwnedFd,
    /// No descriptor was left for another client: until one goes.
    full: bool,
    clients: Vec<Client>,
    pub(super) output: Option<Output>,
    pub(super) input: Option<Input>,
}

/// What the app writes.
#[derive(Debug)]
pub(super) struct Output {
    source: OwnedFd,
    ring: Ring,
    /// Whether there is an end of the output to wait for.
    reading: bool,
    /// The last run has ended and no other one has begun.
    ended: bool,
    /// What clients have got at most: of this nothing is replayed.
    delivered: u64,
    /// The app's part of its log file.
    lines: Option<Lines>,
    /// Where it goes besides.
    journal: Option<Journal>,
}

/// What the app reads.
#[derive(Debug)]
pub(super) struct Input {
    /// Closed once the end of the input was asked for.
    pub(super) sink: Option<OwnedFd>,
    /// The end of the input can be passed on by closing the sink.
    ends_by_close: bool,
    /// Somebody reads: an app runs.
    pub(super) reader: bool,
    pending: Vec<u8>,
    written: usize,
    /// Whose input was read last: it is the others' turn.
    last: Option<usize>,
}

/// Somebody who is attached.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// What it gets next.
    cursor: u64,
    /// What it does not get any more: the app has ended.
    until: Option<u64>,
    /// When it has been told the end.
    told: Option<Instant>,
    /// It may send something, or there is something of it that was not read.
    sends: bool,
    /// It has closed its side altogether.
    hung_up: bool,
    /// When it last took something, or had nothing to take.
    progress: Instant,
    /// Since when the app has waited for it, and what it got next then.
    full: Option<(Instant, u64)>,
    gone: bool,
}

impl Channel {
    pub(super) fn new(name: &'static str, listener: OwnedFd, output: Option<Output>, input: Option<Input>) -> Self {
        Self { name, listener, full: false, clients: Vec::new(), output, input }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What to wait for.
    pub(super) fn watch(&self) -> Vec<(Job, BorrowedFd<'_>, PollFlags)> {
        let mut all = Vec::with_capacity(self.clients.len() + 3);
        if !self.full {
            all.push((Job::Listen, self.listener.as_fd(), PollFlags::POLLIN));
        }
        if let Some(output) = &self.output
            && output.reading
            && self.room() >= READ_LEAST
        {
            all.push((Job::Source, output.source.as_fd(), PollFlags::POLLIN));
        }
        let takes_input = self.input.as_ref().is_some_and(Input::takes);
        if let Some(input) = &self.input
            && let Some(sink) = &input.sink
            && input.reader
        {
            // In any case for the reader's going.
            let events = if takes_input { PollFlags::empty() } else { PollFlags::POLLOUT };
            all.push((Job::Sink, sink.as_fd(), events));
        }
        let clients = self.clients.iter().enumerate();
        for (index, client) in clients.filter(|(_, client)| takes_input || !client.hung_up) {
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, client.sends && takes_input);
            events.set(PollFlags::POLLOUT, self.output.as_ref().is_some_and(|output| client.waits_for(output)));
            // In any case for the client's going.
            all.push((Job::Client(index), client.socket.as_fd(), events));
        }
        all
    }

    /// How much may be read from the app: what every client can still take.
    fn room(&self) -> u64 {
        let Some(output) = &self.output else { return 0 };
        let waiting = self.clients.iter().filter(|client| client.is_live());
        let most = waiting.map(|client| output.ring.written() - client.cursor).max().unwrap_or(0);
        output.ring.capacity() - most
    }

    /// Does what [`Self::watch`] has waited for.
    pub(super) fn handle(&mut self, job: Job, ready: PollFlags, log: &mut Option<Log>) -> Result<()> {
        match job {
            Job::Listen => self.accept(log),
            Job::Source => self.read_output(log),
            Job::Sink => self.write_input(ready),
            Job::Client(index) => {
                if ready.contains(PollFlags::POLLIN) {
                    self.read_input(index)?;
                } else if ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
                    // What it has sent before it went may have to wait until the app has room for it.
                    let client = &mut self.clients[index];
                    client.hung_up = true;
                    client.gone = !(client.sends && self.input.as_ref().is_some_and(Input::is_read));
                }
                if let Some(output) = &self.output {
                    self.clients[index].send(output);
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self, log: &mut Option<Log>) -> Result<()> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                log::warn!("{}: no more clients can be taken", self.name);
                self.full = true;
                return Ok(());
            }
            Err(errno) => return Err(errno).context(|| format!("accept({})", self.name)),
        };
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, BUFFER).context(|| "setsockopt(SO_SNDBUF)")?;
        let mut client = Client {
            socket,
            cursor: 0,
            until: None,
            told: None,
            sends: self.input.is_some(),
            hung_up: false,
            progress: Instant::now(),
            full: None,
            gone: false,
        };
        let attended = self.clients.iter().any(Client::is_live);
        if !attended {
            self.catch_up(log)?;
        }
        if let Some(output) = &mut self.output {
            let ring = &output.ring;
            client.cursor = match attended {
                true => ring.written(),
                false => output.delivered.max(ring.written().saturating_sub(REPLAY)).max(ring.oldest()),
            };
            client.until = output.ended.then(|| ring.written());
            client.send(output);
        }
        self.clients.push(client);
        Ok(())
    }

    fn read_output(&mut self, log: &mut Option<Log>) -> Result<()> {
        let room = self.room();
        let Some(output) = &mut self.output else { return Ok(()) };
        let before = output.ring.written();
        let source = &output.source;
        match output.ring.fill(room, |place| rustix::io::read(source, place)) {
            // A FIFO without writers, a terminal that nobody has open.
            Ok(0) | Err(Errno::IO) => return self.end(log),
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(errno) => return Err(errno).context(|| format!("read({})", self.name)),
        }
        if let (Some(lines), Some(log)) = (&mut output.lines, log.as_mut()) {
            log.write(&lines.take(output.ring.since(before), k8s::now()));
        }
        if let Some(journal) = &mut output.journal {
            journal.write(output.ring.since(before));
        }
        for client in &mut self.clients {
            client.send(output);
        }
        Ok(())
    }

    /// The app has closed its side.
    fn end(&mut self, log: &mut Option<Log>) -> Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        output.reading = false;
        output.ended = true;
        if let (Some(lines), Some(log)) = (&mut output.lines, log.as_mut()) {
            log.write(&lines.finish());
        }
        if let Some(journal) = &mut output.journal {
            journal.finish();
        }
        for client in &mut self.clients {
            client.until.get_or_insert(output.ring.written());
            client.send(output);
        }
        Ok(())
    }

    /// An app is about to start.
    pub(super) fn begin(&mut self) {
        if let Some(output) = &mut self.output {
            output.reading = true;
            output.ended = false;
        }
        if let Some(input) = &mut self.input {
            input.reader = true;
            input.pending.clear();
        }
    }

    fn read_input(&mut self, index: usize) -> Result<()> {
        let (Some(input), client) = (&mut self.input, &mut self.clients[index]) else { return Ok(()) };
        for _ in 0..TURNS {
            if !input.takes() {
                return Ok(());
            }
            let mut chunk = [0; INPUT];
            let (_, count) = match rustix::net::recv(&client.socket, &mut chunk[..], RecvFlags::DONTWAIT) {
                Ok(got) => got,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(_) => {
                    client.gone = true;
                    return Ok(());
                }
            };
            if count == 0 {
                client.sends = false;
                if has_hung_up(&client.socket)? {
                    client.gone = true;
                } else if input.ends_by_close {
                    input.sink = None;
                    client.tell_passed_on();
                }
                return Ok(());
            }
            input.pending.extend(&chunk[..count]);
            input.last = Some(index);
            input.write()?;
        }
        Ok(())
    }

    fn write_input(&mut self, ready: PollFlags) -> Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        if ready.contains(PollFlags::POLLOUT) {
            input.write()?;
        }
        if ready.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) {
            // The app has ended, or reads no more.
            input.reader = false;
        }
        if !input.reader && self.output.is_none() {
            self.clients.iter_mut().for_each(Client::tell_end);
        }
        Ok(())
    }

    /// Removes the clients that have gone or have to go; says when to look again at the latest.
    pub(super) fn tidy(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut look_at = |time: Instant| next = Some(next.map_or(time, |other| other.min(time)));
        let ahead = self.clients.iter().filter(|client| client.is_live()).map(|client| client.cursor).max();
        if let Some(output) = &mut self.output {
            let (written, capacity) = (output.ring.written(), output.ring.capacity());
            for client in &mut self.clients {
                if client.is_live() {
                    client.keep_account(written - client.cursor, capacity, now);
                }
                let Some(deadline) = client.deadline(Some(client.cursor) == ahead) else { continue };
                if deadline <= now || client.cursor < output.ring.oldest() {
                    if client.told.is_none() {
                        log::warn!("{}: a client that did not read fast enough was dropped", self.name);
                    }
                    client.gone = true;
                } else {
                    look_at(deadline);
                }
            }
            let delivered = self.clients.iter().map(|client| client.cursor).max().unwrap_or(0);
            output.delivered = output.delivered.max(delivered);
        } else {
            for client in &mut self.clients {
                let Some(told) = client.told else { continue };
                if told + FAREWELL <= now {
                    client.gone = true;
                } else {
                    look_at(told + FAREWELL);
                }
            }
        }
        if !self.input.as_ref().is_some_and(Input::is_read) {
            // Nobody is there for what they have sent.
            self.clients.iter_mut().filter(|client| client.hung_up).for_each(|client| client.gone = true);
        }
        if let Some(last) = self.input.as_mut().and_then(|input| input.last.take()) {
            let client = self.clients.remove(last);
            self.clients.push(client);
        }
        let before = self.clients.len();
        self.clients.retain(|client| !client.gone);
        self.full &= self.clients.len() == before && before > 0;
        next
    }

    /// Whether all that was written has reached everybody.
    pub(super) fn is_quiet(&self) -> bool {
        let output = self.output.as_ref();
        self.clients.iter().all(|client| !output.is_some_and(|output| client.waits_for(output)))
    }

    /// Reads what the app has written up to now, if clients leave room for it.
    fn catch_up(&mut self, log: &mut Option<Log>) -> Result<()> {
        let start = self.output.as_ref().map_or(0, |output| output.ring.written());
        while let Some(output) = &self.output
            && output.reading
            // More than this was not there when it began.
            && output.ring.written() - start < PIPE as u64
            && is_readable(&output.source)?
            && self.room() >= READ_LEAST
        {
            self.read_output(log)?;
        }
        Ok(())
    }

    /// Tells all clients the end, before the multiplexer ends.
    pub(super) fn close(&mut self, log: &mut Option<Log>) -> Result<()> {
        self.catch_up(log)?;
        self.end(log)
    }
}

impl Output {
    pub(super) fn new(source: OwnedFd, lines: Option<Lines>, journal: Option<Journal>, reading: bool) -> Self {
        Self { source, ring: Ring::new(BUFFER), reading, ended: false, delivered: 0, lines, journal }
    }

    pub(super) fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl Input {
    pub(super) fn new(sink: Option<OwnedFd>, ends_by_close: bool, reader: bool) -> Self {
        Self { sink, ends_by_close, reader, pending: Vec::new(), written: 0, last: None }
    }

    /// Whether there is an app that reads.
    fn is_read(&self) -> bool {
        self.reader && self.sink.is_some()
    }

    /// Whether it can take something from a client.
    fn takes(&self) -> bool {
        self.is_read() && self.pending.is_empty()
    }

    /// Writes what can be written of what a client has sent.
    fn write(&mut self) -> Result<()> {
        let Some(sink) = &self.sink else { return Ok(()) };
        while self.written < self.pending.len() {
            match rustix::io::write(sink, &self.pending[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                // The app has ended, and with it what it should have read.
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

impl Client {
    /// Whether what the app writes is for it.
    fn is_live(&self) -> bool {
        self.until.is_none() && !self.hung_up && !self.gone
    }

    /// Whether there is something for it that it has not got.
    fn waits_for(&self, output: &Output) -> bool {
        self.told.is_none() && !self.hung_up && self.cursor < self.until.unwrap_or(output.ring.written())
    }

    /// Sends what there is for it, as much as it takes.
    fn send(&mut self, output: &Output) {
        let ring = &output.ring;
        if self.cursor < ring.oldest() {
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

    fn tell_passed_on(&mut self) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        if rustix::net::send(&self.socket, &[PASSED_ON], flags).is_err() {
            self.gone = true;
        }
        self.tell_end();
    }

    fn tell_end(&mut self) {
        if self.told.is_some() {
            return;
        }
        self.told = Some(Instant::now());
        if rustix::net::shutdown(&self.socket, Shutdown::Write).is_err() {
            self.gone = true;
        }
    }

    /// `lag` bytes of at most `capacity` wait for it.
    fn keep_account(&mut self, lag: u64, capacity: u64, now: Instant) {
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
    fn deadline(&self, is_ahead: bool) -> Option<Instant> {
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
fn has_hung_up(socket: &OwnedFd) -> Result<bool> {
    poll_now(socket, PollFlags::empty()).map(|ready| ready.contains(PollFlags::POLLHUP))
}

fn is_readable(fd: &OwnedFd) -> Result<bool> {
    poll_now(fd, PollFlags::POLLIN).map(|ready| ready.contains(PollFlags::POLLIN))
}

fn poll_now(fd: &OwnedFd, events: PollFlags) -> Result<PollFlags> {
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(fds[0].revents().unwrap_or(PollFlags::empty())),
        Err(errno) => Err(errno).context(|| "poll"),
    }
}
