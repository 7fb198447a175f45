//! The caller's terminal in front of one inside a pod.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::{Caller, Flow, step};
use crate::error::Result;

/// How often a process in the background looks whether it still is.
const LOOK: Duration = Duration::from_millis(200);

/// The caller's side of a terminal inside a pod: the caller's own terminal, if there is one, and the input that comes
/// from there or from elsewhere. What is typed is read while this process is in the foreground of its terminal.
#[derive(Debug)]
pub struct Foreground {
    caller: Option<Caller>,
    types: bool,
    is_begun: bool,
    /// What the caller sends, until it has ended.
    pub input: Option<Flow>,
}

/// What [`Foreground::step`] has found.
#[derive(Debug)]
pub struct Stepped {
    /// Which of the descriptors to wake for are readable.
    pub woken: Vec<bool>,
    /// Whether the caller's terminal was looked at again: its size may be another one.
    pub is_changed: bool,
}

impl Foreground {
    /// For the terminal of the caller, if there is one. `types`: the terminal inside has its input from there.
    pub fn new(caller: Option<Caller>, types: bool) -> Self {
        Self { caller, types, is_begun: false, input: None }
    }

    /// The caller's terminal.
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
    }

    /// Whether the terminal inside has its input from the caller's.
    pub fn types(&self) -> bool {
        self.types
    }

    /// Whether the terminal inside is there: [`Self::begin`].
    pub fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// What the caller sends from now on.
    pub fn set_input(&mut self, input: Option<Flow>) {
        self.input = input;
        self.pause_or_go_on();
    }

    /// The terminal inside is there: what is typed is for it from now on.
    ///
    /// # Errors
    /// The caller's terminal is gone.
    pub fn begin(&mut self) -> Result<()> {
        self.is_begun = true;
        self.take()
    }

    /// Copies what there is to copy, the input and `outputs`. Waits until there is something to do, or one of `wake` is
    /// readable, at most `timeout`.
    ///
    /// # Errors
    /// As [`step`], or the caller's terminal is gone.
    pub fn step<'a>(
        &mut self,
        outputs: impl IntoIterator<Item = &'a mut Flow>,
        wake: &[BorrowedFd<'_>],
        timeout: Option<Duration>,
    ) -> Result<Stepped> {
        let waits = self.waits();
        let mut flows: Vec<&mut Flow> =
            self.input.iter_mut().chain(outputs.into_iter().map(|flow| &mut *flow)).collect();
        let woken = step(&mut flows, wake, timeout.into_iter().chain(waits.then_some(LOOK)).min())?;
        if waits {
            self.take()?;
        }
        Ok(Stepped { woken, is_changed: waits })
    }

    /// Whether the input has just come to its end: it is told once.
    pub fn has_input_ended(&mut self) -> bool {
        self.input.take_if(|input| input.is_done()).is_some()
    }

    /// Gives the caller's terminal back as it was, for the end, or before this process stops.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn give_back(&mut self) -> Result<()> {
        self.caller.as_mut().map_or(Ok(()), Caller::give_back)
    }

    /// After this process was stopped.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn continued(&mut self) -> Result<()> {
        if let (true, true, Some(caller)) = (self.is_begun, self.types, &mut self.caller) {
            caller.continued()?;
        }
        self.pause_or_go_on();
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        if let (true, Some(caller)) = (self.types, &mut self.caller) {
            caller.take()?;
        }
        self.pause_or_go_on();
        Ok(())
    }

    fn pause_or_go_on(&mut self) {
        let waits = self.waits();
        if let (true, Some(input)) = (self.is_begun, &mut self.input) {
            input.set_paused(waits);
        }
    }

    /// Whether input is typed on a terminal in whose background this process is.
    fn waits(&self) -> bool {
        self.is_begun && self.types && self.input.is_some() && !self.caller.as_ref().is_some_and(Caller::is_ours)
    }
}
