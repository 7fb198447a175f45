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
use crate::terminal::{self, Caller, Flow, Foreground, own, standard};

/// What ends the input of a new terminal, at the start of a line: ctrl-d. Twice, in case that the last line has no end.
const END_OF_INPUT: [u8; 2] = [4; 2];

/// The flows between the caller and the terminal.
#[derive(Debug)]
pub(crate) struct Link {
    foreground: Foreground,
    output: Option<Flow>,
    /// The caller's terminal may have another size.
    resized: bool,
}

impl Link {
    /// For the caller of this process.
    pub(crate) fn new() -> Result<Self> {
        let foreground = Foreground::new(Caller::find()?, rustix::termios::isatty(standard(0)));
        Ok(Self { foreground, output: None, resized: false })
    }

    /// Copies between the caller and the other end of `socket`, once the app starts.
    pub(super) fn connect(&mut self, socket: &OwnedFd) -> Result<()> {
        let end = || socket.try_clone().context(|| "dup(terminal)");
        let mut input = Flow::new(own(standard(0), OFlags::RDONLY)?, end()?);
        if !self.foreground.types() {
            input = input.with_farewell(END_OF_INPUT.to_vec());
        }
        input.set_paused(!self.foreground.is_begun());
        self.foreground.set_input(Some(input));
        self.output = Some(Flow::new(end()?, own(standard(1), OFlags::WRONLY)?));
        self.resized();
        Ok(())
    }

    /// Makes the app's terminal what the caller's is, as far as there is one. What is typed is for the app from now on,
    /// and what it shows is shown.
    pub(super) fn start(&mut self, terminal: &OwnedFd) -> Result<()> {
        match self.foreground.caller() {
            Some(caller) => caller.settings()?.apply(terminal)?,
            None => pty::plain_output(terminal)?,
        }
        if !self.foreground.types() {
            pty::plain_input(terminal)?;
        }
        self.foreground.begin()?;
        self.resized();
        Ok(())
    }

    /// Copies what there is to copy; waits until there is something, or one of `wake` has, at most `timeout`.
    pub(super) fn step(&mut self, wake: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<()> {
        let outputs = self.output.iter_mut().filter(|output| !output.is_done());
        self.resized |= self.foreground.step(outputs, wake, timeout)?.is_changed;
        self.foreground.has_input_ended();
        Ok(())
    }

    /// Whether nobody sees any more what the app shows, or what is typed comes to its end: the caller's terminal is
    /// gone.
    pub(crate) fn is_cut(&self) -> bool {
        self.output.as_ref().is_some_and(Flow::is_done)
            || (self.foreground.types() && self.foreground.is_begun() && self.foreground.input.is_none())
    }

    /// Copies the rest of the output, whose source is at its end, and gives the terminal back. A signal ends that early.
    pub(super) fn finish(mut self, signals: &nix::sys::signalfd::SignalFd) -> Result<()> {
        self.foreground.set_input(None);
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
        match self.foreground.caller() {
            Some(caller) if self.foreground.is_begun() && std::mem::take(&mut self.resized) => caller.size().map(Some),
            _ => Ok(None),
        }
    }

    /// Before this process stops.
    pub(crate) fn stopping(&mut self) -> Result<()> {
        self.foreground.give_back()
    }

    /// After this process was stopped.
    pub(crate) fn continued(&mut self) -> Result<()> {
        self.foreground.continued()?;
        self.resized();
        Ok(())
    }
}
