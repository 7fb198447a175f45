//! `run --interactive`: copies between the terminal of `run`'s caller and the app's. Host side.
//!
//! The caller's own terminal never gets into the pod. What is typed before the app has started is kept for it, and
//! until then the keys of the caller's terminal send signals: Ctrl-C ends the pod.
//!
//! Input from a pipe or a file reaches the app unchanged, except that its terminal takes Ctrl-D (4) as the end of the
//! input. The end of such input is passed on as Ctrl-D.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::termios::Winsize;

use crate::error::{Context, Result};
use crate::sys::pty;
use crate::terminal::{self, Caller, Flow, Foreground, own, standard};

/// Ends the input on a terminal with default settings: Ctrl-D at the start of a line. The first one ends a last line
/// without a newline.
const END_OF_INPUT: [u8; 2] = [4; 2];

/// The connection between the caller's terminal, or pipes, and the app's terminal.
#[derive(Debug)]
pub(crate) struct Link {
    foreground: Foreground,
    output: Option<Flow>,
    /// The caller's terminal may have another size.
    resized: bool,
}

impl Link {
    /// The connection for the caller of this process, not yet connected to an app.
    pub(crate) fn new() -> Result<Self> {
        let foreground = Foreground::new(Caller::find()?, rustix::termios::isatty(standard(0)));
        Ok(Self { foreground, output: None, resized: false })
    }

    /// Connects the caller to `socket`; copying begins when the app starts.
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

    /// Gives the app's terminal the settings of the caller's, if the caller has one, and begins to copy.
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

    /// Waits until there is something to copy or one of `wake` is ready, at most for `timeout`, and copies.
    pub(super) fn step(&mut self, wake: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<()> {
        let outputs = self.output.iter_mut().filter(|output| !output.is_done());
        self.resized |= self.foreground.step(outputs, wake, timeout)?.is_changed;
        self.foreground.has_input_ended();
        Ok(())
    }

    /// Whether the caller's terminal is gone: its output can't be written, or what is typed has come to its end.
    pub(crate) fn is_cut(&self) -> bool {
        self.output.as_ref().is_some_and(Flow::is_done)
            || (self.foreground.types() && self.foreground.is_begun() && self.foreground.input.is_none())
    }

    /// Copies the rest of the output until its source ends, and restores the caller's terminal. A signal ends that
    /// early.
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

    /// Notes that the caller's terminal may have another size.
    pub(crate) fn resized(&mut self) {
        self.resized = true;
    }

    /// The size of the caller's terminal, if it may have changed and the app has started.
    pub(super) fn new_size(&mut self) -> Result<Option<Winsize>> {
        match self.foreground.caller() {
            Some(caller) if self.foreground.is_begun() && std::mem::take(&mut self.resized) => caller.size().map(Some),
            _ => Ok(None),
        }
    }

    /// Restores the caller's terminal before this process stops, as on Ctrl-Z.
    pub(crate) fn stopping(&mut self) -> Result<()> {
        self.foreground.give_back()
    }

    /// Takes the caller's terminal again after this process was continued.
    pub(crate) fn continued(&mut self) -> Result<()> {
        self.foreground.continued()?;
        self.resized();
        Ok(())
    }
}
