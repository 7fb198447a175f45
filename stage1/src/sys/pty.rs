//! Pseudo-terminals: pts(4).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, Once};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr};
use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;

use crate::error::{Context, Error, Result};

/// A new pseudo-terminal of the devpts instance that `ptmx` (an open ptmx device) belongs to: its other end.
///
/// # Errors
/// `ptmx` is not the master of a pseudo-terminal, or no descriptor is left.
pub fn slave_of(ptmx: impl AsFd) -> Result<OwnedFd> {
    rustix::pty::unlockpt(&ptmx).context(|| "unlockpt")?;
    rustix::pty::ioctl_tiocgptpeer(&ptmx, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .context(|| "ioctl(TIOCGPTPEER)")
}

/// Opens a new pty master at `/dev/ptmx` of this process's view, and its slave.
///
/// # Errors
/// There is no devpts, or no pseudo-terminal is left.
pub fn open_pair() -> Result<(OwnedFd, OwnedFd)> {
    let master =
        rustix::fs::open("/dev/ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .context(|| "open(\"/dev/ptmx\")")?;
    let slave = slave_of(&master)?;
    Ok((master, slave))
}

/// Makes sure that `file` is in a devpts: where anything else was put in its place, it is not to be opened.
///
/// # Errors
/// It is something else.
pub fn check(file: impl AsFd) -> Result<()> {
    match u64::try_from(rustix::fs::fstatfs(file).context(|| "fstatfs")?.f_type) {
        Ok(DEVPTS_SUPER_MAGIC) => Ok(()),
        _ => Err(Error::new("not a terminal")),
    }
}

/// The type of a devpts: statfs(2).
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// Opens a new pty of the devpts instance that is mounted on the directory `at`; master and slave.
///
/// Nobody but the kernel can put anything into a devpts, so this may be done where the files around it are another's.
///
/// # Errors
/// Also when something else than a devpts is there.
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

/// Makes the terminal the controlling terminal of the session that this process leads: TIOCSCTTY.
///
/// # Errors
/// This process leads no session, has a terminal already, or the terminal is another session's.
pub fn control(terminal: impl AsFd) -> Result<()> {
    rustix::process::ioctl_tiocsctty(terminal).context(|| "ioctl(TIOCSCTTY)")
}

/// Copies the window size of one terminal to another; the programs in front of that hear of it by SIGWINCH.
///
/// # Errors
/// One of them is not a terminal, or is gone.
pub fn copy_size(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let size = rustix::termios::tcgetwinsize(from).context(|| "ioctl(TIOCGWINSZ)")?;
    rustix::termios::tcsetwinsize(to, size).context(|| "ioctl(TIOCSWINSZ)")
}

/// What a terminal is set to: all of termios(3), and its window size. Who has it needs no descriptor of the terminal.
#[derive(Debug)]
pub struct Settings {
    modes: nix::sys::termios::Termios,
    size: rustix::termios::Winsize,
}

impl Settings {
    /// Those of `terminal`, as they are now.
    pub fn of(terminal: impl AsFd) -> Result<Self> {
        Ok(Self {
            modes: tcgetattr(&terminal).context(|| "tcgetattr")?,
            size: rustix::termios::tcgetwinsize(&terminal).context(|| "ioctl(TIOCGWINSZ)")?,
        })
    }

    /// Gives them to `terminal`.
    ///
    /// # Errors
    /// `terminal` is not a terminal, or is gone.
    pub fn apply(&self, terminal: impl AsFd) -> Result<()> {
        tcsetattr(&terminal, SetArg::TCSANOW, &self.modes).context(|| "tcsetattr")?;
        rustix::termios::tcsetwinsize(&terminal, self.size).context(|| "ioctl(TIOCSWINSZ)")
    }

    /// See [`plain_output`].
    #[must_use]
    pub fn with_plain_output(mut self) -> Self {
        make_output_plain(&mut self.modes);
        self
    }
}

/// What a terminal takes for the end of the input at the start of a line; `None` if it takes nothing for it.
///
/// # Errors
/// `terminal` is not a terminal, or is gone.
pub fn end_of_input(terminal: impl AsFd) -> Result<Option<u8>> {
    let settings = tcgetattr(terminal).context(|| "tcgetattr")?;
    let canonical = settings.local_flags.contains(LocalFlags::ICANON);
    Ok(canonical.then_some(settings.control_chars[SpecialCharacterIndices::VEOF as usize]))
}

/// Whether this process may change `terminal` and read from it without being stopped for that: it is
/// in the foreground, or `terminal` is not the one that controls its session.
pub fn in_foreground(terminal: impl AsFd) -> bool {
    match nix::unistd::tcgetpgrp(terminal) {
        Ok(foreground) => foreground == nix::unistd::getpgrp(),
        Err(_) => true,
    }
}

/// The raw mode of a terminal, on and off; dropped, the terminal is as it was. So it is too when this process panics,
/// also where a panic ends it at once.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    /// While on: the settings before, and how the terminal shows them since.
    on: Option<(Termios, Termios)>,
}

/// What the panic hook puts right.
static ON_PANIC: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);
static HOOK: Once = Once::new();

impl RawMode {
    /// For `terminal`, and off as yet.
    pub fn of(terminal: impl AsFd) -> Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned().context(|| "dup(terminal)")?;
        Ok(Self { terminal, on: None })
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Turns it on, if this process is in the foreground of the terminal: one in the background would be stopped.
    ///
    /// # Errors
    /// The terminal is gone.
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

    /// Turns it off: the terminal is as it was before, unless it is now another's.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn off(&mut self) -> Result<()> {
        let Some((before, _)) = self.on.take() else { return Ok(()) };
        restore_on_panic(None)?;
        if !in_foreground(&self.terminal) {
            return Ok(());
        }
        tcsetattr(&self.terminal, SetArg::TCSANOW, &before).context(|| "tcsetattr(restore)")
    }

    /// Finds out what happened while this process was stopped, which a shell uses to set the terminal up for itself:
    /// on only if the terminal still is in raw mode.
    ///
    /// # Errors
    /// The terminal is gone.
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

/// Turns off what a terminal makes of its input, but for its end: no signals, no editing of lines, no translation.
///
/// # Errors
/// `terminal` is not a terminal, or is gone.
pub fn plain_input(terminal: impl AsFd) -> Result<()> {
    use nix::sys::termios::InputFlags;
    /// Disables a special character: _POSIX_VDISABLE.
    const DISABLED: u8 = 0;
    let mut settings = tcgetattr(&terminal).context(|| "tcgetattr")?;
    let end = settings.control_chars[SpecialCharacterIndices::VEOF as usize];
    settings.input_flags = InputFlags::IUTF8;
    settings.local_flags = LocalFlags::ICANON;
    settings.control_chars.fill(DISABLED);
    settings.control_chars[SpecialCharacterIndices::VEOF as usize] = end;
    tcsetattr(&terminal, SetArg::TCSANOW, &settings).context(|| "tcsetattr")
}

/// Turns off the output post-processing of a terminal, so that what is written comes out byte by byte.
///
/// # Errors
/// `terminal` is not a terminal, or is gone.
pub fn plain_output(terminal: impl AsFd) -> Result<()> {
    let mut settings = tcgetattr(&terminal).context(|| "tcgetattr")?;
    make_output_plain(&mut settings);
    tcsetattr(&terminal, SetArg::TCSANOW, &settings).context(|| "tcsetattr")
}

fn make_output_plain(settings: &mut nix::sys::termios::Termios) {
    settings.output_flags.remove(nix::sys::termios::OutputFlags::OPOST);
    settings.local_flags.remove(LocalFlags::ECHO);
}
