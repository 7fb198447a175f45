//! The pod's monitor as the one multiplexer of its apps' streams. Host side, in the pod directory.
//!
//! `app-exec` hands the monitor the other ends of an app's pipes, or of its terminal ([`crate::streams::handover`]).
//! The monitor copies every byte: into the app's log ([`mod@file`]), to the output of `run` ([`console`]), into a
//! kubelet's file ([`kube`]) or the host's journal ([`journald`]), and to attached clients ([`channel`]). It is one
//! thread with one epoll. It reads from an app only what it has room for: memory is bounded whatever apps write, and an
//! app waits until the readers of its output have caught up.
//!
//! **Clients.** A client gets every byte that the app writes after the client has connected. The first client also gets
//! the newest output from before, up to [`REPLAY`] bytes, or [`REPLAY_LOG`] if a log has it too; so does a client that
//! connects after all others have left, for the output since then. Without a client the app never waits. With clients,
//! it waits while [`BUFFER`] bytes are queued for one of them. The client that has read most must read something within
//! [`DEAD`], any other one [`LEAST`] bytes within [`HOLD`]; a client that does not is dropped: the monitor closes its
//! connection. When the app ends, the monitor shuts the connection down for writing, and closes it after the client
//! has.
//!
//! **Input.** The monitor writes what a client sends at once, up to 64 KiB, to the app in one piece. While the app does
//! not read, the clients wait. A client that shuts down its sending side and keeps the connection asks for the end of
//! the input; the monitor answers with one byte, 4, once it has passed the end on. Closing the connection does not end
//! the input. On a terminal the end of the input is a character.
//!
//! **Ends.** Before the reaper writes an exit status it asks the monitor, which answers when everything that was in the
//! app's pipes at that moment has been read and written. When PID 1 has ended, the monitor reads the rest before `run`
//! ends.

mod app;
mod buffer;
mod channel;
mod client;
mod client_limits;
mod console;
mod file;
mod input;
mod intake;
mod journald;
mod kube;
mod lines;
mod link;
mod listener;
mod on_host;
mod output;
mod poller;
mod ring;
mod settings;
mod sinks;
mod tee;
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
use intake::Request;
use listener::{Call, Listener, Spare};
use poller::{Interest, Poller, Watched};
use sinks::Tools;
use token::{Job, Tokens};

pub use client_limits::{BUFFER, DEAD, HOLD, LEAST, REPLAY, REPLAY_LOG};
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

/// How long clients may take to read the rest of the output when the pod has ended.
const LAST: Duration = Duration::from_secs(2);
/// How long the reader of `run` may read nothing at the end of a pod that was stopped.
const STOPPED: Duration = Duration::from_secs(2);
/// The most open connections of callers ([`Peer`]).
const MAX_PEERS: usize = 256;
/// In a token: belongs to no app. No app has this number.
const NO_APP: u16 = u16::MAX;

/// A process that has connected to one of the monitor's sockets to ask for something.
#[derive(Debug)]
struct Peer {
    socket: Watched,
    /// It has connected from inside the pod.
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
    peers: Vec<Peer>,
    /// The index is the app's number in tokens.
    apps: Vec<Option<App>>,
    link: Option<Link>,
    /// The pod is being stopped.
    stopped: bool,
}

impl Mux {
    /// Begins to listen. An interactive app is connected to the terminal of `link`.
    ///
    /// # Errors
    /// A descriptor can't be made, or the output of `run` can't be opened.
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
        let (peers, apps) = (Vec::new(), Vec::new());
        Ok(Self {
            uuid: uuid.to_owned(),
            settings,
            cgroup,
            tools,
            tokens,
            pod,
            host,
            peers,
            apps,
            link,
            stopped: false,
        })
    }

    /// The terminal of the caller of `run`, if an app is interactive.
    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        self.link.as_mut()
    }

    /// Stops copying what the apps write to the output of `run`.
    pub(crate) fn show_nothing(&mut self) {
        self.tools.console.give_up();
    }

    /// Whether the pod is being stopped: [`Self::stop`] was called, or a process of the host has sent that request.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Notes that the pod is being stopped: the monitor then waits for the reader of `run` only for [`STOPPED`].
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Waits until a watched descriptor or one of `wake` is ready, a client's deadline has come or `at_most` has
    /// passed, and handles what is ready.
    pub(crate) fn step(&mut self, wake: &[BorrowedFd<'_>], at_most: Option<Duration>) -> Result<()> {
        self.copy_size()?;
        let now = Instant::now();
        let next = self.tidy(now)?;
        self.wait(wake, next.into_iter().chain(at_most.map(|time| now + time)).min())?;
        self.work()
    }

    /// Gives the app's terminal the window size of the terminal of `run`'s caller, if that has changed.
    fn copy_size(&mut self) -> Result<()> {
        let Some(size) = self.link.as_mut().map(Link::new_size).transpose()?.flatten() else { return Ok(()) };
        let mut channels = self.apps.iter_mut().flatten().flat_map(|app| &mut app.channels);
        channels.try_for_each(|channel| channel.resize_resident(size))
    }

    /// Waits until a watched descriptor or one of `wake` is ready, at most until `until`.
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

    /// Handles all ready descriptors, without waiting.
    fn work(&mut self) -> Result<()> {
        for (token, ready) in self.tools.poller.take()? {
            let Some((number, channel, job)) = Tokens::parse(token) else { continue };
            match job {
                Job::Console => self.tools.console.go_on()?,
                Job::Listen if number == NO_APP => self.accept(token)?,
                Job::Peer => self.read_request(token)?,
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

    /// Removes clients that have left, drops those that are too slow, and tells epoll(7) what to wait for next. Returns
    /// the next deadline.
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
        if self.peers.len() >= MAX_PEERS {
            let many = format!("the pod's monitor already serves {MAX_PEERS} callers: try again");
            intake::answer(&socket, Err(Error::new(many)), &[]);
            return Ok(());
        }
        let socket = self.tokens.watched(socket, Job::Peer);
        socket.watch(Some(Interest::IN))?;
        self.peers.push(Peer { socket, in_pod });
        Ok(())
    }

    fn read_request(&mut self, token: u64) -> Result<()> {
        let Some(at) = self.peers.iter().position(|peer| peer.socket.token() == token) else { return Ok(()) };
        let peer = &self.peers[at];
        match intake::read(peer.socket.as_fd(), peer.in_pod.then_some(&self.cgroup)) {
            Ok(Request::NotYet) => {}
            Ok(Request::HungUp) => drop(self.peers.remove(at)),
            // The answer comes when all output of the app has been read and written.
            Ok(Request::Ended(app)) => {
                let peer = self.peers.remove(at).socket;
                peer.watch(None)?;
                match self.apps.iter_mut().flatten().find(|other| other.name == app) {
                    Some(app) => app.ended(peer, &mut self.tools)?,
                    None => intake::answer(&peer, Ok(String::new()), &[]),
                }
            }
            // The program that runs the app has the connection from now on.
            Ok(Request::OnHost(app, work)) => {
                let peer = self.peers.remove(at).socket;
                peer.watch(None)?;
                if let Err(error) = on_host::start(&app, work, peer.as_fd()) {
                    intake::answer(&peer, Err(error), &[]);
                }
            }
            Ok(request) => {
                let mut fd = None;
                let done = self.execute(request, &mut fd);
                let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
                intake::answer(&self.peers[at].socket, done, &fds);
            }
            Err(error) => {
                intake::answer(&peer.socket, Err(error), &[]);
                drop(self.peers.remove(at));
            }
        }
        Ok(())
    }

    /// Does what a request asks for. Returns the text of the answer; a descriptor for the answer goes to `fd`.
    fn execute(&mut self, request: Request, fd: &mut Option<OwnedFd>) -> Result<String> {
        match request {
            Request::Start { app, main, ends } => self.begin(app, main, ends)?,
            Request::List(app) => {
                let app = self.get(&app)?;
                let names: Vec<&str> = app.channels.iter().map(|channel| channel.name).collect();
                return Ok(names.join(" "));
            }
            Request::Attach(app, endpoint) => {
                let (socket, number) = self.attach(&app, &endpoint, false)?;
                *fd = Some(socket);
                return Ok(number.to_string());
            }
            Request::Resize(app, size, client) => {
                self.get(&app)?.channels.iter_mut().try_for_each(|channel| channel.resize(client, size))?;
            }
            Request::Reopen(app) => {
                let app = self.get(&app)?;
                app.kube.as_mut().context(|| format!("app {} has no log file for a kubelet", app.name))?.reopen()?;
            }
            Request::Forget(app) => {
                if let Some(number) = self.find(&app) {
                    self.apps[number] = None;
                }
            }
            Request::Stop => self.stopped = true,
            Request::NotYet | Request::HungUp | Request::Ended(_) | Request::OnHost(..) => {}
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

    /// Takes over the ends of the streams of an app, or of a handler of it, that is about to start.
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
                // An app of this name that was removed and added again may have other endpoints.
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

    /// Connects a client to an endpoint. Returns the client's end and the number by which it can be resized.
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

    /// Reads the rest of the output after the end of PID 1, and waits until all readers have it. A signal, or the stop
    /// of the pod, limits the wait for the reader of `run`; the logs have all of it in any case.
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
                log::warn!("the output of the pod is not being read: the rest of it is in the logs only");
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

/// Raises the limit of open files to the hard limit: each stream and each client takes a descriptor.
fn allow_many_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context(|| "setrlimit(NOFILE)")
}
