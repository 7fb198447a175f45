//! One endpoint of an app: its clients, its output and its input. Host side.
//!
//! Nothing here waits: [`Channel::arm`] tells epoll(7) what to wait for, [`Channel::handle`] handles a ready
//! descriptor.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::pipe::SpliceFlags;
use rustix::termios::Winsize;

use super::client::{Client, FAREWELL, READ_LEAST, has_hung_up, is_readable};
use super::client_limits::BUFFER;
use super::input::Input;
use super::listener::{Call, Listener};
use super::output::{Output, OutputSource};
use super::poller::{Interest, Watched};
use super::sinks::Sinks;
use super::tee::Tee;
use super::token::{Job, Tokens};
use crate::error::{Context, Result};

/// Longest read from an app, in bytes: each one may wake the app, and costs a write to its log.
pub(super) const CHUNK: usize = 256 << 10;
/// Longest read from a client, in bytes.
const INPUT_CHUNK: usize = 64 << 10;
/// The most bytes that one splice(2) moves from an app to a client: the size of an app's pipe.
const SPLICE: usize = 1 << 20;
/// How many times in a row one source is read while others may wait.
const TURNS: usize = 4;
/// The most sources of one endpoint: processes left behind by earlier runs may still write to theirs.
const SOURCES: usize = 8;
/// How many bytes are read from a terminal at an app's end while other processes still have it open: more than it
/// holds.
const TERMINAL: u64 = 64 << 10;

/// An endpoint.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: &'static str,
    tokens: Tokens,
    listener: Option<Listener>,
    clients: Vec<Client>,
    /// The token of the client whose window size the terminal has: the one that typed or connected last.
    active: Option<u64>,
    pub(super) output: Option<Output>,
    pub(super) input: Option<Input>,
}

impl Channel {
    pub(super) fn new(name: &'static str, tokens: Tokens, output: Option<Output>, input: Option<Input>) -> Self {
        Self { name, tokens, listener: None, clients: Vec::new(), active: None, output, input }
    }

    /// Accepts clients at `listener`.
    pub(super) fn listen(&mut self, listener: OwnedFd) {
        self.listener = Some(Listener::new(self.tokens.watched(listener, Job::Listen)));
    }

    /// Tells epoll(7) what to wait for next. `is_held_up` says that the output of `run` is full. Returns when a resting
    /// listener accepts again.
    pub(super) fn arm(&mut self, is_held_up: bool, now: Instant) -> Result<Option<Instant>> {
        let until = self.listener.as_mut().map(|listener| listener.arm(now)).transpose()?.flatten();
        if let Some(output) = &self.output {
            let held_up = output.shown.is_some() && is_held_up;
            let reads = !held_up && self.room() >= READ_LEAST;
            for source in &output.sources {
                source.fd.watch(reads.then_some(Interest::IN))?;
            }
        }
        let takes_input = self.input.as_ref().is_some_and(Input::takes);
        if let Some(input) = &self.input
            && let Some(sink) = &input.sink
        {
            // Even with no interest epoll reports that the reader has gone.
            let interest = if takes_input { Interest::empty() } else { Interest::OUT };
            sink.watch(input.reader.then_some(interest))?;
        }
        for client in &self.clients {
            let mut interest = Interest::empty();
            interest.set(Interest::IN, client.sends && takes_input);
            interest.set(Interest::OUT, self.output.as_ref().is_some_and(|output| client.waits_for(&output.ring)));
            // Even with no interest epoll reports that the client has gone.
            client.socket.watch((takes_input || !client.hung_up).then_some(interest))?;
        }
        Ok(until)
    }

    /// How many bytes may be read from the app: what there is room for in the queue of every client.
    fn room(&self) -> u64 {
        let Some(output) = &self.output else { return 0 };
        let waiting = self.clients.iter().filter(|client| client.is_live());
        match waiting.map(|client| output.ring.written() - client.cursor).max() {
            Some(most) => output.ring.capacity() - most,
            None => CHUNK as u64,
        }
    }

    /// Handles a descriptor that is ready.
    pub(super) fn handle(&mut self, job: Job, token: u64, ready: Interest, sinks: &mut Sinks<'_>) -> Result<()> {
        match job {
            Job::Listen => self.accept(sinks),
            Job::Source => {
                let sources = self.output.iter().flat_map(|output| &output.sources);
                match sources.map(|source| source.fd.token()).position(|other| other == token) {
                    Some(index) => self.read_output(index, sinks).map(drop),
                    None => Ok(()),
                }
            }
            Job::Sink => {
                let is_it =
                    self.input.as_ref().and_then(|input| input.sink.as_ref()).map(Watched::token) == Some(token);
                if is_it { self.write_input(ready) } else { Ok(()) }
            }
            _ => {
                let Some(index) = self.clients.iter().position(|client| client.socket.token() == token) else {
                    return Ok(());
                };
                if ready.contains(Interest::IN) {
                    self.read_input(index)?;
                } else if ready.intersects(Interest::HUP | Interest::ERR) {
                    // What the client sent before it went may have to wait until the app reads.
                    let client = &mut self.clients[index];
                    client.hung_up = true;
                    client.gone = !(client.sends && self.input.as_ref().is_some_and(Input::is_read));
                }
                if let Some(output) = &self.output {
                    self.clients[index].send(&output.ring);
                }
                Ok(())
            }
        }
    }

    fn accept(&mut self, sinks: &mut Sinks<'_>) -> Result<()> {
        let Some(listener) = &mut self.listener else { return Ok(()) };
        match listener.accept(sinks.spare, false).context(|| self.name)? {
            Call::Nobody => Ok(()),
            Call::Taken(socket) => self.admit(socket, false, sinks).map(drop),
            // The connection is closed without an answer; a client that asks the monitor for one is told the reason.
            Call::Refused(_) => Ok(()),
        }
    }

    /// Adds the client on the other end of `socket`, which is non-blocking. Returns its token.
    pub(super) fn admit(&mut self, socket: OwnedFd, resident: bool, sinks: &mut Sinks<'_>) -> Result<u64> {
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, BUFFER).context(|| "setsockopt(SO_SNDBUF)")?;
        let socket = self.tokens.watched(socket, Job::Client);
        let mut client = Client::new(socket, resident, self.input.is_some());
        let attended = self.clients.iter().any(Client::is_live);
        if !attended {
            self.catch_up(sinks)?;
        }
        if let Some(output) = &mut self.output {
            output.ring.resize(BUFFER);
            let ring = &output.ring;
            client.cursor = match attended {
                true => ring.written(),
                false => output.delivered.max(ring.written().saturating_sub(output.replay as u64)).max(ring.oldest()),
            };
            client.until = (output.ended && !resident).then(|| ring.written());
            client.send(&output.ring);
        }
        let token = client.socket.token();
        self.clients.push(client);
        Ok(token)
    }

    /// Reads one source and writes its output to the sinks. Returns whether there may be more.
    fn read_output(&mut self, index: usize, sinks: &mut Sinks<'_>) -> Result<bool> {
        let more = self.read_chunks(index, sinks);
        sinks.write_log();
        more
    }

    fn read_chunks(&mut self, index: usize, sinks: &mut Sinks<'_>) -> Result<bool> {
        let mut tee = Tee::default();
        for _ in 0..TURNS {
            if self.splice(index, sinks) {
                continue;
            }
            let room = usize::try_from(self.room()).unwrap_or(CHUNK).min(CHUNK);
            let Some(output) = &mut self.output else { return Ok(false) };
            if room == 0 || (output.shown.is_some() && sinks.console.is_full()) {
                return Ok(false);
            }
            let follower = match output.is_for_clients_only(sinks) {
                true => None,
                false => follower(output, index, &mut self.clients),
            };
            let passed_on = follower.and_then(|client| tee.pass_on(&output.sources[index].fd, &client.socket, room));
            let (room, sent) = passed_on.map_or((room, 0), |passed_on| (passed_on.seen, passed_on.sent));
            let source = &mut output.sources[index];
            let mut chunk = std::mem::take(sinks.scratch);
            let got = match passed_on {
                Some(passed_on) => passed_on.read(&source.fd, &mut chunk),
                None => rustix::io::read(&source.fd, &mut chunk[..room]),
            };
            let count = match got {
                // A pipe without writers, or a terminal that no process has open.
                Ok(0) | Err(Errno::IO) => {
                    *sinks.scratch = chunk;
                    return self.source_ended(index, sinks).map(|()| false);
                }
                Ok(count) => count,
                Err(Errno::AGAIN) => {
                    source.left = source.left.map(|_| 0);
                    *sinks.scratch = chunk;
                    return Ok(false);
                }
                Err(Errno::INTR) => 0,
                Err(errno) => return Err(errno).context(|| format!("read({})", self.name)),
            };
            source.left = source.left.map(|left| left.saturating_sub(count as u64));
            // An app that reads its own pipe may have taken some of it meanwhile.
            let sent = sent.min(count);
            let taken = output.take(&chunk[..count], sent, sinks);
            *sinks.scratch = chunk;
            for client in &mut self.clients {
                client.cursor += sent as u64;
                client.send(&output.ring);
            }
            taken?;
            if count < room {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// Moves a pipe's output to its only reader, a client, within the kernel (splice(2)). Returns whether that worked;
    /// if not, the read that follows finds the reason: no output, no room, or a client that has gone.
    fn splice(&mut self, index: usize, sinks: &Sinks<'_>) -> bool {
        let Some(output) = self.output.as_mut().filter(|output| output.is_for_clients_only(sinks)) else {
            return false;
        };
        let Some(client) = follower(output, index, &mut self.clients) else { return false };
        let source = &mut output.sources[index];
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match rustix::pipe::splice(&source.fd, None, &client.socket, None, SPLICE, flags) {
            Ok(count) if count > 0 => {
                source.left = source.left.map(|left| left.saturating_sub(count as u64));
                output.ring.skip(count);
                client.cursor = output.ring.written();
                client.progress = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Removes a source whose writers have all closed it.
    fn source_ended(&mut self, index: usize, sinks: &mut Sinks<'_>) -> Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let source = output.sources.remove(index);
        if let (true, Some(input)) = (source.is_terminal, &mut self.input)
            && !output.sources.iter().any(|source| source.is_terminal)
        {
            (input.sink, input.reader) = (None, false);
        }
        if output.sources.is_empty() {
            output.finish(sinks)?;
        }
        if source.main && !output.sources.iter().any(|source| source.main) {
            self.run_ended();
        }
        Ok(())
    }

    fn run_ended(&mut self) {
        let Some(output) = &mut self.output else { return };
        output.ended = true;
        for client in self.clients.iter_mut().filter(|client| !client.resident) {
            client.until.get_or_insert(output.ring.written());
            client.send(&output.ring);
        }
    }

    /// Takes over the ends of the streams of an app (`main`), or of a handler of it, that is about to start.
    pub(super) fn begin(
        &mut self,
        source: Option<OwnedFd>,
        sink: Option<OwnedFd>,
        main: bool,
        is_terminal: bool,
    ) -> Result<()> {
        if let (true, Some(source), Some(size)) = (is_terminal, &source, self.size()) {
            rustix::termios::tcsetwinsize(source, size).context(|| "ioctl(TIOCSWINSZ)")?;
        }
        if let (Some(output), Some(source)) = (&mut self.output, source) {
            output.ended &= !main;
            if output.sources.len() >= SOURCES {
                log::warn!(
                    "{}: too many processes of earlier runs still have it open: the oldest one's output is dropped",
                    self.name
                );
                output.sources.remove(0);
            }
            let fd = self.tokens.watched(source, Job::Source);
            output.sources.push(OutputSource { fd, main, is_terminal, left: None });
        }
        if let (Some(input), Some(sink)) = (&mut self.input, sink) {
            input.sink = Some(self.tokens.watched(sink, Job::Sink));
            input.reader = true;
            input.pending.clear();
            input.written = 0;
        }
        Ok(())
    }

    /// Notes how much output is in the pipes at the app's end; when that has been read, [`Self::is_drained`] is true.
    pub(super) fn drain(&mut self) -> Result<()> {
        for source in self.output.iter_mut().flat_map(|output| &mut output.sources) {
            source.left = Some(match source.is_terminal {
                true => TERMINAL,
                false => rustix::io::ioctl_fionread(&source.fd).context(|| "ioctl(FIONREAD)")?,
            });
        }
        Ok(())
    }

    /// Whether all output has been read that was there at [`Self::drain`].
    pub(super) fn is_drained(&self) -> bool {
        let mut sources = self.output.iter().flat_map(|output| &output.sources);
        sources.all(|source| source.left.is_none_or(|left| left == 0))
    }

    /// Reads the output that is there now, as far as there is room for it.
    pub(super) fn catch_up(&mut self, sinks: &mut Sinks<'_>) -> Result<()> {
        let mut index = 0;
        let mut turns = 0;
        while let Some(count) = self.output.as_ref().map(|output| output.sources.len())
            && index < count
        {
            let fd = &self.output.as_ref().expect("there is one").sources[index].fd;
            let more =
                turns < TURNS && is_readable(fd)? && self.room() >= READ_LEAST && self.read_output(index, sinks)?;
            turns += 1;
            let removed = self.output.as_ref().is_none_or(|output| output.sources.len() < count);
            if !more && !removed {
                index += 1;
                turns = 0;
            }
        }
        Ok(())
    }

    /// Whether every source has ended.
    pub(super) fn is_silent(&self) -> bool {
        self.output.as_ref().is_none_or(|output| output.sources.is_empty())
    }

    /// After the end of the pod: closes the sources and the input, and tells the clients the end.
    pub(super) fn close(&mut self, sinks: &mut Sinks<'_>) -> Result<()> {
        if let Some(output) = &mut self.output {
            output.sources.clear();
            output.finish(sinks)?;
            sinks.write_log();
        }
        if let Some(input) = &mut self.input {
            (input.sink, input.reader) = (None, false);
        }
        self.clients.iter_mut().for_each(|client| client.resident = false);
        self.run_ended();
        if self.output.is_none() {
            self.clients.iter_mut().for_each(Client::tell_end);
        }
        Ok(())
    }

    /// Notes a client's window size. The app's terminal gets the size of the client that was active last.
    pub(super) fn resize(&mut self, who: u64, size: Winsize) -> Result<()> {
        let Some(client) = self.clients.iter_mut().find(|client| client.socket.token() == who) else { return Ok(()) };
        let has_come = client.size.replace(size).is_none();
        let is_there = |token| self.clients.iter().any(|client| client.socket.token() == token);
        match self.active {
            Some(active) if active != who && !has_come && is_there(active) => Ok(()),
            _ => self.activate(who, size),
        }
    }

    /// Notes the window size of the terminal of `run`'s caller.
    pub(super) fn resize_resident(&mut self, size: Winsize) -> Result<()> {
        let resident = self.clients.iter().find(|client| client.resident).map(|client| client.socket.token());
        resident.map_or(Ok(()), |who| self.resize(who, size))
    }

    fn activate(&mut self, who: u64, size: Winsize) -> Result<()> {
        self.active = Some(who);
        for source in self.output.iter().flat_map(|output| &output.sources).filter(|source| source.is_terminal) {
            rustix::termios::tcsetwinsize(&source.fd, size).context(|| "ioctl(TIOCSWINSZ)")?;
        }
        Ok(())
    }

    /// The size of the active client.
    fn size(&self) -> Option<Winsize> {
        self.clients.iter().find(|client| Some(client.socket.token()) == self.active)?.size
    }

    fn read_input(&mut self, index: usize) -> Result<()> {
        for _ in 0..TURNS {
            let (Some(input), client) = (&mut self.input, &mut self.clients[index]) else { return Ok(()) };
            if !input.takes() {
                return Ok(());
            }
            let mut chunk = vec![0; INPUT_CHUNK];
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
            let (who, size) = (client.socket.token(), client.size);
            input.pending.extend(&chunk[..count]);
            input.last = Some(index);
            // The terminal has the size of this client before the app reads what it sent.
            if let Some(size) = size.filter(|_| self.active != Some(who)) {
                self.activate(who, size)?;
            }
            self.input.as_mut().map_or(Ok(()), Input::write)?;
        }
        Ok(())
    }

    fn write_input(&mut self, ready: Interest) -> Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        if ready.contains(Interest::OUT) {
            input.write()?;
        }
        if ready.intersects(Interest::ERR | Interest::HUP) {
            // The app has ended, or has closed its input.
            input.reader = false;
        }
        if !input.reader && self.output.is_none() {
            self.clients.iter_mut().for_each(Client::tell_end);
        }
        Ok(())
    }

    /// Removes clients that have left, and drops those that are too slow. Returns the next deadline.
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
            // No app reads what these clients have sent.
            self.clients.iter_mut().filter(|client| client.hung_up).for_each(|client| client.gone = true);
        }
        if let Some(last) = self.input.as_mut().and_then(|input| input.last.take()) {
            let client = self.clients.remove(last);
            self.clients.push(client);
        }
        self.clients.retain(|client| !client.gone);
        if self.clients.is_empty()
            && let Some(output) = &mut self.output
        {
            output.ring.resize(output.replay);
        }
        next
    }

    /// Whether all output has reached all clients.
    pub(super) fn is_quiet(&self) -> bool {
        let output = self.output.as_ref();
        self.clients.iter().all(|client| !output.is_some_and(|output| client.waits_for(&output.ring)))
    }
}

/// The only client, if the next bytes of a pipe are also the next for it: then they need not go through the ring.
fn follower<'a>(output: &Output, index: usize, clients: &'a mut [Client]) -> Option<&'a mut Client> {
    let [client] = clients else { return None };
    let is_next = client.is_live() && client.cursor == output.ring.written();
    (is_next && !output.sources[index].is_terminal).then_some(client)
}
