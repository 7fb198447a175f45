//! Attaching to the streams of an app. Host side, in the pod directory.
//!
//! The pod's monitor gives out the connections at its socket in the pod's directory, which no process of the pod can
//! reach.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use nix::sys::signalfd::SignalFd;
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvFlags, Shutdown};

use super::{EndpointList, NAMES, PASSED_ON, TTY, call};
use crate::appc::AcName;
use crate::cross::Target;
use crate::error::{Context, Error, Result, exit};
use crate::pod::{self, Pod, State};
use crate::sys::{process, signal};
use crate::terminal::{self, Caller, DetachKeys, Flow, Foreground, Stepped, own, standard};

/// How long to wait for the exit status of an app that has closed its output.
const STATUS: Duration = Duration::from_secs(3);
/// How often to look for it.
const LOOK: Duration = Duration::from_millis(10);
/// How often to check whether [`LEAVE`] has passed.
const LEAVING: Duration = Duration::from_millis(200);
/// How long the app may take to read what was typed before the detach keys.
const LEAVE: Duration = Duration::from_millis(500);
/// Ends the input on a terminal, at the start of a line: Ctrl-D.
const END_OF_INPUT: u8 = 4;

/// What attach does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Print the list of endpoints.
    List,
    /// Attach to all endpoints.
    Auto,
    /// Attach to the named endpoints.
    Custom,
    /// Make the monitor open the app's log file for a kubelet anew.
    ReopenLog,
}

impl std::str::FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "list" => Ok(Self::List),
            "auto-attach" => Ok(Self::Auto),
            "custom-attach" => Ok(Self::Custom),
            "reopen-log" => Ok(Self::ReopenLog),
            _ => Err(Error::new(format!("action {text:?}: use list, auto-attach, custom-attach or reopen-log"))),
        }
    }
}

/// The streams to attach to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedStreams {
    /// The input of the terminal.
    pub tty_in: bool,
    /// The output of the terminal.
    pub tty_out: bool,
    /// Standard input, output, error.
    pub streams: [bool; 3],
}

impl WantedStreams {
    /// All streams of the app.
    fn all(targets: &EndpointList) -> Self {
        let tty = targets.has(TTY);
        Self { tty_in: tty, tty_out: tty, streams: NAMES.map(|name| targets.has(name)) }
    }

    /// The names of their endpoints.
    ///
    /// # Errors
    /// No stream is named, or the app does not have it.
    fn endpoints(self, app: &AcName, targets: &EndpointList) -> Result<Vec<&'static str>> {
        let streams = NAMES.into_iter().zip(self.streams).filter(|(_, wanted)| *wanted).map(|(name, _)| name);
        let names: Vec<&str> = streams.chain((self.tty_in || self.tty_out).then_some(TTY)).collect();
        if names.is_empty() {
            let why = match targets.0.is_empty() {
                true => format!("app {app} has nothing to attach to: all its streams are /dev/null"),
                false => "no stream to attach to was named".to_owned(),
            };
            return Err(Error::new(why).with_exit_code(exit::USAGE));
        }
        match names.iter().find(|name| !targets.has(name)) {
            Some(missing) => {
                let there: Vec<&str> = targets.0.iter().map(|target| target.name.as_str()).collect();
                Err(Error::new(format!("app {app} has no {missing} to attach to; it has {}", there.join(", "))))
            }
            None => Ok(names),
        }
    }
}

/// The arguments of attach.
#[derive(Debug)]
pub struct Attachment {
    /// The app.
    pub app: AcName,
    /// The streams to attach to, for [`Action::Custom`].
    pub wanted: WantedStreams,
    /// The end of our standard input ends the app's input.
    pub pass_end: bool,
    /// Leave out what the app wrote before.
    pub from_now: bool,
    /// The keys that detach from a terminal.
    pub keys: DetachKeys,
    /// Return the app's exit status, once it has ended.
    pub exit_code: bool,
}

/// Executes `action` in the pod of the current directory. Returns the exit code: 0, or the app's exit status if
/// [`Attachment::exit_code`] is set.
///
/// # Errors
/// The app has no such streams, the monitor can't be reached, or it closed a connection before the app's end, so that
/// output is missing.
pub fn attach(action: Action, what: &Attachment) -> Result<u8> {
    process::close_on_exec_from_3()?;
    process::not_dumpable()?;
    let app = &what.app;
    if action == Action::ReopenLog {
        return call::from_host(&[call::REOPEN, app.as_ref()]).map(|_| 0);
    }
    let targets = endpoints(app)?;
    let wanted = match action {
        Action::List => {
            println!("{}", targets.text());
            return Ok(0);
        }
        Action::Custom => what.wanted,
        _ => WantedStreams::all(&targets),
    };
    let names = wanted.endpoints(app, &targets)?;
    // The monitor sends earlier output to a client unless another one is attached.
    let outputs: Vec<_> = names.iter().copied().filter(|name| what.from_now && *name != NAMES[0]).collect();
    let others = Connections::open(app, &outputs)?;
    let connections = Connections::open(app, &names)?;
    drop(others);
    Session::new(what, wanted, connections)?.run()
}

/// The endpoints of an app.
fn endpoints(app: &AcName) -> Result<EndpointList> {
    let (names, _) = call::from_host(&[call::LIST, app.as_ref()])?;
    Ok(EndpointList::new(app, names.split_whitespace()))
}

/// The connections to the pod's monitor.
struct Connections {
    sockets: Vec<(&'static str, OwnedFd)>,
    /// The number of the connection to the terminal.
    terminal: String,
}

impl Connections {
    fn open(app: &AcName, names: &[&'static str]) -> Result<Self> {
        let (mut sockets, mut terminal) = (Vec::new(), String::new());
        for name in names {
            let (number, mut fds) = call::from_host(&[call::ATTACH, app.as_ref(), name])
                .context(|| format!("attach to {name} of app {app}"))?;
            let socket = fds.pop().context(|| "no connection came")?;
            terminal::set_nonblocking(&socket)?;
            sockets.push((*name, socket));
            if *name == TTY {
                terminal = number;
            }
        }
        Ok(Self { sockets, terminal })
    }

    fn get(&self, name: &str) -> Result<OwnedFd> {
        let found = self.sockets.iter().find(|(other, _)| *other == name);
        let (_, socket) = found.context(|| format!("no connection to {name}"))?;
        socket.try_clone().context(|| "dup(socket)")
    }
}

/// Why an attachment ended without a failure.
enum End {
    /// The app has closed its output.
    App,
    /// The caller has typed the detach keys.
    Detached,
    /// The reader of our output has gone.
    NoReader,
    /// A signal tells us to end.
    Signal(Signal),
    /// We had input only, and have passed all of it on.
    Sent,
}

/// A running attachment.
struct Session<'a> {
    what: &'a Attachment,
    connections: Connections,
    foreground: Foreground,
    /// The endpoint that our input goes to.
    input_name: Option<&'static str>,
    outputs: Vec<(&'static str, Flow)>,
    /// The monitor was told the end of our input.
    asked_to_end: bool,
    signals: SignalFd,
}

/// Signals that end an attachment.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

impl<'a> Session<'a> {
    fn new(what: &'a Attachment, wanted: WantedStreams, connections: Connections) -> Result<Self> {
        let others = [Signal::SIGWINCH, Signal::SIGCONT, Signal::SIGTSTP];
        let signals = signal::block(&[&ENDING[..], &others].concat())?;
        let typed = rustix::termios::isatty(standard(0));
        let caller = if wanted.tty_in || wanted.tty_out { Caller::find()? } else { None };
        let mut session = Self {
            what,
            connections,
            foreground: Foreground::new(caller, typed && wanted.tty_in),
            input_name: None,
            outputs: Vec::new(),
            asked_to_end: false,
            signals,
        };
        if wanted.tty_in || wanted.streams[0] {
            let name = if wanted.tty_in { TTY } else { NAMES[0] };
            let flow = Flow::new(own(standard(0), OFlags::RDONLY)?, session.connections.get(name)?);
            session.foreground.set_input(Some(match (wanted.tty_in, typed) {
                (true, true) => flow.with_keys(what.keys.clone()),
                // The first one ends a last line without a newline.
                (true, false) if what.pass_end => flow.with_farewell(vec![END_OF_INPUT; 2]),
                _ => flow,
            }));
            session.input_name = Some(name);
        }
        for (number, name) in NAMES.into_iter().enumerate().skip(1).filter(|(number, _)| wanted.streams[*number]) {
            let flow = Flow::new(session.connections.get(name)?, own(standard(number), OFlags::WRONLY)?);
            session.outputs.push((name, flow.spliced()));
        }
        if wanted.tty_in || wanted.tty_out {
            let shown = match wanted.tty_out {
                true => own(standard(1), OFlags::WRONLY)?,
                // The monitor drops a client that does not read.
                false => null()?,
            };
            session.outputs.push((TTY, Flow::new(session.connections.get(TTY)?, shown)));
        }
        Ok(session)
    }

    fn run(mut self) -> Result<u8> {
        self.foreground.begin()?;
        self.resized()?;
        let ended = self.copy();
        // Restore the terminal before printing anything.
        self.foreground.give_back()?;
        match ended? {
            End::App if self.what.exit_code => exit_code(&self.what.app),
            End::App | End::Sent => Ok(0),
            End::Detached => {
                eprintln!("\r\nattach: detached from app {}; it keeps running", self.what.app);
                Ok(0)
            }
            End::NoReader => signal::die_by(Signal::SIGPIPE),
            End::Signal(by) => signal::die_by(by),
        }
    }

    fn copy(&mut self) -> Result<End> {
        let mut leaves_at: Option<Instant> = None;
        loop {
            let timeout = leaves_at.is_some().then_some(LEAVING);
            // With input only, watch for the end of the other side too.
            let name = self.input_name.filter(|_| self.outputs.is_empty());
            let closed = name.map(|name| self.connections.get(name)).transpose()?;
            let wake = [Some(self.signals.as_fd()), closed.as_ref().map(AsFd::as_fd)];
            let wake: Vec<_> = wake.into_iter().flatten().collect();
            let outputs = self.outputs.iter_mut().map(|(_, flow)| flow);
            let Stepped { woken, is_changed } = self.foreground.step(outputs, &wake, timeout)?;
            if woken[0]
                && let Some(end) = self.take_signals()?
            {
                return Ok(end);
            }
            if is_changed {
                self.resized()?;
            }
            if let Some(input) = self.foreground.input.as_ref().filter(|input| input.is_detached()) {
                // What was typed before the keys still goes to the app, if it reads it in time.
                if input.is_done() || Instant::now() >= *leaves_at.get_or_insert_with(|| Instant::now() + LEAVE) {
                    return Ok(End::Detached);
                }
            } else if self.foreground.has_input_ended()
                && let Some(end) = self.input_ended()?
            {
                return Ok(end);
            }
            if let (Some(name), Some(true)) = (name, woken.get(1)) {
                return self.other_side_closed(name);
            }
            while let Some(at) = self.outputs.iter().position(|(_, flow)| flow.is_done()) {
                let (name, _) = self.outputs.remove(at);
                match self.other_side_closed(name)? {
                    End::App if self.outputs.is_empty() => return Ok(End::App),
                    End::App => {}
                    other => return Ok(other),
                }
            }
        }
    }

    /// Handles the end of our input or of the app's.
    fn input_ended(&mut self) -> Result<Option<End>> {
        let Some(name) = self.input_name else { return Ok(None) };
        if self.foreground.types() && self.foreground.caller().is_some() {
            // Either the app's side has gone, which the end of its output will show, or our terminal.
            let gone = matches!(self.other_side_closed(name), Ok(End::NoReader));
            return Ok(gone.then_some(End::NoReader));
        }
        let socket = self.connections.get(name)?;
        if self.what.pass_end && name != TTY {
            match rustix::net::shutdown(&socket, Shutdown::Write) {
                // The other side has closed the connection: its input has ended too.
                Ok(()) | Err(rustix::io::Errno::NOTCONN) => {
                    self.asked_to_end = true;
                    return Ok(None);
                }
                Err(errno) => return Err(errno).context(|| "shutdown(stdin)"),
            }
        }
        Ok(self.outputs.is_empty().then_some(End::Sent))
    }

    /// Finds out why the connection `name` has ended.
    fn other_side_closed(&self, name: &'static str) -> Result<End> {
        let socket = self.connections.get(name)?;
        let mut byte = [0; 1];
        let got = rustix::net::recv(&socket, &mut byte[..], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        if self.asked_to_end && self.outputs.is_empty() {
            // A closed connection does not show which side closed it: a byte tells that the end was passed on.
            return Ok(if matches!(got, Ok((_, 1))) && byte == [PASSED_ON] { End::Sent } else { End::App });
        }
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "poll(socket)"),
        }
        let ready = fds[0].revents().unwrap_or(PollFlags::empty());
        if ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            let app = &self.what.app;
            return Err(Error::new(format!(
                "the monitor of the pod of app {app} has closed the connection to {name}: what is written here was not read \
                 fast enough, or it has ended; the app goes on, and attaching again may help"
            )));
        }
        Ok(if matches!(got, Ok((_, 0))) { End::App } else { End::NoReader })
    }

    fn take_signals(&mut self) -> Result<Option<End>> {
        while let Some(info) = self.signals.read_signal().context(|| "read(signalfd)")? {
            let number = i32::try_from(info.ssi_signo).context(|| "signal number")?;
            match Signal::try_from(number).context(|| format!("signal {number}"))? {
                Signal::SIGWINCH => self.resized()?,
                Signal::SIGCONT => {
                    self.foreground.continued()?;
                    self.resized()?;
                }
                Signal::SIGTSTP => {
                    self.foreground.give_back()?;
                    raise(Signal::SIGSTOP).context(|| "raise(SIGSTOP)")?;
                }
                ending => return Ok(Some(End::Signal(ending))),
            }
        }
        Ok(None)
    }

    /// Sends the caller's window size; the app's terminal gets it unless another client has typed since this one came.
    fn resized(&self) -> Result<()> {
        let (Some(caller), true) = (self.foreground.caller(), self.foreground.types()) else { return Ok(()) };
        let size = caller.size()?;
        let (rows, columns) = (size.ws_row.to_string(), size.ws_col.to_string());
        let words = [call::RESIZE, self.what.app.as_ref(), &rows, &columns, &self.connections.terminal];
        match call::from_host(&words) {
            Ok(_) => Ok(()),
            // The app has just ended, or the pod with its monitor.
            Err(error) => {
                log::debug!("{}", error.one_line());
                Ok(())
            }
        }
    }
}

fn null() -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, Mode::empty()).context(|| "open(\"/dev/null\")")
}

/// Waits for the exit status of an app that has closed its output; 0 if the app keeps running.
///
/// # Errors
/// The pod has ended without one, for example because it was killed.
fn exit_code(app: &AcName) -> Result<u8> {
    let here = Path::new(".");
    let mutable = Pod::load(here)?.manifest.is_mutable()?;
    let end = Instant::now() + STATUS;
    loop {
        // in this order: a pod that ends writes it down before
        let runs = Target::recorded_if_running()?.is_some();
        let status = pod::app_status(here, State::Running, mutable, app)?;
        if let Some(code) = status.exit_code {
            return Ok(code);
        }
        if !runs {
            return Err(Error::new(format!("the pod has ended, and app {app} with it, without an exit status")));
        }
        if Instant::now() >= end {
            log::warn!("app {app} has closed its output and goes on");
            return Ok(0);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_switch_attaches_to() {
        let app: AcName = "web".parse().unwrap();
        let streams = EndpointList::new(&app, NAMES);
        let tty = EndpointList::new(&app, [TTY]);
        let some = |tty_in, tty_out, streams| WantedStreams { tty_in, tty_out, streams };
        let no = [false; 3];
        for (wanted, targets, names) in [
            (some(false, false, [true, false, false]), &streams, &["stdin"][..]),
            (some(false, false, [false, true, false]), &streams, &["stdout"]),
            (some(false, false, [false, false, true]), &streams, &["stderr"]),
            (some(false, false, [true; 3]), &streams, &NAMES),
            (some(true, false, no), &tty, &["tty"]),
            (some(false, true, no), &tty, &["tty"]),
            (some(true, true, no), &tty, &["tty"]),
            (WantedStreams::all(&streams), &streams, &NAMES),
            (WantedStreams::all(&tty), &tty, &["tty"]),
        ] {
            assert_eq!(wanted.endpoints(&app, targets).unwrap(), names, "{wanted:?}");
        }
        for (wanted, targets, words) in [
            (some(false, false, no), &streams, "no stream to attach to was named"),
            (some(true, false, no), &streams, "no tty to attach to; it has stdin, stdout, stderr"),
            (some(false, false, [false, true, false]), &tty, "no stdout to attach to; it has tty"),
        ] {
            let error = wanted.endpoints(&app, targets).unwrap_err().one_line();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn actions() {
        for word in ["list", "auto-attach", "custom-attach", "reopen-log"] {
            word.parse::<Action>().unwrap();
        }
        assert!("attach".parse::<Action>().unwrap_err().one_line().contains("auto-attach"));
    }
}
