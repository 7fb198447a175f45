//! The terminal among this process's standard descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;

use super::flow::own;
use crate::error::{Context, Result};
use crate::sys::pty::{self, RawMode};

/// A standard descriptor: 0, 1 or 2.
pub fn standard(number: usize) -> BorrowedFd<'static> {
    match number {
        0 => rustix::stdio::stdin(),
        1 => rustix::stdio::stdout(),
        _ => rustix::stdio::stderr(),
    }
}

/// The terminal that this process was called from, found among its standard descriptors.
#[derive(Debug)]
pub struct Caller {
    shown: OwnedFd,
    raw: Option<RawMode>,
}

impl Caller {
    /// Finds the terminal for output: that of standard output, else of standard error, else of standard input. `None`
    /// if none of them is a terminal.
    ///
    /// # Errors
    /// The terminal can't be opened anew, or is gone.
    pub fn find() -> Result<Option<Self>> {
        let is_terminal = |number: &usize| rustix::termios::isatty(standard(*number));
        let Some(number) = [1, 2, 0].into_iter().find(is_terminal) else { return Ok(None) };
        let raw = is_terminal(&0).then(|| RawMode::of(standard(0))).transpose()?;
        Ok(Some(Self { shown: own(standard(number), OFlags::RDWR)?, raw }))
    }

    /// A descriptor to write to it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn output(&self) -> Result<OwnedFd> {
        self.shown.try_clone().context(|| "dup(terminal)")
    }

    /// Puts the terminal into raw mode, if standard input is one: keys pass through unchanged, and the terminal inside
    /// handles lines, echo and signals. Does nothing in the background, where [`Self::is_ours`] stays false.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn take(&mut self) -> Result<()> {
        self.raw.as_mut().map_or(Ok(()), RawMode::on)
    }

    /// Whether it is in raw mode, and so can be read. A process is not told when a shell moves it to the foreground: it
    /// has to try [`Self::take`] from time to time.
    pub fn is_ours(&self) -> bool {
        self.raw.as_ref().is_some_and(RawMode::is_on)
    }

    /// Restores the terminal's settings, as a program does before it stops.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn give_back(&mut self) -> Result<()> {
        self.raw.as_mut().map_or(Ok(()), RawMode::off)
    }

    /// Takes the terminal again after this process was continued, if it is in the foreground.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn continued(&mut self) -> Result<()> {
        if let Some(raw) = &mut self.raw {
            raw.look_again()?;
        }
        self.take()
    }

    /// The terminal's window size.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn size(&self) -> Result<rustix::termios::Winsize> {
        rustix::termios::tcgetwinsize(&self.shown).context(|| "ioctl(TIOCGWINSZ)")
    }

    /// Gives `pty` the terminal's window size.
    ///
    /// # Errors
    /// The terminal or `pty` is gone.
    pub fn copy_size(&self, pty: impl AsFd) -> Result<()> {
        pty::copy_size(&self.shown, pty)
    }

    /// The settings that make a new pty like this terminal: window size, special characters and all others. If the
    /// caller does not type, its terminal still converts line ends, so the pty does not. Call it before [`Self::take`].
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn settings(&self) -> Result<pty::Settings> {
        let settings = pty::Settings::of(&self.shown)?;
        Ok(if self.raw.is_none() { settings.with_plain_output() } else { settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_mode_is_left_as_it_was_found() {
        let (_master, slave) = pty::open_pair().unwrap();
        let settings = || nix::sys::termios::tcgetattr(&slave).unwrap();
        let before = settings();
        let mut raw = RawMode::of(&slave).unwrap();
        assert!(!raw.is_on() && settings() == before);
        raw.on().unwrap();
        assert!(raw.is_on() && settings() != before);
        raw.look_again().unwrap();
        assert!(raw.is_on());
        raw.off().unwrap();
        assert!(!raw.is_on() && settings() == before);
        // Keep the settings of a shell that has changed the terminal meanwhile.
        raw.on().unwrap();
        let mut of_shell = before.clone();
        of_shell.control_chars[nix::sys::termios::SpecialCharacterIndices::VINTR as usize] = 7;
        nix::sys::termios::tcsetattr(&slave, nix::sys::termios::SetArg::TCSANOW, &of_shell).unwrap();
        raw.look_again().unwrap();
        assert!(!raw.is_on());
        raw.on().unwrap();
        // On a panic, the hook restores it before anything is dropped.
        assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err());
        assert!(settings() == of_shell);
        drop(raw);
        assert!(settings() == of_shell);
    }
}
