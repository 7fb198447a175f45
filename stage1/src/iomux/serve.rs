//! The process `iottymux`: what it opens, and its loop. Pod side.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType};

use super::channel::{Channel, Input, Job, Output};
use super::journal::Journal;
use super::k8s::{Lines, Log, LogFile};
use super::place::{Orders, Settings};
use super::{CONTROL, ENDPOINTS, NAMES, PIPE, PTS, TTY, Targets, control, fifo, socket};
use crate::appc::AcName;
use crate::cross;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::write_atomic;
use crate::rootfs;
use crate::sys::mount::{self, DetachedMount, Scope};
use crate::sys::notify::{self, Supervisor};
use crate::sys::{channel, process, pty, signal};
use crate::terminal::set_nonblocking;

/// How long making a terminal may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long clients may take for what is left when the multiplexer is to end.
const LAST: Duration = Duration::from_secs(2);
/// Serves the streams of `app` until it is told to end (SIGTERM).
///
/// # Errors
/// Something that it needs can't be opened, or a descriptor fails in an unexpected way.
pub fn serve(app: &AcName) -> Result<()> {
    process::not_dumpable()?;
    let kept = notify::kept()?;
    control::enter(app)?;
    let signals = signal::block(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    allow_many_clients()?;
    let mut mux = Mux::open(app, kept)?;
    let names = mux.channels.iter().map(Channel::name);
    let here = Path::new(layout::IN_POD_IOTTYMUX).join(app.as_ref());
    write_atomic(&here, ENDPOINTS, (Targets::new(app, names).text() + "\n").as_bytes(), 0o644)?;
    mux.supervisor.ready()?;
    mux.run(&signals)?;
    mux.leave()
}

/// Each client takes a descriptor.
fn allow_many_clients() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context(|| "setrlimit(NOFILE)")
}

struct Mux {
    supervisor: Supervisor,
    channels: Vec<Channel>,
    log_file: Option<LogFile>,
    /// Open, if it could be opened: what starts the app is told why not.
    log: Option<Log>,
    listener: OwnedFd,
    talks: Vec<Talk>,
}

/// A connection to `sock-control`.
struct Talk {
    socket: OwnedFd,
    /// The app's ends of its streams, while it starts.
    _held: Vec<OwnedFd>,
    over: bool,
}

/// What is ready.
enum Ready {
    Signals,
    Control,
    Talk(usize),
    Channel(usize, Job, PollFlags),
}

impl Mux {
    /// Opens everything, as far as `kept` does not have it from a multiplexer before.
    fn open(app: &AcName, mut kept: Vec<(String, OwnedFd)>) -> Result<Self> {
        let supervisor = Supervisor::connect()?;
        let Orders { endpoints: names, log: log_file, journaled } = Settings::load()?;
        let takes_over = !kept.is_empty();
        let mut channels = Vec::new();
        for name in names {
            let at = kept.iter().position(|(other, _)| other == name);
            let fd = at.map(|at| kept.swap_remove(at).1);
            let lines = log_file.as_ref().map(|log| Lines::new(stream_in_log(name), log.format));
            let listener = control::bound(&socket(name), SocketType::STREAM)?;
            let (output, input) = match name {
                TTY => {
                    let master = match fd {
                        Some(master) => master,
                        None => new_terminal(app, &supervisor)?,
                    };
                    let sink = master.try_clone().context(|| "dup(pty)")?;
                    let output = Output::new(master, lines, None, takes_over);
                    (Some(output), Some(Input::new(Some(sink), false, takes_over)))
                }
                "stdin" => {
                    let sink = match fd {
                        None if !takes_over => Some(open_sink(&supervisor)?),
                        kept => kept,
                    };
                    (None, Some(Input::new(sink, true, takes_over)))
                }
                name => {
                    let source = match fd {
                        Some(source) => source,
                        None => open_source(name, &supervisor)?,
                    };
                    let journal = journaled.contains(&name).then(|| Journal::of(app, name));
                    (Some(Output::new(source, lines, journal, takes_over)), None)
                }
            };
            channels.push(Channel::new(name, listener, output, input));
        }
        let listener = control::bound(CONTROL, SocketType::SEQPACKET)?;
        let mut mux = Self { supervisor, channels, log_file, log: None, listener, talks: Vec::new() };
        if let Err(error) = mux.open_log() {
            log::warn!("{}", error.one_line());
        }
        Ok(mux)
    }

    fn run(&mut self, signals: &SignalFd) -> Result<()> {
        let mut ends_at: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let mut wake = ends_at;
            for channel in &mut self.channels {
                let next = channel.tidy(now);
                wake = wake.into_iter().chain(next).min();
            }
            if ends_at.is_some_and(|end| end <= now || self.channels.iter().all(Channel::is_quiet)) {
                return Ok(());
            }
            for ready in self.wait(signals, wake)? {
                match ready {
                    Ready::Signals => {
                        if self.take_signals(signals)? && ends_at.is_none() {
                            ends_at = Some(Instant::now() + LAST);
                            self.channels.iter_mut().try_for_each(|channel| channel.close(&mut self.log))?;
                        }
                    }
                    Ready::Control => self.accept()?,
                    Ready::Talk(index) => self.listen_to(index)?,
                    Ready::Channel(index, job, flags) => {
                        let channel = &mut self.channels[index];
                        let had = channel.input.as_ref().is_some_and(|input| input.sink.is_some());
                        channel.handle(job, flags, &mut self.log)?;
                        if had && channel.input.as_ref().is_some_and(|input| input.sink.is_none()) {
                            // The end of the input is there when nobody holds it open any more.
                            self.supervisor.forget(channel.name())?;
                        }
                    }
                }
            }
            self.talks.retain(|talk| !talk.over);
        }
    }

    /// Waits until something can be done, at most until `wake`.
    fn wait(&self, signals: &SignalFd, wake: Option<Instant>) -> Result<Vec<Ready>> {
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.talks.iter().map(|talk| PollFd::new(talk.socket.as_fd(), PollFlags::POLLIN)));
        let mut jobs = Vec::new();
        for (index, channel) in self.channels.iter().enumerate() {
            for (job, fd, events) in channel.watch() {
                fds.push(PollFd::new(fd, events));
                jobs.push((index, job));
            }
        }
        let timeout = wake.map_or(PollTimeout::NONE, |wake| {
            let left = wake.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "poll"),
        }
        let flags: Vec<PollFlags> = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        let is_ready = |at: usize| !flags[at].is_empty();
        let mut ready = Vec::new();
        ready.extend(is_ready(0).then_some(Ready::Signals));
        let talks = 2..2 + self.talks.len();
        for (index, (channel, job)) in jobs.into_iter().enumerate() {
            let flags = flags[talks.end + index];
            if !flags.is_empty() {
                ready.push(Ready::Channel(channel, job, flags));
            }
        }
        // After the end of a run that has just been seen, the next one may begin.
        ready.extend(talks.filter(|at| is_ready(*at)).map(|at| Ready::Talk(at - 2)));
        ready.extend(is_ready(1).then_some(Ready::Control));
        Ok(ready)
    }

    /// Whether it is to end.
    fn take_signals(&mut self, signals: &SignalFd) -> Result<bool> {
        let mut ends = false;
        while let Some(info) = signals.read_signal().context(|| "read(signalfd)")? {
            if info.ssi_signo == Signal::SIGHUP as u32 {
                if let Err(error) = self.reopen_log() {
                    log::warn!("{}", error.one_line());
                }
            } else {
                ends = true;
            }
        }
        Ok(ends)
    }

    /// Opens the log file if there is one and it is not open.
    fn open_log(&mut self) -> Result<()> {
        if let (Some(file), None) = (&self.log_file, &self.log) {
            self.log = Some(Log::open(file)?);
        }
        Ok(())
    }

    fn reopen_log(&mut self) -> Result<()> {
        match (&mut self.log, &self.log_file) {
            (Some(log), _) => log.reopen(),
            (None, Some(_)) => self.open_log(),
            (None, None) => Err(Error::new("the app has no log file")),
        }
    }

    fn accept(&mut self) -> Result<()> {
        match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC) {
            Ok(socket) => self.talks.push(Talk { socket, _held: Vec::new(), over: false }),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED | Errno::MFILE | Errno::NFILE) => {}
            Err(errno) => return Err(errno).context(|| format!("accept({CONTROL})")),
        }
        Ok(())
    }

    fn listen_to(&mut self, index: usize) -> Result<()> {
        let word = control::read(&self.talks[index].socket)?;
        let done = match word.as_deref() {
            None => {
                self.talks[index].over = true;
                return Ok(());
            }
            Some("") => return Ok(()),
            Some(control::RUN) => self.begin().map(|held| self.talks[index]._held = held),
            Some(control::REOPEN) => self.reopen_log(),
            Some(word) => Err(Error::new(format!("unknown word {word:?}"))),
        };
        let text = done.map_or_else(|error| error.one_line(), |()| control::OK.to_owned());
        control::answer(&self.talks[index].socket, &text);
        Ok(())
    }

    /// An app is about to start: the app's ends, to be held until it has them.
    fn begin(&mut self) -> Result<Vec<OwnedFd>> {
        self.open_log()?;
        let mut held = Vec::new();
        for channel in &mut self.channels {
            let name = channel.name();
            match (&channel.output, &mut channel.input) {
                (Some(output), Some(_)) => {
                    let slave = pty::slave_of(output.source())?;
                    reset(&slave)?;
                    held.push(slave);
                }
                (Some(_), None) => held.push(open_fifo(name, OFlags::WRONLY)?),
                (None, Some(input)) => {
                    let reader = open_fifo(name, OFlags::RDONLY)?;
                    drain(&reader)?;
                    if input.sink.is_none() {
                        input.sink = Some(open_sink(&self.supervisor)?);
                    }
                    held.push(reader);
                }
                (None, None) => {}
            }
            channel.begin();
        }
        Ok(held)
    }

    /// Takes away what nobody else does.
    fn leave(self) -> Result<()> {
        let names = self.channels.iter().map(Channel::name);
        let sockets = names.map(socket).chain([CONTROL.to_owned(), ENDPOINTS.to_owned()]);
        let files: Vec<String> = sockets.collect();
        for file in &files {
            match rustix::fs::unlink(file.as_str()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).context(|| format!("unlink({file:?})")),
            }
        }
        while mount::detach(Path::new(PTS))? {}
        Ok(())
    }
}

/// What a line of the log file says of an endpoint.
fn stream_in_log(name: &'static str) -> &'static str {
    if name == TTY { NAMES[1] } else { name }
}

fn open_fifo(name: &str, access: OFlags) -> Result<OwnedFd> {
    let name = fifo(name);
    let flags = access | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(&name, flags, Mode::empty()).context(|| format!("open({name:?})"))
}

fn open_source(name: &str, supervisor: &Supervisor) -> Result<OwnedFd> {
    let source = open_fifo(name, OFlags::RDONLY)?;
    if let Err(errno) = rustix::pipe::fcntl_setpipe_size(&source, PIPE) {
        // No more than slower: the user that it belongs to has many pipes already.
        log::debug!("fcntl(F_SETPIPE_SZ, {PIPE}): {errno}");
    }
    supervisor.keep(name, &source)?;
    Ok(source)
}

fn open_sink(supervisor: &Supervisor) -> Result<OwnedFd> {
    // Only a FIFO with a reader can be opened for writing without waiting.
    let _reader = open_fifo(NAMES[0], OFlags::RDONLY)?;
    let sink = open_fifo(NAMES[0], OFlags::WRONLY)?;
    supervisor.keep(NAMES[0], &sink)?;
    Ok(sink)
}

/// Takes out what an app that has ended has not read.
fn drain(reader: &OwnedFd) -> Result<()> {
    let mut chunk = [0; 4096];
    loop {
        match rustix::io::read(reader, &mut chunk) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context(|| "read(stage2-stdin)"),
        }
    }
}

/// Makes a terminal in the app's own devpts, where the app finds it under its name, and mounts it here.
fn new_terminal(app: &AcName, supervisor: &Supervisor) -> Result<OwnedFd> {
    let (mine, theirs) = channel::pair()?;
    cross::in_child(Instant::now() + PATIENCE, || {
        rootfs::join_pinned(app)?;
        let (master, slave) = pty::open_pair_in(layout::DEVPTS)?;
        channel::send(&theirs, master)?;
        channel::send(&theirs, DetachedMount::clone_of(&slave, Scope::One)?)
    })
    .context(|| "make the app's terminal")?;
    let receive = || channel::receive(&mine)?.context(|| "no terminal came");
    let (master, slave) = (receive()?, DetachedMount::from(receive()?));
    let place = Path::new(PTS);
    while mount::detach(place)? {}
    rustix::fs::open(place, OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::RUSR)
        .context(|| format!("create {PTS:?}"))?;
    slave.attach_path(place)?;
    set_nonblocking(&master)?;
    supervisor.keep(TTY, &master)?;
    Ok(master)
}

/// Gives a terminal the settings of a new one: the app before may have left it in any state.
fn reset(terminal: impl AsFd) -> Result<()> {
    let (_master, new) = pty::open_pair_in(layout::DEVPTS)?;
    pty::copy_settings(&new, terminal)
}
