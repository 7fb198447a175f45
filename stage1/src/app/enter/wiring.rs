//! The standard descriptors of a command that enters a pod, and the caller's side of them.
//!
//! | the caller's descriptor | `auto` | `always` | `never` |
//! |---|---|---|---|
//! | a terminal | a terminal made inside | a terminal made inside | a pipe |
//! | an unnamed pipe, a socket | the same | a terminal made inside | the same |
//! | /dev/null | the app's | a terminal made inside | the app's |
//! | anything else | a pipe | a terminal made inside | a pipe |
//!
//! Descriptors that become a terminal become the same one, which also controls the command's session. A command without
//! a terminal leads a session too: the caller's terminal would be its `/dev/tty` otherwise.
//!
//! Files stay outside: a process that may inspect the command could open them anew through `/proc/PID/fd`, for writing
//! too. What the command has not read of a file is left for the file's next reader.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Uid};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::copier::Copier;
use super::end_of_input::{Due, Ending};
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::{fd_passing, mount, process, pty};
use crate::terminal::{self, Caller, Files, Flow, Foreground, Stepped, own, standard};

/// Whether the command gets a terminal: see the table of the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tty {
    /// If the caller has one.
    #[default]
    Auto,
    /// In any case, for all three standard descriptors.
    Always,
    /// In no case.
    Never,
}

impl std::str::FromStr for Tty {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => Err(Error::new(format!("{other:?} is not auto, always or never"))),
        }
    }
}

/// The kind of a standard descriptor of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallerKind {
    Terminal,
    /// An unnamed pipe or a socket: it leads to its other end only.
    Connection,
    Null,
    /// A regular file, which has a position.
    File,
    /// A FIFO or a device.
    Other,
}

impl CallerKind {
    /// The kind of a descriptor.
    ///
    /// # Errors
    /// It is a directory: with it the command could leave its root.
    fn of(number: usize) -> Result<Self> {
        const PIPEFS: u64 = 0x5049_5045;
        let fd = standard(number);
        let stat = rustix::fs::fstat(fd).context(|| format!("fstat({number})"))?;
        Ok(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                return Err(Error::new(format!("standard descriptor {number} is a directory of the host")));
            }
            _ if rustix::termios::isatty(fd) => Self::Terminal,
            FileType::Socket => Self::Connection,
            FileType::Fifo => {
                let fs = rustix::fs::fstatfs(fd).context(|| format!("fstatfs({number})"))?;
                if u64::try_from(fs.f_type).is_ok_and(|magic| magic == PIPEFS) { Self::Connection } else { Self::Other }
            }
            FileType::CharacterDevice if is_null(stat.st_rdev) => Self::Null,
            FileType::RegularFile | FileType::BlockDevice => Self::File,
            _ => Self::Other,
        })
    }
}

impl CallerKind {
    fn is_file(self) -> bool {
        !matches!(self, Self::Terminal | Self::Connection)
    }

    fn source(self) -> Files {
        Files { source: self.is_file(), sink: false }
    }

    fn sink(self) -> Files {
        Files { source: false, sink: self.is_file() }
    }
}

fn is_null(device: rustix::fs::Dev) -> bool {
    (rustix::fs::major(device), rustix::fs::minor(device)) == (1, 3)
}

/// A standard descriptor of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandStream {
    Callers,
    Terminal,
    /// The app's /dev/null.
    Null,
    Pipe,
}

fn stream(tty: Tty, callers: CallerKind) -> CommandStream {
    match (tty, callers) {
        (Tty::Always, _) | (Tty::Auto, CallerKind::Terminal) => CommandStream::Terminal,
        (Tty::Auto | Tty::Never, CallerKind::Connection) => CommandStream::Callers,
        (Tty::Auto | Tty::Never, CallerKind::Null) => CommandStream::Null,
        (Tty::Never, CallerKind::Terminal) | (_, CallerKind::File | CallerKind::Other) => CommandStream::Pipe,
    }
}

/// Both sides before the fork: the child keeps [`Wiring::inside`], the parent [`Wiring::outside`].
pub(super) struct Wiring {
    /// The command's side.
    pub(super) inside: Inside,
    /// The caller's side.
    pub(super) outside: Outside,
}

/// The command's side.
pub(super) struct Inside {
    streams: [CommandStream; 3],
    pipes: [Option<OwnedFd>; 3],
    /// The socket for sending the terminal's other end to the parent.
    channel: Option<OwnedFd>,
    /// The settings of the caller's terminal.
    settings: Option<pty::Settings>,
}

/// The caller's side: the flows, and the terminal's other end once it has been received.
pub(super) struct Outside {
    streams: [CommandStream; 3],
    kinds: [CallerKind; 3],
    tty: Tty,
    foreground: Foreground,
    channel: Option<OwnedFd>,
    pty: Option<Pty>,
    ending: Ending,
    read_ahead: Option<ReadAhead>,
    outputs: Vec<Flow>,
    copiers: Vec<Copier>,
    /// The first error of a caller's file.
    error: Option<Error>,
}

/// The terminal of the command. The command's end is kept open too, so that the terminal does not hang up before the
/// command has opened it.
struct Pty {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Wiring {
    /// Makes both sides for this process's standard descriptors. Host side.
    ///
    /// # Errors
    /// A call fails, or a descriptor is a directory: with it the command could leave its root.
    pub(super) fn new(tty: Tty) -> Result<Self> {
        let kinds = [CallerKind::of(0)?, CallerKind::of(1)?, CallerKind::of(2)?];
        let streams = kinds.map(|kind| stream(tty, kind));
        let (caller, (mine, childs)) = if streams.contains(&CommandStream::Terminal) {
            let (mine, childs) = fd_passing::pair()?;
            (Caller::find()?, (Some(mine), Some(childs)))
        } else {
            (None, (None, None))
        };
        let settings = caller.as_ref().map(Caller::settings).transpose()?;
        let types = streams[0] == CommandStream::Terminal && kinds[0] == CallerKind::Terminal;
        let mut wiring = Self {
            inside: Inside { streams, pipes: [None, None, None], channel: childs, settings },
            outside: Outside {
                streams,
                kinds,
                tty,
                foreground: Foreground::new(caller, types),
                channel: mine,
                pty: None,
                ending: Ending::default(),
                read_ahead: None,
                outputs: Vec::new(),
                copiers: Vec::new(),
                error: None,
            },
        };
        for (number, stream) in streams.iter().enumerate() {
            if *stream == CommandStream::Pipe {
                wiring.add_pipe(number)?;
            }
        }
        Ok(wiring)
    }

    fn add_pipe(&mut self, number: usize) -> Result<()> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context(|| "pipe")?;
        // The command may open it anew, for example as /dev/stdout, as any user of any user namespace.
        rustix::fs::fchmod(&read, Mode::from_raw_mode(0o666)).context(|| "fchmod(pipe)")?;
        // A large pipe makes copying faster; a failure only makes it slower.
        if let Err(errno) = rustix::pipe::fcntl_setpipe_size(&read, PIPE) {
            log::debug!("fcntl(F_SETPIPE_SZ, {PIPE}): {errno}");
        }
        let kind = self.outside.kinds[number];
        let childs = if number == 0 {
            terminal::set_nonblocking(&write)?;
            if kind == CallerKind::File {
                self.outside.read_ahead = Some(ReadAhead { pipe: own(&read, OFlags::RDONLY)? });
            }
            let flow = |source| Flow::new(source, write).of_files(kind.source()).spliced();
            self.outside.foreground.input = input(kind)?.map(flow);
            read
        } else {
            terminal::set_nonblocking(&read)?;
            match output(number)? {
                Some(sink) if kind.is_file() => {
                    let flow = |read, sink| Flow::new(read, sink).of_files(kind.sink()).spliced();
                    self.outside.copiers.push(Copier::start(read, sink, flow)?);
                }
                sink => self.outside.outputs.extend(sink.map(|sink| Flow::new(read, sink))),
            }
            write
        };
        self.inside.pipes[number] = Some(childs);
        Ok(())
    }
}

/// How much a pipe between the caller's file and the command holds, in bytes.
const PIPE: usize = 1 << 20;

/// Whether a standard descriptor can be used in this direction. If not, it counts as at its end, or without a reader.
fn allows(number: usize, no: OFlags) -> Result<bool> {
    let flags = rustix::fs::fcntl_getfl(standard(number)).context(|| format!("fcntl({number}, F_GETFL)"))?;
    Ok(flags & OFlags::ACCMODE != no && !flags.contains(OFlags::PATH))
}

/// Standard input, for reading.
fn input(kind: CallerKind) -> Result<Option<OwnedFd>> {
    if !allows(0, OFlags::WRONLY)? {
        return Ok(None);
    }
    match kind {
        CallerKind::Terminal => own(standard(0), OFlags::RDONLY),
        // A FIFO opened anew would not show that its writer has gone already.
        _ => standard(0).try_clone_to_owned().context(|| "dup(0)"),
    }
    .map(Some)
}

/// Standard output or error, for writing.
fn output(number: usize) -> Result<Option<OwnedFd>> {
    if !allows(number, OFlags::RDONLY)? {
        return Ok(None);
    }
    match own(standard(number), OFlags::WRONLY) {
        // A FIFO without a reader.
        Err(error) if error.errno() == Some(libc::ENXIO) => Ok(None),
        other => other.map(Some),
    }
}

/// The position of the caller's file from which the command's input is read.
struct ReadAhead {
    /// The command's end of the pipe, opened anew.
    pipe: OwnedFd,
}

impl ReadAhead {
    /// Sets the file back to the position up to which the command has read it. `held` bytes were read but not written
    /// to the pipe.
    fn give_back(self, held: usize) -> Result<()> {
        let mut unread = held;
        let mut buffer = vec![0; 1 << 16];
        loop {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(count) => unread += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context(|| "read what the command left"),
            }
        }
        if unread == 0 {
            return Ok(());
        }
        let back = -i64::try_from(unread).context(|| "position")?;
        rustix::fs::seek(standard(0), SeekFrom::Current(back)).map(drop).context(|| format!("lseek(0, {back})"))
    }
}

impl Inside {
    /// All descriptors of this side.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().flatten().chain(&self.channel).map(AsFd::as_fd)
    }

    /// Replaces, or closes, the standard descriptors of the caller that the command does not get. In the pod's root,
    /// before the pod can see this process.
    pub(super) fn leave_callers(&self) -> Result<()> {
        let nothing = null()?;
        for ((pipe, stream), number) in self.pipes.iter().zip(self.streams).zip(0..) {
            match (pipe, stream) {
                (_, CommandStream::Callers) => {}
                (Some(pipe), _) => process::set_standard_fd(pipe, number)?,
                (None, _) => process::set_standard_fd(&nothing, number)?,
            }
        }
        Ok(())
    }

    /// Gives this process the command's standard descriptors, and makes `uid` the terminal's owner. Pod side, in the
    /// command's root; this process leads a session without a terminal.
    pub(super) fn connect(self, uid: u32) -> Result<()> {
        let mut ends = self.pipes;
        for (end, _) in ends.iter_mut().zip(self.streams).filter(|(_, stream)| *stream == CommandStream::Null) {
            *end = Some(null()?);
        }
        if let Some(channel) = self.channel {
            let (master, slave) = pty::open_pair_in(layout::DEVPTS)?;
            self.settings.map_or(Ok(()), |settings| settings.apply(&slave))?;
            // So that the command may open it anew.
            rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None)
                .context(|| format!("fchown(terminal, {uid})"))?;
            pty::control(&slave)?;
            fd_passing::send(channel, master)?;
            for (end, _) in ends.iter_mut().zip(self.streams).filter(|(_, stream)| *stream == CommandStream::Terminal) {
                *end = Some(slave.try_clone().context(|| "dup(terminal)")?);
            }
        }
        for (end, number) in ends.iter().zip(0..) {
            let Some(end) = end else { continue };
            process::set_standard_fd(end, number)?;
        }
        Ok(())
    }
}

/// This root's /dev/null. Pod side.
fn null() -> Result<OwnedFd> {
    const PATH: &str = "/dev/null";
    // A FIFO may be there instead: do not block on it.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::open(PATH, flags, Mode::empty()).context(|| format!("open {PATH}"))?;
    mount::check_device(&node, 1, 3, "null")?;
    rustix::fs::fcntl_setfl(&node, OFlags::RDWR).context(|| "fcntl(F_SETFL)")?;
    Ok(node)
}

impl Outside {
    /// Waits until there is something to copy or `signals` is readable, and copies. Returns whether `signals` is
    /// readable.
    pub(super) fn step(&mut self, signals: BorrowedFd<'_>) -> Result<bool> {
        let copiers = self.copiers.iter().map(Copier::end);
        let wake: Vec<_> = [signals].into_iter().chain(copiers).chain(self.channel.as_ref().map(AsFd::as_fd)).collect();
        let timeout = self.pty.as_ref().and_then(|_| self.ending.quiet());
        let Stepped { woken, is_changed } = self.foreground.step(&mut self.outputs, &wake, timeout)?;
        let of_channel = woken.get(1 + self.copiers.len()) == Some(&true);
        for index in (0..self.copiers.len()).rev().filter(|index| woken[1 + index]) {
            let done = self.copiers.remove(index).outcome();
            self.error = self.error.take().or(done.err());
        }
        if of_channel
            && let Some(channel) = self.channel.take()
            && let Some(master) = fd_passing::receive(channel)?
        {
            self.connect(master)?;
        }
        if is_changed {
            self.resized()?;
        }
        for flow in self.foreground.input.iter_mut().chain(&mut self.outputs) {
            self.error = self.error.take().or_else(|| flow.take_error());
        }
        let at_end = self.foreground.has_input_ended();
        self.outputs.retain(|flow| !flow.is_done());
        if at_end && self.pty.is_some() && !self.foreground.types() {
            self.ending.input_ended();
        }
        // The caller's terminal is gone, or the reader of the command's output.
        let is_cut = (at_end && self.foreground.types()) || self.outputs.is_empty();
        if self.pty.is_some() && (is_cut || self.pass_ends_on()?) {
            self.hang_up();
        }
        Ok(woken[0])
    }

    /// Passes the end of the caller's input on to the command's terminal. Returns whether that is to be hung up.
    fn pass_ends_on(&mut self) -> Result<bool> {
        let Some(Pty { master, slave }) = &self.pty else { return Ok(false) };
        match self.ending.due(|| pty::is_readable(slave), || pty::end_of_input(slave))? {
            Due::Nothing => Ok(false),
            Due::HangUp => Ok(true),
            Due::Send(character) => match rustix::io::write(master, &[character]) {
                // It is full, or was hung up from inside: there is a next look.
                Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::IO) => Ok(false),
                Err(errno) => Err(errno).context(|| "write the end of the input"),
            },
        }
    }

    /// Receives the command's terminal.
    fn connect(&mut self, master: OwnedFd) -> Result<()> {
        terminal::set_nonblocking(&master)?;
        let slave = pty::slave_of(&master)?;
        let end = || master.try_clone().context(|| "dup(pty)");
        if self.streams[0] == CommandStream::Terminal {
            let files = self.kinds[0].source();
            match input(self.kinds[0])? {
                Some(source) => self.foreground.set_input(Some(Flow::new(source, end()?).of_files(files))),
                None => self.ending.input_ended(),
            }
        }
        let (shown, files) = match self.foreground.caller() {
            Some(caller) if self.tty != Tty::Always => (Some(caller.output()?), Files::default()),
            _ => (output(1)?, self.kinds[1].sink()),
        };
        let from = end()?;
        self.outputs.extend(shown.map(|shown| Flow::new(from, shown).of_files(files)));
        self.pty = Some(Pty { master, slave });
        self.foreground.begin()?;
        self.resized()
    }

    /// Closes the command's terminal: its foreground processes get SIGHUP, and read the end of the input.
    fn hang_up(&mut self) {
        self.pty = None;
        self.foreground.set_input(None);
        self.outputs.clear();
    }

    /// The command was sent a signal that is to end it. Its terminal is hung up if it does not end by that.
    pub(super) fn asked_to_end(&mut self) {
        self.ending.asked_to_end();
    }

    /// Passes on the new size of the caller's terminal.
    pub(super) fn resized(&self) -> Result<()> {
        match (self.foreground.caller(), &self.pty) {
            (Some(caller), Some(pty)) => caller.copy_size(&pty.master),
            _ => Ok(()),
        }
    }

    /// Restores the caller's terminal before this process stops.
    pub(super) fn stopping(&mut self) -> Result<()> {
        self.foreground.give_back()
    }

    /// Takes the caller's terminal again after this process was continued.
    pub(super) fn continued(&mut self) -> Result<()> {
        self.foreground.continued()?;
        self.resized()
    }

    /// Notes that the command has ended: the rest of its output is copied, then [`Self::is_done`] is true.
    pub(super) fn finish(&mut self) -> Result<()> {
        let held = self.foreground.input.take().map_or(0, |input| input.held());
        (self.channel, self.ending) = (None, Ending::default());
        self.outputs.iter_mut().for_each(Flow::finish);
        self.copiers.iter_mut().for_each(Copier::finish);
        self.read_ahead.take().map_or(Ok(()), |read_ahead| read_ahead.give_back(held))
    }

    /// The error of a file of the caller, if any; the command saw the end of its input, or a missing reader.
    pub(super) fn check(self) -> Result<()> {
        self.error.map_or(Ok(()), Err)
    }

    /// Whether everything is written, after [`Self::finish`].
    pub(super) fn is_done(&self) -> bool {
        self.outputs.is_empty() && self.copiers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_terminal_nor_a_file_is_handed_in() {
        for tty in [Tty::Auto, Tty::Always, Tty::Never] {
            for kind in [CallerKind::Terminal, CallerKind::File, CallerKind::Null, CallerKind::Other] {
                assert_ne!(stream(tty, kind), CommandStream::Callers, "{tty:?} {kind:?}");
            }
        }
        assert_eq!(stream(Tty::Auto, CallerKind::Connection), CommandStream::Callers);
        assert_eq!(stream(Tty::Always, CallerKind::Connection), CommandStream::Terminal);
        assert_eq!(stream(Tty::Never, CallerKind::Terminal), CommandStream::Pipe);
        assert_eq!(stream(Tty::Never, CallerKind::Connection), CommandStream::Callers);
        assert_eq!(stream(Tty::Auto, CallerKind::Null), CommandStream::Null);
    }

    #[test]
    fn words() {
        for (word, tty) in [("auto", Tty::Auto), ("always", Tty::Always), ("never", Tty::Never)] {
            assert_eq!(word.parse::<Tty>().unwrap(), tty);
        }
        assert!("maybe".parse::<Tty>().unwrap_err().one_line().contains("\"maybe\""));
    }
}
