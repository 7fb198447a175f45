//! The caller of `run` in front of the pod's console: `--interactive`. Host side, part of the monitor.
//!
//! The app has the console for its terminal; the caller's own never gets into the pod. What is typed before the app
//! has started is kept, and until then the caller's terminal makes signals of its keys: Ctrl-C ends the pod.
//!
//! Input that is not typed comes through byte by byte, except that the console takes Ctrl-D (4) for an end of the
//! input. That is also how the end of such input is passed on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::error::{Context, Result};
use crate::sys::pty;
use crate::terminal::{self, Caller, Flow, own, standard};

/// How often a process in the background looks whether it still is.
const FOREGROUND: Duration = Duration::from_millis(200);

/// The flows between the caller and the console.
#[derive(Debug)]
pub(super) struct Link {
    master: OwnedFd,
    console: OwnedFd,
    caller: Option<Caller>,
    typed: bool,
    started: bool,
    input: Option<Flow>,
    output: Flow,
}

impl Link {
    /// For a console, both its ends.
    pub(super) fn new(master: &OwnedFd, console: &OwnedFd) -> Result<Self> {
        terminal::set_nonblocking(master)?;
        let end = || master.try_clone().context(|| "dup(console)");
        let typed = rustix::termios::isatty(standard(0));
        let mut input = Flow::new(own(standard(0), OFlags::RDONLY)?, end()?);
        if !typed {
            // Twice, in case that the last line has no end.
            let farewell = pty::end_of_input(console)?.map(|character| vec![character; 2]);
            input = input.with_farewell(farewell.unwrap_or_default());
        }
        input.set_paused(true);
        let mut output = Flow::new(end()?, own(standard(1), OFlags::WRONLY)?);
        output.set_paused(true);
        let console = console.try_clone().context(|| "dup(console)")?;
        let caller = Caller::find()?;
        Ok(Self { master: end()?, console, caller, typed, started: false, input: Some(input), output })
    }

    /// Makes the console what the caller's terminal is, as far as there is one. To be called when the supervisor is
    /// ready, which resets its console as it starts, and before the app is started, which may have wishes of its own.
    pub(super) fn set_up(&self) -> Result<()> {
        match &self.caller {
            Some(caller) => caller.set_up(&self.console)?,
            None => pty::plain_output(&self.console)?,
        }
        if self.typed { Ok(()) } else { pty::plain_input(&self.console) }
    }

    /// The app has started: what is typed is for it from now on, and what it shows is shown.
    pub(super) fn start(&mut self) -> Result<()> {
        if self.started {
            return Ok(());
        }
        self.started = true;
        // Not before the caller's terminal leaves it as it is.
        self.take()?;
        self.output.set_paused(false);
        Ok(())
    }

    /// Copies what there is to copy; waits until there is something, or one of `wake` has.
    pub(super) fn step(&mut self, wake: &[BorrowedFd<'_>]) -> Result<()> {
        let waits_for_caller = self.waits_for_caller();
        let mut flows: Vec<&mut Flow> = self.input.iter_mut().collect();
        if !self.output.is_done() {
            flows.push(&mut self.output);
        }
        terminal::step(&mut flows, wake, waits_for_caller.then_some(FOREGROUND))?;
        self.input.take_if(|flow| flow.is_done());
        if waits_for_caller { self.take() } else { Ok(()) }
    }

    /// Whether nobody sees any more what the app shows, or what is typed comes to its end: the terminal is gone.
    pub(super) fn is_cut(&self) -> bool {
        self.output.is_done() || (self.typed && self.input.is_none())
    }

    /// Copies the rest of the output, and gives the terminal back. A signal ends that early.
    pub(super) fn finish(mut self, signals: &nix::sys::signalfd::SignalFd) -> Result<()> {
        self.input = None;
        self.output.set_paused(false);
        self.output.finish();
        while !self.output.is_done() {
            let woken = terminal::step(&mut [&mut self.output], &[signals.as_fd()], None)?;
            if woken[0] && signals.read_signal().context(|| "read(signalfd)")?.is_some() {
                break;
            }
        }
        self.stopping()
    }

    /// The caller's terminal may have another size.
    pub(super) fn resized(&self) -> Result<()> {
        self.caller.as_ref().map_or(Ok(()), |caller| caller.copy_size(&self.master))
    }

    /// Before this process stops.
    pub(super) fn stopping(&mut self) -> Result<()> {
        self.caller.as_mut().map_or(Ok(()), Caller::give_back)
    }

    /// After this process was stopped.
    pub(super) fn continued(&mut self) -> Result<()> {
        if self.started
            && let Some(caller) = &mut self.caller
        {
            caller.continued()?;
        }
        self.changed()
    }

    fn take(&mut self) -> Result<()> {
        if let Some(caller) = &mut self.caller {
            caller.take()?;
        }
        self.changed()
    }

    fn changed(&mut self) -> Result<()> {
        let paused = !self.started || self.waits_for_caller();
        if let Some(input) = &mut self.input {
            input.set_paused(paused);
        }
        self.resized()
    }

    /// Whether the app has started, but this process is in the background of the terminal that is to be typed at.
    fn waits_for_caller(&self) -> bool {
        self.started && self.typed && !self.caller.as_ref().is_some_and(Caller::is_ours)
    }
}
