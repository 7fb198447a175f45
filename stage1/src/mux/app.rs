//! An app's streams in the monitor: its endpoints, the sinks of its output, and the callers that wait for its end. Host
//! side.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use super::buffer::empty;
use super::channel::Channel;
use super::client_limits::{REPLAY, REPLAY_LOG};
use super::console::Shown;
use super::file::AppLog;
use super::input::Input;
use super::intake;
use super::journald::{self, Entries, Journald};
use super::kube::KubeLog;
use super::lines::Lines;
use super::output::Output;
use super::poller::{Interest, Watched};
use super::settings::{Driver, Settings};
use super::sinks::{Sinks, Tools};
use super::token::{Job, Tokens};
use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::streams::handover::SYSLOG;
use crate::streams::{self, DeclaredStreams, Format, NAMES, StreamMode, TTY};
use crate::sys::{dir, pty};
use crate::terminal::set_nonblocking;

/// Size of an app's pipes, in bytes: larger than the kernel's default, so that an app seldom waits for the monitor.
const PIPE: usize = 1 << 20;
/// Backlog of the clients' sockets: listen(2).
const BACKLOG: i32 = 128;
/// How many syslog messages of an app are read at a time.
const SYSLOG_TURNS: usize = 64;
/// How many times [`SYSLOG_TURNS`] messages are read at an app's end: more than a socket holds.
const SYSLOG_LAST: usize = 16;

/// An app that was started at least once.
#[derive(Debug)]
pub(super) struct App {
    pub(super) name: AcName,
    declared: DeclaredStreams,
    pub(super) channels: Vec<Channel>,
    pub(super) log: Option<AppLog>,
    pub(super) kube: Option<KubeLog>,
    pub(super) journald: Option<Journald>,
    tokens: Tokens,
    syslog: Option<Watched>,
    /// The reapers that wait for the answer to [`intake::Request::Ended`].
    waiting: Vec<Watched>,
}

impl App {
    /// Opens the sinks of an app, as `declared` by `app-add` and the pod's `settings`; its streams come with
    /// [`Self::begin`].
    pub(super) fn new(
        name: AcName,
        declared: DeclaredStreams,
        number: u16,
        settings: &Settings,
        uuid: &str,
        tools: &Tools,
    ) -> Result<Self> {
        let tokens = |channel| Tokens::new(&tools.poller, &tools.serial, number, channel);
        let writes_log = declared.modes.0[1..].iter().any(|mode| *mode != StreamMode::Null);
        let log = match settings.driver {
            Driver::File if writes_log => Some(AppLog::open(&name, settings.bounds)?),
            _ => None,
        };
        let journald = match settings.driver {
            Driver::Journald if writes_log => Some(Journald::open(&name, uuid)?),
            _ => None,
        };
        let kube = declared.log.as_ref().map(|(file, directory)| KubeLog::open(file, directory)).transpose()?;
        let mut channels = Vec::new();
        for (endpoint, channel) in declared.modes.endpoints().into_iter().zip(0..) {
            let stream = if endpoint == TTY { NAMES[1] } else { endpoint };
            let number = if endpoint == NAMES[2] { 2 } else { 1 };
            let is_log = declared.modes.0[number] == StreamMode::Log && endpoint != TTY;
            let output = (endpoint != NAMES[0]).then(|| {
                Output::new(
                    if is_log { REPLAY_LOG } else { REPLAY },
                    Lines::new(stream, Format::Cri, true),
                    kube.as_ref().map(|kube| Lines::new(stream, kube.format, false)),
                    is_log.then(|| Shown::new(&name, number)),
                    journald.is_some().then(|| Entries::new([journald::STDOUT, journald::STDERR][number - 1])),
                )
            });
            let input = match endpoint {
                TTY => Some(Input::new(false)),
                "stdin" => Some(Input::new(true)),
                _ => None,
            };
            channels.push(Channel::new(endpoint, tokens(channel), output, input));
        }
        let app = Self {
            name,
            declared,
            channels,
            log,
            kube,
            journald,
            tokens: tokens(u8::MAX),
            syslog: None,
            waiting: Vec::new(),
        };
        Ok(app)
    }

    /// Whether its streams are still those of `declared`.
    pub(super) fn is(&self, declared: &DeclaredStreams) -> bool {
        self.declared == *declared
    }

    /// Whether its terminal is connected to that of `run`'s caller.
    pub(super) fn is_interactive(&self) -> bool {
        self.declared.modes.are_interactive()
    }

    /// Listens at the sockets where host managers look for its endpoints. The pod can write to that directory and so
    /// prevent this; the app then has no sockets there.
    pub(super) fn listen(&mut self) -> Result<()> {
        let path = layout::iottymux(&self.name);
        let place = dir::open_beneath(rustix::fs::CWD, &path, OFlags::PATH | OFlags::DIRECTORY)?;
        for channel in &mut self.channels {
            let name = streams::socket(channel.name);
            match rustix::fs::unlinkat(&place, &name, rustix::fs::AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).context(|| format!("unlink({name:?})")),
            }
            channel.listen(listener(&place, &name)?);
        }
        Ok(())
    }

    /// Takes over the ends that `app-exec` has sent, of the app itself (`main`) or of a handler.
    pub(super) fn begin(&mut self, main: bool, ends: Vec<(String, OwnedFd)>) -> Result<()> {
        for (name, fd) in ends {
            check(&name, &fd).with_what(&name)?;
            set_nonblocking(&fd)?;
            if name == SYSLOG {
                let socket = self.tokens.watched(fd, Job::Syslog);
                socket.watch(Some(Interest::IN))?;
                self.syslog = Some(socket);
                continue;
            }
            // A handler has no terminal of its own: its output goes to that of its app.
            let found = self.channels.iter_mut().position(|channel| channel.name == name);
            let found = found.or_else(|| self.channels.iter().position(|channel| !main && channel.name == TTY));
            let channel = &mut self.channels[found.context(|| format!("the app has no {name}"))?];
            match name.as_str() {
                "stdin" => channel.begin(None, Some(fd), main, false)?,
                TTY => {
                    let sink = fd.try_clone().context(|| "dup(terminal)")?;
                    channel.begin(Some(fd), Some(sink), main, true)?;
                }
                _ => {
                    if let Err(errno) = rustix::pipe::fcntl_setpipe_size(&fd, PIPE) {
                        log::debug!("fcntl(F_SETPIPE_SZ, {PIPE}): {errno}");
                    }
                    channel.begin(Some(fd), None, main, false)?;
                }
            }
        }
        Ok(())
    }

    /// The app's channels, and its sinks together with those that all apps share.
    pub(super) fn sinks<'a>(&'a mut self, tools: &'a mut Tools) -> (&'a mut Vec<Channel>, Sinks<'a>) {
        let sinks = Sinks {
            log: self.log.as_mut(),
            kube: self.kube.as_mut(),
            journald: self.journald.as_mut(),
            console: &mut tools.console,
            scratch: &mut tools.scratch,
            gathered: &mut tools.gathered,
            draft: &mut tools.draft,
            spare: &mut tools.spare,
        };
        (&mut self.channels, sinks)
    }

    /// Reads messages from the app's /dev/log. Returns whether there may be more.
    pub(super) fn read_syslog(&mut self, tools: &mut Tools) -> Result<bool> {
        // A message longer than the buffer is cut.
        let mut message = std::mem::take(&mut tools.scratch);
        let more = self.read_messages(&mut message, tools);
        tools.scratch = message;
        let (_, mut sinks) = self.sinks(tools);
        sinks.write_log();
        more
    }

    fn read_messages(&mut self, message: &mut [u8], tools: &mut Tools) -> Result<bool> {
        for _ in 0..SYSLOG_TURNS {
            let Some(socket) = &self.syslog else { return Ok(false) };
            let count = match rustix::net::recv(socket, &mut *message, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((count, _)) => count,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                Err(errno) => return Err(errno).context(|| "recv(syslog)"),
            };
            let (priority, text) = syslog_message(&message[..count.min(message.len())]);
            let (_, sinks) = self.sinks(tools);
            let time = sinks.time();
            if sinks.log.is_some() {
                let mut lines = Lines::new(NAMES[2], Format::Cri, true);
                lines.take(text, &time, sinks.gathered);
                lines.take(b"\n", &time, sinks.gathered);
            }
            if let Some(kube) = sinks.kube {
                let mut lines = Lines::new(NAMES[2], kube.format, false);
                lines.take(text, &time, sinks.draft);
                lines.take(b"\n", &time, sinks.draft);
                kube.write(sinks.draft);
                empty(sinks.draft);
            }
            if let Some(journald) = sinks.journald {
                journald.send(priority, text, false);
            }
        }
        Ok(true)
    }

    /// Notes that the app has ended; `peer` gets its answer when the output is read and written.
    pub(super) fn ended(&mut self, peer: Watched, tools: &mut Tools) -> Result<()> {
        self.waiting.push(peer);
        // Only what is in the pipes now: a process that the app has left behind may go on writing.
        for _ in 0..SYSLOG_LAST {
            if !self.read_syslog(tools)? {
                break;
            }
        }
        self.channels.iter_mut().try_for_each(Channel::drain)
    }

    /// After the end of the pod: reads the remaining syslog messages, and closes all streams.
    pub(super) fn finish(&mut self, tools: &mut Tools) -> Result<()> {
        while self.read_syslog(tools)? {}
        let (channels, mut sinks) = self.sinks(tools);
        channels.iter_mut().try_for_each(|channel| channel.close(&mut sinks))?;
        self.settle();
        Ok(())
    }

    /// Answers the waiting reapers, if all output has been read and written.
    pub(super) fn settle(&mut self) {
        if let Some(log) = &mut self.log {
            log.tell_lost();
        }
        if !self.waiting.is_empty() && self.channels.iter().all(Channel::is_drained) {
            for peer in self.waiting.drain(..) {
                intake::answer(peer, Ok(String::new()), &[]);
            }
            // The next start brings a new socket; the log is opened again when there is something to write.
            self.syslog = None;
            if let Some(log) = &mut self.log {
                log.close();
            }
        }
    }
}

/// The priority (without the facility) and the text of a syslog message, which may have several lines.
fn syslog_message(message: &[u8]) -> (u8, &[u8]) {
    const INFO: u8 = 6;
    let text = message.strip_suffix(b"\0").unwrap_or(message);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let head = text.strip_prefix(b"<").and_then(|rest| {
        let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
        let number: u16 = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        Some(((number % 8).to_le_bytes()[0], &rest[end + 1..]))
    });
    head.unwrap_or((INFO, text))
}

fn listener(place: &OwnedFd, name: &str) -> Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let what = || format!("bind({name:?})");
    // By the descriptor: a path with the app's name may be too long for a socket, and this path has no links of the
    // pod.
    let path = Path::new("/proc/self/fd").join(place.as_raw_fd().to_string()).join(name);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).context(|| "socket")?;
    // bind(2) makes the file with the socket's mode.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600)).context(what)?;
    bind(&socket, &SocketAddrUnix::new(&path).context(what)?).context(what)?;
    listen(&socket, BACKLOG).context(what)?;
    Ok(socket)
}

trait WithWhat<T> {
    fn with_what(self, name: &str) -> Result<T>;
}

impl<T> WithWhat<T> for Result<T> {
    fn with_what(self, name: &str) -> Result<T> {
        self.context(|| format!("what was handed over as {name}"))
    }
}

/// Refuses a descriptor that is not of the kind that its name says.
fn check(name: &str, fd: impl AsFd) -> Result<()> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).context(|| "fstat")?.st_mode);
    match name {
        TTY => pty::check(&fd),
        SYSLOG if kind == FileType::Socket => {
            match rustix::net::sockopt::socket_type(&fd).context(|| "getsockopt(SO_TYPE)")? {
                SocketType::DGRAM => Ok(()),
                _ => Err(Error::new("not a datagram socket")),
            }
        }
        "stdin" | "stdout" | "stderr" if kind == FileType::Fifo => Ok(()),
        _ => Err(Error::new("it is of another kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::mux::console::{Console, Show};
    use crate::mux::file::Bounds;
    use crate::mux::listener::Spare;
    use crate::mux::poller::Poller;
    use crate::streams::LogFile;
    use rustix::net::{SendFlags, socketpair};
    use std::cell::Cell;
    use std::os::unix::net::UnixDatagram;
    use std::rc::Rc;

    fn tools() -> Tools {
        let poller = Poller::new().unwrap();
        let console = Console::new(Show::Nothing, &poller, [0; 2]).unwrap();
        let (scratch, gathered, draft) = (vec![0; crate::mux::channel::CHUNK], Vec::new(), Vec::new());
        let serial = Rc::new(Cell::new(0));
        Tools { poller, serial, console, scratch, gathered, draft, spare: Spare::new().unwrap() }
    }

    /// An app whose output goes into a file of `directory`, as a kubelet has it.
    fn app(directory: &Path, tools: &Tools) -> App {
        let log = Some((LogFile::new(Format::Cri, "a.log").unwrap(), directory.display().to_string()));
        let declared = DeclaredStreams { log, ..DeclaredStreams::default() };
        let bounds = Bounds { size: 1 << 20, files: 1 };
        let settings = Settings { driver: Driver::None, bounds, show: Show::Nothing };
        App::new("a".parse().unwrap(), declared, 0, &settings, "uuid", tools).unwrap()
    }

    /// What is in that file: the lines without time and stream.
    fn written(directory: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(directory.join("a.log")).unwrap();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned()).collect()
    }

    /// A caller who says that the app has ended: both ends.
    fn caller(app: &App) -> (Watched, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (app.tokens.watched(ours, Job::Peer), theirs)
    }

    fn answer(theirs: &OwnedFd) -> Option<String> {
        let mut text = [0; 64];
        let (count, _) = rustix::net::recv(theirs, &mut text[..], RecvFlags::DONTWAIT).ok()?;
        Some(String::from_utf8_lossy(&text[..count]).into_owned())
    }

    #[test]
    fn an_end_is_answered_when_all_is_taken() {
        let tmp = tempfile::tempdir().unwrap();
        let mut tools = tools();
        let mut app = app(tmp.path(), &tools);
        let (read, write) = rustix::pipe::pipe().unwrap();
        app.begin(true, vec![("stdout".to_owned(), read)]).unwrap();
        // More than is read in one go.
        let lines: Vec<String> = (0..100_000).map(|n| n.to_string()).collect();
        let text = lines.join("\n") + "\n";
        assert!(text.len() > 8 * (64 << 10));
        assert_eq!(rustix::io::write(&write, text.as_bytes()).unwrap(), text.len());
        let (ours, theirs) = caller(&app);
        app.ended(ours, &mut tools).unwrap();
        let mut turns = 0;
        let answer = loop {
            app.settle();
            if let Some(answer) = answer(&theirs) {
                break answer;
            }
            let (channels, mut sinks) = app.sinks(&mut tools);
            channels.iter_mut().for_each(|channel| channel.catch_up(&mut sinks).unwrap());
            turns += 1;
            assert!(turns < 100, "no answer");
            if turns == 1 {
                // What comes after its end, from a process that it has left behind, is not waited for.
                rustix::io::write(&write, b"late\n").unwrap();
            }
        };
        assert!(turns > 0 && answer.starts_with("ok"), "{turns} {answer}");
        let written = written(tmp.path());
        assert!(written.len() >= lines.len() && written[..lines.len()] == lines[..], "{} lines", written.len());
    }

    #[test]
    fn messages_to_syslog_are_taken_before_an_end_is_answered() {
        let tmp = tempfile::tempdir().unwrap();
        let mut tools = tools();
        for pod_ends in [false, true] {
            let mut app = app(tmp.path(), &tools);
            let (log, client) = UnixDatagram::pair().unwrap();
            client.set_nonblocking(true).unwrap();
            app.begin(true, vec![(SYSLOG.to_owned(), log.into())]).unwrap();
            let mut sent = Vec::new();
            loop {
                let text = format!("{pod_ends} {}", sent.len());
                match rustix::net::send(&client, format!("<12>{text}").as_bytes(), SendFlags::NOSIGNAL) {
                    Ok(_) => sent.push(text),
                    Err(errno) => break assert_eq!(errno, Errno::AGAIN),
                }
            }
            assert!(!sent.is_empty());
            let before = tmp.path().join("a.log").metadata().map_or(0, |stat| stat.len());
            assert!(pod_ends || before == 0);
            if pod_ends {
                app.finish(&mut tools).unwrap();
            } else {
                let (ours, theirs) = caller(&app);
                app.ended(ours, &mut tools).unwrap();
                app.settle();
                assert!(answer(&theirs).is_some_and(|answer| answer.starts_with("ok")));
            }
            let written = written(tmp.path());
            assert_eq!(written[written.len() - sent.len()..], sent[..]);
        }
    }

    #[test]
    fn syslog_messages() {
        for (message, expected) in [
            (&b"<12>tag: by syslog"[..], (4, &b"tag: by syslog"[..])),
            (b"<191>x\n\0", (7, b"x")),
            (b"plain", (6, b"plain")),
            (b"<x>y", (6, b"<x>y")),
            (b"<99999>y", (6, b"<99999>y")),
            (b"", (6, b"")),
        ] {
            assert_eq!(syslog_message(message), expected);
        }
    }

    #[test]
    fn only_what_a_name_says_is_taken() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let (read, _write) = rustix::pipe::pipe().unwrap();
        let (stream, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let (master, _slave) = pty::open_pair_in(layout::DEVPTS).unwrap();
        check("stdout", &read).unwrap();
        check(SYSLOG, &datagram).unwrap();
        check(TTY, &master).unwrap();
        for name in ["stdout", SYSLOG, TTY, "else"] {
            assert!(check(name, &file).is_err() && check(name, &stream).is_err(), "{name}");
        }
    }
}
