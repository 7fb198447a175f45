//! What a command that enters a pod has for its standard descriptors, and the caller's part of it.
//!
//! | the caller has | `auto` | `always` | `never` |
//! |---|---|---|---|
//! | a terminal | a terminal made inside | the same | a pipe |
//! | anything else | that itself | a terminal made inside | that itself |
//!
//! All that get a terminal get the same one, which also controls the command's session. A command without one has a
//! session of its own too: the caller's terminal would be `/dev/tty` for it otherwise.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::{channel, process, pty};
use crate::terminal::{self, Caller, Flow, own, standard};

/// Whether the command gets a terminal: the table above.
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
            other => Err(Error::new(format!("{other:?} is none of auto, always and never"))),
        }
    }
}

/// What one standard descriptor of the command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Callers,
    Terminal,
    Pipe,
}

fn stream(tty: Tty, callers_is_terminal: bool) -> Stream {
    match (tty, callers_is_terminal) {
        (Tty::Always, _) | (Tty::Auto, true) => Stream::Terminal,
        (Tty::Never, true) => Stream::Pipe,
        (Tty::Auto | Tty::Never, false) => Stream::Callers,
    }
}

/// How often a process in the background looks whether it still is.
const FOREGROUND: Duration = Duration::from_millis(200);

/// Both sides, before the fork: the child keeps [`Wiring::inside`], the parent [`Wiring::outside`].
pub(super) struct Wiring {
    /// The command's side.
    pub(super) inside: Inside,
    /// The caller's side.
    pub(super) outside: Outside,
}

/// The command's side.
pub(super) struct Inside {
    streams: [Stream; 3],
    pipes: [Option<OwnedFd>; 3],
    /// Where the terminal's other end is sent to.
    channel: Option<OwnedFd>,
}

/// The caller's side: the flows, and the terminal's other end once it has come.
pub(super) struct Outside {
    streams: [Stream; 3],
    is_terminal: [bool; 3],
    tty: Tty,
    caller: Option<Caller>,
    channel: Option<OwnedFd>,
    pty: Option<Pty>,
    input: Option<Flow>,
    outputs: Vec<Flow>,
}

/// The terminal of the command. Its command's end is held too, so that it is not at an end while the command merely
/// has not opened it.
struct Pty {
    master: OwnedFd,
    _slave: OwnedFd,
}

impl Wiring {
    /// For this process's standard descriptors, host side.
    ///
    /// # Errors
    /// Also when one of them is a directory: with it the command would be outside its root.
    pub(super) fn new(tty: Tty) -> Result<Self> {
        for number in 0..3 {
            let stat = rustix::fs::fstat(standard(number)).context(|| format!("fstat({number})"))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Err(Error::new(format!("standard descriptor {number} is a directory of the host")));
            }
        }
        let is_terminal = [0, 1, 2].map(|number| rustix::termios::isatty(standard(number)));
        let streams = is_terminal.map(|is_terminal| stream(tty, is_terminal));
        let (caller, (mine, childs)) = if streams.contains(&Stream::Terminal) {
            let (mine, childs) = channel::pair()?;
            (Caller::find()?, (Some(mine), Some(childs)))
        } else {
            (None, (None, None))
        };
        let mut wiring = Self {
            inside: Inside { streams, pipes: [None, None, None], channel: childs },
            outside: Outside {
                streams,
                is_terminal,
                tty,
                caller,
                channel: mine,
                pty: None,
                input: None,
                outputs: Vec::new(),
            },
        };
        for (number, _) in streams.iter().enumerate().filter(|(_, stream)| **stream == Stream::Pipe) {
            wiring.add_pipe(number)?;
        }
        Ok(wiring)
    }

    fn add_pipe(&mut self, number: usize) -> Result<()> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).context(|| "pipe")?;
        // The command may open it anew, as /dev/stdout for one, as any user of any user namespace.
        rustix::fs::fchmod(&read, Mode::from_raw_mode(0o666)).context(|| "fchmod(pipe)")?;
        let childs = if number == 0 {
            terminal::set_nonblocking(&write)?;
            self.outside.input = Some(Flow::new(own(standard(0), OFlags::RDONLY)?, write));
            read
        } else {
            terminal::set_nonblocking(&read)?;
            self.outside.outputs.push(Flow::new(read, own(standard(number), OFlags::WRONLY)?));
            write
        };
        self.inside.pipes[number] = Some(childs);
        Ok(())
    }
}

impl Inside {
    /// Makes the standard descriptors of this process the command's, `uid` the terminal's owner. Pod side, in the root that the
    /// command will have, by the leader of a session without a terminal.
    pub(super) fn connect(self, caller: Option<&Caller>, uid: u32) -> Result<()> {
        let mut ends = self.pipes;
        if let Some(channel) = self.channel {
            let (master, slave) = pty::open_pair_in(layout::DEVPTS)?;
            if let Some(caller) = caller {
                caller.set_up(&slave)?;
            }
            // The command may open it anew.
            rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), None)
                .context(|| format!("fchown(terminal, {uid})"))?;
            pty::control(&slave)?;
            channel::send(channel, master)?;
            for (end, _) in ends.iter_mut().zip(self.streams).filter(|(_, stream)| *stream == Stream::Terminal) {
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

impl Outside {
    /// The caller's terminal, if it has to do with this.
    pub(super) fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// Copies what there is to copy; waits until there is something, or `signals` has any. Says whether it has.
    pub(super) fn step(&mut self, signals: BorrowedFd<'_>) -> Result<bool> {
        let waits_for_caller = self.waits_for_caller();
        let mut flows: Vec<&mut Flow> = self.input.iter_mut().chain(&mut self.outputs).collect();
        let wake: Vec<_> = [Some(signals), self.channel.as_ref().map(AsFd::as_fd)].into_iter().flatten().collect();
        let timeout = waits_for_caller.then_some(FOREGROUND);
        let woken = terminal::step(&mut flows, &wake, timeout)?;
        if woken.get(1) == Some(&true)
            && let Some(channel) = self.channel.take()
            && let Some(master) = channel::receive(channel)?
        {
            self.connect(master)?;
        }
        if waits_for_caller && let Some(caller) = &mut self.caller {
            caller.take()?;
            self.caller_changed()?;
        }
        let at_end = self.input.take_if(|flow| flow.is_done()).is_some();
        self.outputs.retain(|flow| !flow.is_done());
        // The caller's terminal is gone, or nobody sees any more what the command shows.
        if self.pty.is_some() && ((at_end && self.types()) || self.outputs.is_empty()) {
            self.hang_up();
        }
        Ok(woken[0])
    }

    /// The command's terminal has come.
    fn connect(&mut self, master: OwnedFd) -> Result<()> {
        terminal::set_nonblocking(&master)?;
        let slave = pty::slave_of(&master)?;
        let end = || master.try_clone().context(|| "dup(pty)");
        if self.streams[0] == Stream::Terminal {
            let flow = Flow::new(own(standard(0), OFlags::RDONLY)?, end()?);
            self.input = Some(match pty::end_of_input(&slave)?.filter(|_| !self.types()) {
                // Twice, in case that the last line has no end.
                Some(character) => flow.with_farewell(vec![character; 2]),
                None => flow,
            });
        }
        let shown = match &self.caller {
            Some(caller) if self.tty != Tty::Always => caller.output()?,
            _ => own(standard(1), OFlags::WRONLY)?,
        };
        self.outputs.push(Flow::new(end()?, shown));
        self.pty = Some(Pty { master, _slave: slave });
        if let Some(caller) = &mut self.caller {
            caller.take()?;
        }
        self.caller_changed()
    }

    /// Whether the command's terminal has its input from the caller's.
    fn types(&self) -> bool {
        self.streams[0] == Stream::Terminal && self.is_terminal[0]
    }

    /// Whether this process is in the background of the caller's terminal, and there is something to be typed.
    fn waits_for_caller(&self) -> bool {
        self.types() && self.input.is_some() && !self.caller.as_ref().is_some_and(Caller::is_ours)
    }

    /// Closes the command's terminal: what is in front of it gets SIGHUP, and reads an end.
    fn hang_up(&mut self) {
        self.pty = None;
        self.input = None;
        self.outputs.clear();
    }

    /// The caller's terminal has another size.
    pub(super) fn resized(&self) -> Result<()> {
        match (&self.caller, &self.pty) {
            (Some(caller), Some(pty)) => caller.copy_size(&pty.master),
            _ => Ok(()),
        }
    }

    /// Before this process stops.
    pub(super) fn stopping(&mut self) -> Result<()> {
        self.caller.as_mut().map_or(Ok(()), Caller::give_back)
    }

    /// After this process was stopped.
    pub(super) fn continued(&mut self) -> Result<()> {
        if self.pty.is_some()
            && let Some(caller) = &mut self.caller
        {
            caller.continued()?;
        }
        self.caller_changed()
    }

    fn caller_changed(&mut self) -> Result<()> {
        let paused = self.waits_for_caller();
        if let Some(input) = &mut self.input {
            input.set_paused(paused);
        }
        self.resized()
    }

    /// The command has ended: what it has still written is to come, then [`Self::is_done`].
    pub(super) fn finish(&mut self) {
        self.input = None;
        self.channel = None;
        self.outputs.iter_mut().for_each(Flow::finish);
    }

    /// After [`Self::finish`]: everything is written.
    pub(super) fn is_done(&self) -> bool {
        self.outputs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_never_handed_in() {
        for tty in [Tty::Auto, Tty::Always, Tty::Never] {
            assert_ne!(stream(tty, true), Stream::Callers, "{tty:?}");
        }
        assert_eq!(stream(Tty::Auto, false), Stream::Callers);
        assert_eq!(stream(Tty::Always, false), Stream::Terminal);
        assert_eq!(stream(Tty::Never, true), Stream::Pipe);
        assert_eq!(stream(Tty::Never, false), Stream::Callers);
    }

    #[test]
    fn words() {
        for (word, tty) in [("auto", Tty::Auto), ("always", Tty::Always), ("never", Tty::Never)] {
            assert_eq!(word.parse::<Tty>().unwrap(), tty);
        }
        assert!("maybe".parse::<Tty>().unwrap_err().one_line().contains("\"maybe\""));
    }
}
