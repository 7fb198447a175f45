//! Signals that end long work in order: podctl removes what it has begun, then ends by the signal (signal(7)).
//!
//! While a [`Watch`] lives, SIGINT, SIGTERM and SIGHUP are only noted. Work asks with [`check`] whether it is to end, at
//! least at each block of data; who blocks elsewhere is woken by what it gave to [`Watch::on_signal`]. A second signal
//! ends the process at once.

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

/// The signal that came, or 0.
static CAME: AtomicI32 = AtomicI32::new(0);
/// What wakes those who wait.
static WAKE: Mutex<Vec<Box<dyn FnOnce() + Send>>> = Mutex::new(Vec::new());
/// How often a pause looks for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// While it lives, a signal that ends processes is noted instead.
#[derive(Debug)]
pub struct Watch {
    before: SigSet,
    /// Its end ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch. The calling thread must be the only one; those it starts later inherit its signal mask.
    ///
    /// # Errors
    /// The signals can't be blocked, or no thread can be started.
    pub fn begin() -> Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut before)).context(|| "sigprocmask")?;
        // one that is blocked already is the caller's business
        let fd =
            SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context(|| "signalfd")?;
        let (end, stop) = std::io::pipe().context(|| "pipe")?;
        let thread = std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || listen(&fd, end.as_fd()))
            .context(|| "start a thread")?;
        Ok(Self { before, stop: Some(stop), thread: Some(thread) })
    }

    /// Has something done as soon as a signal comes, in another thread. It is forgotten when the watch ends.
    pub fn on_signal(&self, wake: impl FnOnce() + Send + 'static) {
        WAKE.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(wake));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // it has nothing to tell
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

/// Ends this process by a signal, as if nobody had watched for it.
fn die_by(number: i32) {
    if let Ok(number) = Signal::try_from(number) {
        stage1::sys::signal::die_by(number);
    }
}

/// Fails if a signal asked to end.
///
/// # Errors
/// One did.
pub fn check() -> Result<()> {
    match Signal::try_from(CAME.load(Ordering::SeqCst)) {
        Ok(signal) => Err(Error::new(format!("interrupted by {signal}; nothing was changed"))),
        Err(_) => Ok(()),
    }
}

/// [`check`], for what reads and writes.
pub(crate) fn check_io() -> std::io::Result<()> {
    check().map_err(|error| std::io::Error::other(error.one_line()))
}

/// Waits, unless a signal comes.
///
/// # Errors
/// One came.
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

/// Ends this process by the signal that came, if one did: the last thing to do, after everything is removed.
pub fn end_by_signal() {
    die_by(CAME.load(Ordering::SeqCst));
}
