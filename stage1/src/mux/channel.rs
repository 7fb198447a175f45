//! One endpoint of an app: its clients, what the app writes, what it reads. Host side.
//!
//! Nothing here waits: [`Channel::arm`] says what to wait for, [`Channel::handle`] does what can be done.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::bounds::BUFFER;
use super::client::{Client, FAREWELL, READ_LEAST, has_hung_up, is_readable};
use super::console::Shown;
use super::journald::Entries;
use super::lines::Lines;
use super::listener::{Call, Listener};
use super::poller::{Interest, Poller, Watched};
use super::ring::Ring;
use super::sinks::Sinks;
use crate::error::{Context, Result};

/// The most that is read at a time, in bytes, from an app or from a client.
pub(super) const CHUNK: usize = 64 << 10;
/// How many times in a row one source is read while others wait.
const TURNS: usize = 8;
/// So many earlier runs may have left somebody behind who still writes.
const SOURCES: usize = 8;
/// What is taken of a terminal at an app's end, in bytes, while others still have it open: more than it holds.
const TERMINAL: u64 = 64 << 10;

/// Makes the tokens of what one channel waits for, each of which is given once.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    pub(super) poller: Rc<Poller>,
    base: u64,
    serial: Rc<Cell<u32>>,
}

/// What a token is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Listen,
    Source,
    Sink,
    Client,
    Talk,
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
        let jobs = [Job::Listen, Job::Source, Job::Sink, Job::Client, Job::Talk, Job::Syslog, Job::Console];
        let [app, other, channel, job, ..] = token.to_be_bytes();
        let job = *jobs.get(usize::from(job))?;
        Some((u16::from_be_bytes([app, other]), channel, job))
    }
}

/// An endpoint.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) name: &'static str,
    tokens: Tokens,
    listener: Option<Listener>,
    clients: Vec<Client>,
    pub(super) output: Option<Output>,
    pub(super) input: Option<Input>,
}

/// What the app writes.
#[derive(Debug)]
pub(super) struct Output {
    sources: Vec<Source>,
    ring: Ring,
    /// What is kept while nobody is attached, in bytes.
    replay: usize,
    /// The last run has ended and no other one has begun.
    ended: bool,
    /// What clients have got at most: of this nothing is replayed.
    delivered: u64,
    lines: Lines,
    kube: Option<Lines>,
    shown: Option<Shown>,
    entries: Option<Entries>,
}

/// Where the output of one run comes from.
#[derive(Debug)]
struct Source {
    fd: Watched,
    /// It is the app's own, not a handler's.
    main: bool,
    is_terminal: bool,
    /// The app has ended: so much was still there, and more is not waited for.
    left: Option<u64>,
}

/// What the app reads.
#[derive(Debug)]
pub(super) struct Input {
    /// Closed once the end of the input was asked for.
    sink: Option<Watched>,
    /// The end of the input can be passed on by closing the sink.
    ends_by_close: bool,
    /// Somebody reads: an app runs.
    reader: bool,
    pending: Vec<u8>,
    written: usize,
    /// Whose input was read last: it is the others' turn.
    last: Option<usize>,
}

impl Channel {
    pub(super) fn new(name: &'static str, tokens: Tokens, output: Option<Output>, input: Option<Input>) -> Self {
        Self { name, tokens, listener: None, clients: Vec::new(), output, input }
    }

    /// Takes clients that connect there.
    pub(super) fn listen(&mut self, listener: OwnedFd) {
        self.listener = Some(Listener::new(self.tokens.watched(listener, Job::Listen)));
    }

    /// Waits for all that can be done next; until when, if it is not for all. `is_held_up`: the output of `run` takes
    /// nothing more.
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
            // In any case for the reader's going.
            let interest = if takes_input { Interest::empty() } else { Interest::OUT };
            sink.watch(input.reader.then_some(interest))?;
        }
        for client in &self.clients {
            let mut interest = Interest::empty();
            interest.set(Interest::IN, client.sends && takes_input);
            interest.set(Interest::OUT, self.output.as_ref().is_some_and(|output| client.waits_for(&output.ring)));
            // In any case for the client's going.
            client.socket.watch((takes_input || !client.hung_up).then_some(interest))?;
        }
        Ok(until)
    }

    /// How much may be read from the app: what every client can still take.
    fn room(&self) -> u64 {
        let Some(output) = &self.output else { return 0 };
        let waiting = self.clients.iter().filter(|client| client.is_live());
        match waiting.map(|client| output.ring.written() - client.cursor).max() {
            Some(most) => output.ring.capacity() - most,
            None => CHUNK as u64,
        }
    }

    /// Does what [`Self::arm`] has waited for.
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
                    // What it has sent before it went may have to wait until the app has room for it.
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
            Call::Taken(socket) => self.admit(socket, false, sinks),
            // Its connection is closed: whoever asks the monitor for one is told why.
            Call::Refused(_) => Ok(()),
        }
    }

    /// Takes a client on the other end of `socket`, a non-blocking one.
    pub(super) fn admit(&mut self, socket: OwnedFd, resident: bool, sinks: &mut Sinks<'_>) -> Result<()> {
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
        self.clients.push(client);
        Ok(())
    }

    /// Reads what there is of one source; whether there may be more.
    fn read_output(&mut self, index: usize, sinks: &mut Sinks<'_>) -> Result<bool> {
        for _ in 0..TURNS {
            let room = usize::try_from(self.room()).unwrap_or(CHUNK).min(CHUNK);
            let Some(output) = &mut self.output else { return Ok(false) };
            if room == 0 || (output.shown.is_some() && sinks.console.is_full()) {
                return Ok(false);
            }
            let source = &mut output.sources[index];
            let mut chunk = std::mem::take(sinks.scratch);
            let got = rustix::io::read(&source.fd, &mut chunk[..room]);
            let count = match got {
                // A pipe without writers, a terminal that nobody has open.
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
            let taken = output.take(&chunk[..count], sinks);
            *sinks.scratch = chunk;
            taken?;
            for client in &mut self.clients {
                client.send(&output.ring);
            }
            if count < room {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// The app, or what it left behind, has closed its side.
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

    /// An app, or a handler of it, is about to start: the other ends of its streams.
    pub(super) fn begin(&mut self, source: Option<OwnedFd>, sink: Option<OwnedFd>, main: bool, is_terminal: bool) {
        if let (Some(output), Some(source)) = (&mut self.output, source) {
            output.ended &= !main;
            if output.sources.len() >= SOURCES {
                log::warn!("{}: an earlier run has left too many behind who still write", self.name);
                output.sources.remove(0);
            }
            let fd = self.tokens.watched(source, Job::Source);
            output.sources.push(Source { fd, main, is_terminal, left: None });
        }
        if let (Some(input), Some(sink)) = (&mut self.input, sink) {
            input.sink = Some(self.tokens.watched(sink, Job::Sink));
            input.reader = true;
            input.pending.clear();
            input.written = 0;
        }
    }

    /// The app has ended: what is there is still taken, and then [`Self::is_drained`].
    pub(super) fn drain(&mut self) -> Result<()> {
        for source in self.output.iter_mut().flat_map(|output| &mut output.sources) {
            source.left = Some(match source.is_terminal {
                true => TERMINAL,
                false => rustix::io::ioctl_fionread(&source.fd).context(|| "ioctl(FIONREAD)")?,
            });
        }
        Ok(())
    }

    /// Whether all was taken that was there at [`Self::drain`].
    pub(super) fn is_drained(&self) -> bool {
        let mut sources = self.output.iter().flat_map(|output| &output.sources);
        sources.all(|source| source.left.is_none_or(|left| left == 0))
    }

    /// Takes what is there now, as far as there is room for it.
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

    /// Whether nothing writes any more.
    pub(super) fn is_silent(&self) -> bool {
        self.output.as_ref().is_none_or(|output| output.sources.is_empty())
    }

    /// The pod has ended: nothing more comes, and nobody is there who reads.
    pub(super) fn close(&mut self, sinks: &mut Sinks<'_>) -> Result<()> {
        if let Some(output) = &mut self.output {
            output.sources.clear();
            output.finish(sinks)?;
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

    /// The app's terminal gets another size.
    pub(super) fn resize(&self, size: rustix::termios::Winsize) -> Result<()> {
        for source in self.output.iter().flat_map(|output| &output.sources).filter(|source| source.is_terminal) {
            rustix::termios::tcsetwinsize(&source.fd, size).context(|| "ioctl(TIOCSWINSZ)")?;
        }
        Ok(())
    }

    fn read_input(&mut self, index: usize) -> Result<()> {
        let (Some(input), client) = (&mut self.input, &mut self.clients[index]) else { return Ok(()) };
        for _ in 0..TURNS {
            if !input.takes() {
                return Ok(());
            }
            let mut chunk = vec![0; CHUNK];
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

    fn write_input(&mut self, ready: Interest) -> Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        if ready.contains(Interest::OUT) {
            input.write()?;
        }
        if ready.intersects(Interest::ERR | Interest::HUP) {
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
        self.clients.retain(|client| !client.gone);
        if self.clients.is_empty()
            && let Some(output) = &mut self.output
        {
            output.ring.resize(output.replay);
        }
        next
    }

    /// Whether all that was written has reached everybody.
    pub(super) fn is_quiet(&self) -> bool {
        let output = self.output.as_ref();
        self.clients.iter().all(|client| !output.is_some_and(|output| client.waits_for(&output.ring)))
    }
}

impl Output {
    /// `replay` bytes are kept for whoever attaches.
    pub(super) fn new(
        replay: usize,
        lines: Lines,
        kube: Option<Lines>,
        shown: Option<Shown>,
        entries: Option<Entries>,
    ) -> Self {
        let ring = Ring::new(replay);
        Self { sources: Vec::new(), ring, replay, ended: false, delivered: 0, lines, kube, shown, entries }
    }

    fn take(&mut self, bytes: &[u8], sinks: &mut Sinks<'_>) -> Result<()> {
        self.ring.push(bytes);
        let time = sinks.time();
        if let Some(log) = sinks.log.as_deref_mut() {
            self.lines.take(bytes, &time, &mut log.out);
            log.flush_if_full();
        }
        if let (Some(lines), Some(kube)) = (&mut self.kube, sinks.kube.as_deref_mut()) {
            let mut out = Vec::with_capacity(2 * bytes.len());
            lines.take(bytes, &time, &mut out);
            kube.write(&out);
        }
        if let (Some(entries), Some(journald)) = (&mut self.entries, sinks.journald.as_deref_mut()) {
            entries.take(bytes, journald);
        }
        self.shown.as_mut().map_or(Ok(()), |shown| shown.take(bytes, sinks.console))
    }

    /// Writes what is left of lines without an end.
    fn finish(&mut self, sinks: &mut Sinks<'_>) -> Result<()> {
        let time = sinks.time();
        if let Some(log) = sinks.log.as_deref_mut() {
            self.lines.finish(&time, &mut log.out);
        }
        if let (Some(lines), Some(kube)) = (&mut self.kube, sinks.kube.as_deref_mut()) {
            let mut out = Vec::new();
            lines.finish(&time, &mut out);
            kube.write(&out);
        }
        if let (Some(entries), Some(journald)) = (&mut self.entries, sinks.journald.as_deref_mut()) {
            entries.finish(journald);
        }
        self.shown.as_mut().map_or(Ok(()), |shown| shown.finish(sinks.console))
    }
}

impl Input {
    pub(super) fn new(ends_by_close: bool) -> Self {
        Self { sink: None, ends_by_close, reader: false, pending: Vec::new(), written: 0, last: None }
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
