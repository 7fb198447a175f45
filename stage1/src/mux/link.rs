//! The caller of `run` in front of an app's terminal: `--interactive`. Host side.
//!
//! The caller's own terminal never gets into the pod. What is typed before the app has started is kept, and until then
//! the caller's terminal makes signals of its keys: Ctrl-C ends the pod.
//!
//! Input that is not typed comes through byte by byte, except that the terminal takes Ctrl-D (4) for an end of the
//! input. That is also how the end of such input is passed on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::termios::Winsize;

use crate::error::{Context, Result};
use crate::sys::pty;
use crate::terminal::{self, Caller, Flow, own, standard};

/// How often a process in the background looks whether it still is.
const FOREGROUND: Duration = Duration::from_millis(200);
/// What ends the input of a new terminal, at the start of a line: ctrl-d. Twice, in case that the last line has no end.
const END_OF_INPUT: [u8; 2] = [4; 2];

/// The flows between the caller and the terminal.
#[derive(Debug)]
pub(crate) struct Link {
    caller: Option<Caller>,
    typed: bool,
    /// The master of the app's terminal, once the app is about to start.
    terminal: Option<OwnedFd>,
    input: Option<Flow>,
    output: Option<Flow>,
    /// The caller's terminal may have another size.
    resized: bool,
}

impl Link {
    /// For the caller of this process.
    pub(crate) fn new() -> Result<Self> {
        let typed = rustix::termios::isatty(standard(0));
        Ok(Self { caller: Caller::find()?, typed, terminal: None, input: None, output: None, resized: false })
    }

    /// Copies between the caller and the other end of `socket`, once the app starts.
    pub(super) fn connect(&mut self, socket: &OwnedFd) -> Result<()> {
        let end = || socket.try_clone().context(|| "dup(terminal)");
        let input = Flow::new(own(standard(0), OFlags::RDONLY)?, end()?);
        self.input = Some(if self.typed { input } else { input.with_farewell(END_OF_INPUT.to_vec()) });
        self.output = Some(Flow::new(end()?, own(standard(1), OFlags::WRONLY)?));
        self.changed();
        Ok(())
    }

    /// Makes the app's terminal what the caller's is, as far as there is one. What is typed is for the app from now on,
    /// and what it shows is shown.
    pub(super) fn start(&mut self, terminal: &OwnedFd) -> Result<()> {
        match &self.caller {
            Some(caller) => caller.settings()?.apply(terminal)?,
            None => pty::plain_output(terminal)?,
        }
        if !self.typed {
            pty::plain_input(terminal)?;
        }
        self.terminal = Some(terminal.try_clone().context(|| "dup(terminal)")?);
        self.take()
    }

    /// Copies what there is to copy; waits until there is something, or one of `wake` has, at most `timeout`.
    pub(super) fn step(&mut self, wake: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<()> {
        let waits_for_caller = self.waits_for_caller();
        let mut flows: Vec<&mut Flow> = self.input.iter_mut().collect();
        flows.extend(self.output.iter_mut().filter(|output| !output.is_done()));
        let timeout = timeout.into_iter().chain(waits_for_caller.then_some(FOREGROUND)).min();
        terminal::step(&mut flows, wake, timeout)?;
        self.input.take_if(|flow| flow.is_done());
        if waits_for_caller { self.take() } else { Ok(()) }
    }

    /// Whether nobody sees any more what the app shows, or what is typed comes to its end: the caller's terminal is
    /// gone.
    pub(crate) fn is_cut(&self) -> bool {
        self.output.as_ref().is_some_and(Flow::is_done)
            || (self.typed && self.terminal.is_some() && self.input.is_none())
    }

    /// Copies the rest of the output, whose source is at its end, and gives the terminal back. A signal ends that early.
    pub(super) fn finish(mut self, signals: &nix::sys::signalfd::SignalFd) -> Result<()> {
        self.input = None;
        if let Some(output) = &mut self.output {
            while !output.is_done() {
                let woken = terminal::step(&mut [&mut *output], &[signals.as_fd()], None)?;
                if woken[0] && crate::sys::signal::is_asked_to_end(signals)? {
                    break;
                }
            }
        }
        self.stopping()
    }

    /// The caller's terminal may have another size.
    pub(crate) fn resized(&mut self) {
        self.resized = true;
    }

    /// The size of the caller's terminal, if it may be another one and there is an app that it is for.
    pub(super) fn new_size(&mut self) -> Result<Option<Winsize>> {
        match &self.caller {
            Some(caller) if self.terminal.is_some() && std::mem::take(&mut self.resized) => caller.size().map(Some),
            _ => Ok(None),
        }
    }

    /// Before this process stops.
    pub(crate) fn stopping(&mut self) -> Result<()> {
        self.caller.as_mut().map_or(Ok(()), Caller::give_back)
    }

    /// After this process was stopped.
    pub(crate) fn continued(&mut self) -> Result<()> {
        if self.terminal.is_some()
            && let Some(caller) = &mut self.caller
        {
            caller.continued()?;
        }
        self.changed();
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        if let Some(caller) = &mut self.caller {
            caller.take()?;
        }
        self.changed();
        Ok(())
    }

    fn changed(&mut self) {
        let paused = self.terminal.is_none() || self.waits_for_caller();
        if let Some(input) = &mut self.input {
            input.set_paused(paused);
        }
        self.resized();
    }

    /// Whether the app has started, but this process is in the background of the terminal that is to be typed at.
    fn waits_for_caller(&self) -> bool {
        self.terminal.is_some() && self.typed && !self.caller.as_ref().is_some_and(Caller::is_ours)
    }
}
