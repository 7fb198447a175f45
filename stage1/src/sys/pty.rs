//! Pseudo-terminals: pts(4).

use std::os::fd::{AsFd, OwnedFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;

use crate::error::{Context, Result};

/// A new pseudo-terminal of the devpts instance that `ptmx` (an open ptmx device) belongs to: its other end.
pub fn slave_of(ptmx: impl AsFd) -> Result<OwnedFd> {
    rustix::pty::unlockpt(&ptmx).context(|| "unlockpt")?;
    rustix::pty::ioctl_tiocgptpeer(&ptmx, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .context(|| "ioctl(TIOCGPTPEER)")
}

/// Opens a new pty master at `/dev/ptmx` of this process's view, and its slave.
pub fn open_pair() -> Result<(OwnedFd, OwnedFd)> {
    let master =
        rustix::fs::open("/dev/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .context(|| "open(\"/dev/ptmx\")")?;
    let slave = slave_of(&master)?;
    Ok((master, slave))
}

/// Makes the terminal this session's controlling terminal: setsid(2), TIOCSCTTY.
pub fn control(terminal: impl AsFd) -> Result<()> {
    nix::unistd::setsid().context(|| "setsid")?;
    rustix::process::ioctl_tiocsctty(terminal).context(|| "ioctl(TIOCSCTTY)")
}

/// Copies the window size of one terminal to another.
pub fn copy_size(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let size = rustix::termios::tcgetwinsize(from).context(|| "ioctl(TIOCGWINSZ)")?;
    rustix::termios::tcsetwinsize(to, size).context(|| "ioctl(TIOCSWINSZ)")
}

/// A terminal in raw mode; dropped, it is as it was.
pub struct RawMode<'a> {
    terminal: std::os::fd::BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    /// Puts `terminal` into raw mode.
    pub fn enter(terminal: std::os::fd::BorrowedFd<'a>) -> Result<Self> {
        let before = tcgetattr(terminal).context(|| "tcgetattr")?;
        let raw = Self { terminal, before };
        raw.resume()?;
        Ok(raw)
    }

    /// Raw again, after [`Self::suspend`].
    pub fn resume(&self) -> Result<()> {
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(self.terminal, SetArg::TCSADRAIN, &raw).context(|| "tcsetattr(raw)")
    }

    /// As it was before, for as long as this process is stopped.
    pub fn suspend(&self) -> Result<()> {
        tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before).context(|| "tcsetattr(restore)")
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.suspend() {
            log::warn!("the terminal stays in raw mode, `reset` helps: {}", error.one_line());
        }
    }
}

/// Turns off the output post-processing of a terminal, so that what is written comes out byte by byte.
pub fn plain_output(terminal: impl AsFd) -> Result<()> {
    let mut settings = tcgetattr(&terminal).context(|| "tcgetattr")?;
    settings.output_flags.remove(nix::sys::termios::OutputFlags::OPOST);
    settings.local_flags.remove(nix::sys::termios::LocalFlags::ECHO);
    tcsetattr(&terminal, SetArg::TCSANOW, &settings).context(|| "tcsetattr")
}
