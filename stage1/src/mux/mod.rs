//! The pod's monitor as the one multiplexer of its apps' streams. Host side, in the pod directory.
//!
//! `app-exec` hands over the other ends of an app's pipes, or of its terminal ([`crate::streams::handover`]), and the
//! monitor carries every byte: into the app's log ([`mod@file`]), to the output of `run` ([`console`]), into a kubelet's file
//! ([`kube`]) or the host's journal ([`journald`]), and to whoever attaches ([`channel`]). One thread, one epoll; nothing
//! is read that can't be held, so an app waits for whoever takes its output, and memory is bounded whatever apps write.
//!
//! **Clients.** Every client of a stream gets each byte from the moment it connects on; the first one also what was
//! written before, and one that comes when nobody was there what was written meanwhile, up to [`REPLAY`] bytes, the
//! newest, or [`REPLAY_LOG`] of what is in a log anyway. Nobody attached: the app is never held up by that. Somebody
//! attached: it is held up when [`BUFFER`] bytes wait for a client, with these limits: the client that is ahead of all
//! others must take something within [`DEAD`], any other one [`LEAST`] bytes within [`HOLD`]. Else it is dropped: its
//! connection is closed. At the app's end a connection is shut down for writing instead, and closed when the client has
//! closed it.
//!
//! **Input.** What one client sends at once, up to 64 KiB, goes to the app in one piece. While the app does not read,
//! the clients wait. A client that shuts its side down for writing, and stays, asks for the end of the input, and gets
//! one byte, 4, when that was passed on; one that goes does not ask. In a terminal the end of the input is a character.
//!
//! **Ends.** The reaper asks before it writes an exit status, and is answered when all that was in the app's pipes at
//! that moment has been taken and written. When PID 1 has ended, all that is left is taken before `run` ends.

mod app;
mod bounds;
mod buffer;
mod channel;
mod client;
mod console;
mod file;
mod input;
mod intake;
mod journald;
mod kube;
mod lines;
mod link;
mod listener;
mod output;
mod poller;
mod ring;
mod settings;
mod sinks;
mod token;

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use app::App;
use channel::Channel;
use console::Console;
use intake::Said;
use listener::{Call, Listener, Spare};
use poller::{Interest, Poller, Watched};
use sinks::Tools;
use token::{Job, Tokens};

pub use bounds::{BUFFER, DEAD, HOLD, LEAST, REPLAY, REPLAY_LOG};
pub use console::Show;
pub use file::Bounds;
pub use intake::Listeners;
pub(crate) use link::Link;
pub use settings::{DRIVER, Driver, MAX_FILES, MAX_SIZE, Settings, parse_max_files, parse_max_size};

use crate::appc::AcName;
use crate::cgroup::PodCgroup;
use crate::error::{Context, Error, Result};
use crate::streams::{DeclaredStreams, TTY};
use crate::sys::signal;

/// How long clients may take for what is left when the pod has ended.
const LAST: Duration = Duration::from_secs(2);
/// How long the output of `run` may take nothing at the end of a pod that somebody has stopped.
const STOPPED: Duration = Duration::from_secs(2);
/// The most callers at a time.
const TALKS: usize = 256;
/// The number that no app has: what belongs to all.
const NO_APP: u16 = u16::MAX;

/// Somebody who talks to the monitor.
#[derive(Debug)]
struct Talk {
    socket: Watched,
    /// From inside of the pod.
    in_pod: bool,
}

/// The multiplexer of a pod's streams.
#[derive(Debug)]
pub struct Mux {
    uuid: String,
    settings: Settings,
    cgroup: PodCgroup,
    tools: Tools,
    tokens: Tokens,
    pod: Listener,
    host: Listener,
    talks: Vec<Talk>,
    /// By number.
    apps: Vec<Option<App>>,
    link: Option<Link>,
    /// Somebody has stopped the pod.
    stopped: bool,
}

impl Mux {
    /// Begins to listen. The app with the pod's terminal gets `link`'s.
    ///
    /// # Errors
    /// Something that it needs can't be opened.
    pub(crate) fn new(
        uuid: &str,
        settings: Settings,
        cgroup: PodCgroup,
        listeners: Listeners,
        link: Option<Link>,
    ) -> Result<Self> {
        allow_many_files()?;
        let poller = Poller::new()?;
        let serial = Rc::new(Cell::new(0));
        let tokens = Tokens::new(&poller, &serial, NO_APP, 0);
        let ports = [tokens.token(Job::Console), tokens.token(Job::Console)];
        let show = if link.is_some() { Show::Nothing } else { settings.show };
        let console = Console::new(show, &poller, ports)?;
        let pod = Listener::new(tokens.watched(listeners.pod, Job::Listen));
        let host = Listener::new(tokens.watched(listeners.host, Job::Listen));
        let (scratch, gathered, draft) = (vec![0; channel::CHUNK], Vec::new(), Vec::new());
        let tools = Tools { poller, serial, console, scratch, gathered, draft, spare: Spare::new()? };
        let (talks, apps) = (Vec::new(), Vec::new());
        Ok(Self {
            uuid: uuid.to_owned(),
            settings,
            cgroup,
            tools,
            tokens,
            pod,
            host,
            talks,
            apps,
            link,
            stopped: false,
        })
    }

    /// The caller of `run` in front of an app's terminal.
    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// Shows nothing of what the apps write on the output of `run`.
    pub(crate) fn show_nothing(&mut self) {
        self.tools.console.give_up();
    }

    /// Whether the pod is being stopped: it was said here, or somebody has told the monitor so.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Says that the pod is being stopped: whoever reads the output of `run` is not waited for without end.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Does what there is to do; waits until there is something, one of `wake` is readable, or it is time to look
    /// after somebody, and `at_most` that long.
    pub(crate) fn step(&mut self, wake: &[BorrowedFd<'_>], at_most: Option<Duration>) -> Result<()> {
        self.copy_size()?;
        let now = Instant::now();
        let next = self.tidy(now)?;
        self.wait(wake, next.into_iter().chain(at_most.map(|time| now + time)).min())?;
        self.work()
    }

    /// Tells the app's terminal the size of that of the caller of `run`.
    fn copy_size(&mut self) -> Result<()> {
        let Some(size) = self.link.as_mut().map(Link::new_size).transpose()?.flatten() else { return Ok(()) };
        let mut channels = self.apps.iter_mut().flatten().flat_map(|app| &mut app.channels);
        channels.try_for_each(|channel| channel.resize_resident(size))
    }

    /// Waits at most until `until`.
    fn wait(&mut self, wake: &[BorrowedFd<'_>], until: Option<Instant>) -> Result<()> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()) + Duration::from_micros(999));
        let own = self.tools.poller.fd();
        if let Some(link) = &mut self.link {
            let wake: Vec<_> = wake.iter().copied().chain([own]).collect();
            return link.step(&wake, left);
        }
        let mut fds: Vec<PollFd<'_>> =
            wake.iter().chain([&own]).map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context(|| "poll"),
        }
    }

    /// Does what can be done without waiting.
    fn work(&mut self) -> Result<()> {
        for (token, ready) in self.tools.poller.take()? {
            let Some((number, channel, job)) = Tokens::parse(token) else { continue };
            match job {
                Job::Console => self.tools.console.go_on()?,
                Job::Listen if number == NO_APP => self.accept(token)?,
                Job::Talk => self.listen_to(token)?,
                _ => {
                    let Some(Some(app)) = self.apps.get_mut(usize::from(number)) else { continue };
                    if job == Job::Syslog {
                        app.read_syslog(&mut self.tools)?;
                        continue;
                    }
                    let (channels, mut sinks) = app.sinks(&mut self.tools);
                    if let Some(channel) = channels.get_mut(usize::from(channel)) {
                        channel.handle(job, token, ready, &mut sinks)?;
                    }
                }
            }
        }
        for app in self.apps.iter_mut().flatten() {
            app.settle();
        }
        Ok(())
    }

    /// Removes who has gone; when to look again at the latest. What is waited for is up to date afterwards.
    fn tidy(&mut self, now: Instant) -> Result<Option<Instant>> {
        let is_full = self.tools.console.is_full();
        self.tools.spare.fill();
        let mut next: Option<Instant> = None;
        for listener in [&mut self.pod, &mut self.host] {
            next = next.into_iter().chain(listener.arm(now)?).min();
        }
        for channel in self.apps.iter_mut().flatten().flat_map(|app| &mut app.channels) {
            next = next.into_iter().chain(channel.tidy(now)).min();
            next = next.into_iter().chain(channel.arm(is_full, now)?).min();
        }
        Ok(next)
    }

    fn accept(&mut self, token: u64) -> Result<()> {
        let in_pod = self.pod.token() == token;
        let listener = if in_pod { &mut self.pod } else { &mut self.host };
        let socket = match listener.accept(&mut self.tools.spare, true)? {
            Call::Nobody => return Ok(()),
            Call::Taken(socket) => socket,
            Call::Refused(socket) => {
                intake::answer(&socket, Err(rustix::io::Errno::MFILE).context(|| "accept"), &[]);
                return Ok(());
            }
        };
        if self.talks.len() >= TALKS {
            intake::answer(&socket, Err(Error::new("too many talk to the pod's monitor at a time")), &[]);
            return Ok(());
        }
        let socket = self.tokens.watched(socket, Job::Talk);
        socket.watch(Some(Interest::IN))?;
        self.talks.push(Talk { socket, in_pod });
        Ok(())
    }

    fn listen_to(&mut self, token: u64) -> Result<()> {
        let Some(at) = self.talks.iter().position(|talk| talk.socket.token() == token) else { return Ok(()) };
        let talk = &self.talks[at];
        match intake::read(talk.socket.as_fd(), talk.in_pod.then_some(&self.cgroup)) {
            Ok(Said::Nothing) => {}
            Ok(Said::HungUp) => drop(self.talks.remove(at)),
            // Answered when all is taken.
            Ok(Said::Ended(app)) => {
                let talk = self.talks.remove(at).socket;
                talk.watch(None)?;
                match self.apps.iter_mut().flatten().find(|other| other.name == app) {
                    Some(app) => app.ended(talk, &mut self.tools)?,
                    None => intake::answer(&talk, Ok(String::new()), &[]),
                }
            }
            Ok(said) => {
                let mut fd = None;
                let done = self.obey(said, &mut fd);
                let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
                intake::answer(&self.talks[at].socket, done, &fds);
            }
            Err(error) => {
                intake::answer(&talk.socket, Err(error), &[]);
                drop(self.talks.remove(at));
            }
        }
        Ok(())
    }

    fn obey(&mut self, said: Said, fd: &mut Option<OwnedFd>) -> Result<String> {
        match said {
            Said::Start { app, main, ends } => self.begin(app, main, ends)?,
            Said::List(app) => {
                let app = self.get(&app)?;
                let names: Vec<&str> = app.channels.iter().map(|channel| channel.name).collect();
                return Ok(names.join(" "));
            }
            Said::Attach(app, endpoint) => {
                let (socket, number) = self.attach(&app, &endpoint, false)?;
                *fd = Some(socket);
                return Ok(number.to_string());
            }
            Said::Resize(app, size, client) => {
                self.get(&app)?.channels.iter_mut().try_for_each(|channel| channel.resize(client, size))?;
            }
            Said::Reopen(app) => {
                let app = self.get(&app)?;
                app.kube.as_mut().context(|| format!("app {} has no log file for a kubelet", app.name))?.reopen()?;
            }
            Said::Forget(app) => {
                if let Some(number) = self.find(&app) {
                    self.apps[number] = None;
                }
            }
            Said::Stop => self.stopped = true,
            Said::Nothing | Said::HungUp | Said::Ended(_) => {}
        }
        Ok(String::new())
    }

    fn find(&self, name: &AcName) -> Option<usize> {
        self.apps.iter().position(|app| app.as_ref().is_some_and(|app| app.name == *name))
    }

    fn get(&mut self, name: &AcName) -> Result<&mut App> {
        let app = self.apps.iter_mut().flatten().find(|app| app.name == *name);
        app.context(|| format!("app {name} has nothing to attach to: it was not started yet"))
    }

    /// An app, or a handler of it, is about to start.
    fn begin(&mut self, name: AcName, main: bool, ends: Vec<(String, OwnedFd)>) -> Result<()> {
        let declared = DeclaredStreams::load(&name)?;
        let number = match self.find(&name) {
            Some(number) if self.apps[number].as_ref().is_some_and(|app| app.is(&declared)) => number,
            found => {
                let free = found.or_else(|| self.apps.iter().position(Option::is_none)).unwrap_or(self.apps.len());
                let number = u16::try_from(free).ok().filter(|number| *number != NO_APP);
                let number = number.context(|| "too many apps")?;
                if free == self.apps.len() {
                    self.apps.push(None);
                }
                // One that was added anew, as another one, has other endpoints.
                self.apps[free] = None;
                let (settings, uuid) = (&self.settings, &self.uuid);
                let mut app = App::new(name.clone(), declared, number, settings, uuid, &self.tools)?;
                match app.listen() {
                    Err(error) if error.errno() == Some(libc::EMFILE) => return Err(error),
                    Err(error) => log::warn!("app {name}: {}", error.one_line()),
                    Ok(()) => {}
                }
                let is_linked = app.is_interactive();
                self.apps[free] = Some(app);
                if is_linked && self.link.is_some() {
                    let (socket, _) = self.attach(&name, TTY, true)?;
                    self.link.iter_mut().try_for_each(|link| link.connect(&socket))?;
                }
                free
            }
        };
        let app = self.apps[number].as_mut().context(|| "no app")?;
        if main && app.is_interactive() {
            let terminal = ends.iter().find(|(name, _)| name == TTY).map(|(_, fd)| fd);
            if let (Some(link), Some(terminal)) = (&mut self.link, terminal) {
                link.start(terminal)?;
            }
        }
        app.begin(main, ends)
    }

    /// A connection to an endpoint: the client's end, and its number.
    fn attach(&mut self, name: &AcName, endpoint: &str, resident: bool) -> Result<(OwnedFd, u64)> {
        let number =
            self.find(name).context(|| format!("app {name} has nothing to attach to: it was not started yet"))?;
        let app = self.apps[number].as_mut().context(|| "no app")?;
        let (channels, mut sinks) = app.sinks(&mut self.tools);
        let channel = channels.iter_mut().find(|channel| channel.name == endpoint);
        let channel = channel.context(|| format!("app {name} has no {endpoint} to attach to"))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).context(|| "socketpair")?;
        let number = channel.admit(ours, resident, &mut sinks)?;
        Ok((theirs, number))
    }

    /// When PID 1 has ended: takes all that is left, and waits until everybody has it. A signal, or a pod that was
    /// stopped, ends the waiting for who reads the output of `run`: the logs have everything all the same.
    pub(crate) fn finish(mut self, signals: &SignalFd) -> Result<()> {
        let mut progress = Instant::now();
        let mut before = None;
        loop {
            let now = Instant::now();
            let next = self.tidy(now)?;
            if self.apps.iter().flatten().flat_map(|app| &app.channels).all(Channel::is_silent)
                && !self.tools.console.is_full()
            {
                break;
            }
            let waits = self.tools.console.waiting();
            if before != Some(waits) {
                (before, progress) = (Some(waits), now);
            }
            let deadline = self.stopped.then_some(progress + STOPPED);
            let asked = signal::is_asked_to_end(signals)?;
            if waits > 0 && (asked || deadline.is_some_and(|deadline| deadline <= now)) {
                self.tools.console.give_up();
                log::warn!("nobody reads the output of the pod: what is left of it is in the logs only");
            }
            self.wait(&[signals.as_fd()], next.into_iter().chain(deadline).min())?;
            self.work()?;
        }
        for app in self.apps.iter_mut().flatten() {
            app.finish(&mut self.tools)?;
        }
        let end = Instant::now() + LAST;
        while !self.apps.iter().flatten().flat_map(|app| &app.channels).all(Channel::is_quiet) && Instant::now() < end {
            let next = self.tidy(Instant::now())?;
            self.wait(&[], next.into_iter().chain([end]).min())?;
            self.work()?;
        }
        drop(std::mem::take(&mut self.apps));
        if let Some(link) = self.link.take() {
            link.finish(signals)?;
        }
        while self.tools.console.is_full() && !signal::is_asked_to_end(signals)? && Instant::now() < end {
            self.wait(&[signals.as_fd()], Some(end))?;
            self.work()?;
        }
        intake::forget()
    }
}

/// Each stream and each client takes a descriptor.
fn allow_many_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context(|| "setrlimit(NOFILE)")
}
