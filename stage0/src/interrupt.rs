//! Signals that interrupt long work: podctl removes what it has begun, then dies by the signal (signal(7)).
//!
//! While a [`Watch`] lives, SIGINT, SIGTERM and SIGHUP are only recorded. Long work calls [`check`] at least once per
//! block of data and fails once a signal has come; work that blocks in another call registers a closure that wakes it
//! with [`Watch::on_signal`]. A second signal kills the process at once.

use std::io::PipeWriter;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use stage1::error::{Context, Error, Result};

/// The number of the first signal that came, or 0.
static CAME: AtomicI32 = AtomicI32::new(0);
/// The closures to call when the first signal comes.
static WAKE: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());
/// How often [`pause`] looks for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// Records SIGINT, SIGTERM and SIGHUP as long as it lives, instead of letting them kill the process.
#[derive(Debug)]
pub struct Watch {
    /// The signal mask to restore.
    before: SigSet,
    /// Dropping it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Blocks the signals and starts the thread that reads them (signalfd(2)). Call it before the process has other
    /// threads: threads that start later inherit the signal mask.
    ///
    /// # Errors
    /// sigprocmask(2), signalfd(2) or pipe(2) fails, or the thread can't be started.
    pub fn begin() -> Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut before)).context(|| "sigprocmask")?;
        let fd =
            SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context(|| "signalfd")?;
        let (end, stop) = std::io::pipe().context(|| "pipe")?;
        let thread = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || listen(&fd, end.as_fd()))
            .context(|| "start a thread")?;
        Ok(Self { before, stop: Some(stop), thread: Some(thread) })
    }

    /// Registers a closure that the signal thread calls once, when the first signal comes. Dropping the watch drops it.
    pub fn on_signal(&self, wake: impl FnOnce() + Send + 'static) {
        WAKE.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(wake));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // the thread returns nothing
            let _ = thread.join();
        }
        WAKE.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if let Err(errno) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None) {
            log::warn!("sigprocmask: {errno}");
        }
    }
}

fn listen(signals: &SignalFd, end: BorrowedFd<'_>) {
    loop {
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(end, PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        if fds[1].any() == Some(true) {
            return;
        }
        let Ok(Some(info)) = signals.read_signal() else { continue };
        let number = i32::try_from(info.ssi_signo).unwrap_or(Signal::SIGTERM as i32);
        if CAME.swap(number, Ordering::SeqCst) != 0 {
            die_by(number);
        }
        let wake = std::mem::take(&mut *WAKE.lock().unwrap_or_else(PoisonError::into_inner));
        wake.into_iter().for_each(|wake| wake());
    }
}

/// Kills this process by the signal's default action.
fn die_by(number: i32) {
    if let Ok(number) = Signal::try_from(number) {
        stage1::sys::signal::die_by(number);
    }
}

/// Fails once a signal has come.
///
/// # Errors
/// A [`Watch`] recorded a signal.
pub fn check() -> Result<()> {
    match Signal::try_from(CAME.load(Ordering::SeqCst)) {
        Ok(signal) => Err(Error::new(format!("interrupted by {signal}; nothing was changed"))),
        Err(_) => Ok(()),
    }
}

/// [`check`] as an I/O error, for implementations of `Read` and `Write`.
pub(crate) fn check_io() -> std::io::Result<()> {
    check().map_err(|error| std::io::Error::other(error.one_line()))
}

/// Sleeps for `time`, or until a signal comes.
///
/// # Errors
/// A signal came, as in [`check`].
pub fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// Kills this process by the signal that came; returns if none came. Call it last, after all cleanup.
pub fn end_by_signal() {
    die_by(CAME.load(Ordering::SeqCst));
}
