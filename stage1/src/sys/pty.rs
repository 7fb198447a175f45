//! Pseudo-terminals: pts(4).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, Once};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;

use crate::error::{Context, Error, Result};

/// Unlocks the pseudo-terminal with the master `ptmx` and opens its slave: ioctl_tty(2), TIOCGPTPEER.
///
/// # Errors
/// `ptmx` is not the master of a pseudo-terminal, or the process has no free descriptor.
pub fn slave_of(ptmx: impl AsFd) -> Result<OwnedFd> {
    rustix::pty::unlockpt(&ptmx).context(|| "unlockpt")?;
    rustix::pty::ioctl_tiocgptpeer(&ptmx, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .context(|| "ioctl(TIOCGPTPEER)")
}

/// Opens a new pseudo-terminal at `/dev/ptmx` of this process's mount namespace; returns master and slave.
///
/// # Errors
/// There is no devpts, or it has no free pseudo-terminal.
pub fn open_pair() -> Result<(OwnedFd, OwnedFd)> {
    let master =
        rustix::fs::open("/dev/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .context(|| "open(\"/dev/ptmx\")")?;
    let slave = slave_of(&master)?;
    Ok((master, slave))
}

/// Checks that `file` (`O_PATH` will do) is in a devpts, before it is opened: another file system could have put
/// another kind of file there.
///
/// # Errors
/// `file` is in another file system.
pub fn check(file: impl AsFd) -> Result<()> {
    match u64::try_from(rustix::fs::fstatfs(file).context(|| "fstatfs")?.f_type) {
        Ok(DEVPTS_SUPER_MAGIC) => Ok(()),
        _ => Err(Error::new("not a terminal")),
    }
}

/// File system type of devpts: statfs(2).
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
/// Disables a special character: _POSIX_VDISABLE.
const DISABLED: u8 = 0;

/// Opens a new pseudo-terminal of the devpts instance that is mounted on the directory `at`; returns master and slave.
///
/// Only the kernel creates files in a devpts, so this is safe in an app's root, whose other files the app controls.
///
/// # Errors
/// `at` is not in a devpts, or the devpts has no free pseudo-terminal.
pub fn open_pair_in(at: &str) -> Result<(OwnedFd, OwnedFd)> {
    let dir = super::dir::open_dir(at)?;
    let found = rustix::fs::fstatfs(&dir).context(|| format!("fstatfs({at:?})"))?.f_type;
    if u64::try_from(found).ok() != Some(DEVPTS_SUPER_MAGIC) {
        return Err(Error::new(format!("no devpts is mounted on {at:?}: a terminal can't be made there")));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = rustix::fs::openat(&dir, "ptmx", flags, rustix::fs::Mode::empty())
        .context(|| format!("open(\"{at}/ptmx\")"))?;
    let slave = slave_of(&master)?;
    Ok((master, slave))
}

/// Makes `terminal` the controlling terminal of the session that this process leads: ioctl_tty(2), TIOCSCTTY.
///
/// # Errors
/// This process does not lead a session, has a controlling terminal, or `terminal` controls another session.
pub fn control(terminal: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal).context(|| "ioctl(TIOCSCTTY)")
}

/// Copies the window size of one terminal to another, whose foreground programs get a SIGWINCH.
///
/// # Errors
/// One of them is not a terminal, or was hung up.
pub fn copy_size(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let size = rustix::termios::tcgetwinsize(from).context(|| "ioctl(TIOCGWINSZ)")?;
    rustix::termios::tcsetwinsize(to, size).context(|| "ioctl(TIOCSWINSZ)")
}

/// The settings of a terminal: its termios(3) and its window size.
#[derive(Debug)]
pub struct Settings {
    modes: nix::sys::termios::Termios,
    size: rustix::termios::Winsize,
}

impl Settings {
    /// The current settings of `terminal`.
    ///
    /// # Errors
    /// `terminal` is not a terminal, or was hung up.
    pub fn of(terminal: impl AsFd) -> Result<Self> {
        Ok(Self {
            modes: tcgetattr(&terminal).context(|| "tcgetattr")?,
            size: rustix::termios::tcgetwinsize(&terminal).context(|| "ioctl(TIOCGWINSZ)")?,
        })
    }

    /// Applies the settings to `terminal`.
    ///
    /// # Errors
    /// `terminal` is not a terminal, or was hung up.
    pub fn apply(&self, terminal: impl AsFd) -> Result<()> {
        tcsetattr(&terminal, SetArg::TCSANOW, &self.modes).context(|| "tcsetattr")?;
        rustix::termios::tcsetwinsize(&terminal, self.size).context(|| "ioctl(TIOCSWINSZ)")
    }

    /// The same settings with [`plain_output`].
    #[must_use]
    pub fn with_plain_output(mut self) -> Self {
        make_output_plain(&mut self.modes);
        self
    }
}

/// How a terminal is told the end of the input: termios(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfInput {
    /// Whether it is in canonical mode, where the character ends a read.
    pub is_canonical: bool,
    /// The VEOF character; `None` if it is disabled.
    pub character: Option<u8>,
}

/// How `terminal` is told the end of the input now.
///
/// # Errors
/// `terminal` is not a terminal, or was hung up.
pub fn end_of_input(terminal: impl AsFd) -> Result<EndOfInput> {
    let settings = tcgetattr(terminal).context(|| "tcgetattr")?;
    let character = settings.control_chars[SpecialCharacterIndices::VEOF as usize];
    Ok(EndOfInput {
        is_canonical: settings.local_flags.contains(LocalFlags::ICANON),
        character: (character != DISABLED).then_some(character),
    })
}

/// Whether a read from `terminal` would return now: with input, an end of it, or as the terminal was hung up.
///
/// # Errors
/// poll(2) fails.
pub fn is_readable(terminal: impl AsFd) -> Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut polled = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
    match poll(&mut polled, PollTimeout::ZERO) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(polled[0].any() == Some(true)),
        Err(errno) => Err(errno).context(|| "poll(terminal)"),
    }
}

/// Whether this process may read from `terminal` and change it without being stopped by SIGTTIN or SIGTTOU: it is in
/// the foreground, or `terminal` is not its controlling terminal.
pub fn in_foreground(terminal: impl AsFd) -> bool {
    match nix::unistd::tcgetpgrp(terminal) {
        Ok(foreground) => foreground == nix::unistd::getpgrp(),
        Err(_) => true,
    }
}

/// Turns the raw mode of a terminal on and off. Dropping it restores the terminal; so does a panic hook, also if panics
/// abort the process.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    /// While on: the settings before it was turned on, and those read back right after.
    on: Option<(Termios, Termios)>,
}

/// The terminal that the panic hook restores, and its settings.
static ON_PANIC: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);
static HOOK: Once = Once::new();

impl RawMode {
    /// For `terminal`; the mode is off until [`Self::on`] is called.
    ///
    /// # Errors
    /// The process has no free descriptor.
    pub fn of(terminal: impl AsFd) -> Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned().context(|| "dup(terminal)")?;
        Ok(Self { terminal, on: None })
    }

    /// Whether this object has turned the raw mode on.
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Turns it on if this process is in the foreground of the terminal; a process in the background would be stopped.
    ///
    /// # Errors
    /// The terminal was hung up.
    pub fn on(&mut self) -> Result<()> {
        if self.is_on() || !in_foreground(&self.terminal) {
            return Ok(());
        }
        let before = tcgetattr(&self.terminal).context(|| "tcgetattr")?;
        restore_on_panic(Some((&self.terminal, &before)))?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&self.terminal, SetArg::TCSADRAIN, &raw).context(|| "tcsetattr(raw)")?;
        let shown = tcgetattr(&self.terminal).context(|| "tcgetattr")?;
        self.on = Some((before, shown));
        Ok(())
    }

    /// Turns it off: restores the terminal if this process is in its foreground.
    ///
    /// # Errors
    /// The terminal was hung up.
    pub fn off(&mut self) -> Result<()> {
        let Some((before, _)) = self.on.take() else { return Ok(()) };
        restore_on_panic(None)?;
        if !in_foreground(&self.terminal) {
            return Ok(());
        }
        tcsetattr(&self.terminal, SetArg::TCSANOW, &before).context(|| "tcsetattr(restore)")
    }

    /// Called when this process continues after a stop: meanwhile a shell may have set up the terminal for itself. If
    /// the terminal is no longer in raw mode, this object counts as off.
    ///
    /// # Errors
    /// The terminal was hung up.
    pub fn look_again(&mut self) -> Result<()> {
        let Some((_, shown)) = &self.on else { return Ok(()) };
        if !in_foreground(&self.terminal) || tcgetattr(&self.terminal).context(|| "tcgetattr")? != *shown {
            self.on = None;
            restore_on_panic(None)?;
        }
        Ok(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = self.off() {
            log::warn!("the terminal stays in raw mode, `reset` helps: {}", error.one_line());
        }
    }
}

fn restore_on_panic(to: Option<(&OwnedFd, &Termios)>) -> Result<()> {
    HOOK.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Ok(mut settings) = ON_PANIC.try_lock()
                && let Some((terminal, before)) = settings.take()
                && let Err(errno) = tcsetattr(&terminal, SetArg::TCSANOW, &before)
            {
                eprintln!("the terminal stays in raw mode, `reset` helps: {errno}");
            }
            earlier(info);
        }));
    });
    let to = match to {
        Some((terminal, before)) => Some((terminal.try_clone().context(|| "dup(terminal)")?, before.clone())),
        None => None,
    };
    *ON_PANIC.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = to;
    Ok(())
}

/// Turns off the input processing of a terminal (signals, line editing, translation) except for the VEOF character.
///
/// # Errors
/// `terminal` is not a terminal, or was hung up.
pub fn plain_input(terminal: impl AsFd) -> Result<()> {
    use nix::sys::termios::InputFlags;
    let mut settings = tcgetattr(&terminal).context(|| "tcgetattr")?;
    let end = settings.control_chars[SpecialCharacterIndices::VEOF as usize];
    settings.input_flags = InputFlags::IUTF8;
    settings.local_flags = LocalFlags::ICANON;
    settings.control_chars.fill(DISABLED);
    settings.control_chars[SpecialCharacterIndices::VEOF as usize] = end;
    tcsetattr(&terminal, SetArg::TCSANOW, &settings).context(|| "tcsetattr")
}

/// Turns off the output processing and the echo of a terminal, so that readers get exactly the bytes that were written.
///
/// # Errors
/// `terminal` is not a terminal, or was hung up.
pub fn plain_output(terminal: impl AsFd) -> Result<()> {
    let mut settings = tcgetattr(&terminal).context(|| "tcgetattr")?;
    make_output_plain(&mut settings);
    tcsetattr(&terminal, SetArg::TCSANOW, &settings).context(|| "tcsetattr")
}

fn make_output_plain(settings: &mut nix::sys::termios::Termios) {
    settings.output_flags.remove(nix::sys::termios::OutputFlags::OPOST);
    settings.local_flags.remove(LocalFlags::ECHO);
}
