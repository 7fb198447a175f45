//! Being told to end in the middle of long work: it stops soon, and clears up after itself.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use stage1::error::{Context, Error, Result};
use stage1::sys::{process, signal};

/// The signal that was sent; 0 before.
static SIGNAL: AtomicU32 = AtomicU32::new(0);

/// From here on SIGINT and SIGTERM make [`check`] fail, instead of ending this process at once; a second one does end
/// it. Called before the first thread is started.
///
/// # Errors
/// The signals can't be watched.
pub(crate) fn watch() -> Result<()> {
    let signals = signal::block(&[Signal::SIGINT, Signal::SIGTERM])?;
    let watch = move || {
        loop {
            let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            // nothing but signals wakes it; and what is not understood here is seen at the next one
            let _ = poll(&mut fds, PollTimeout::NONE);
            while let Ok(Some(info)) = signals.read_signal() {
                if SIGNAL.swap(info.ssi_signo, Ordering::Relaxed) != 0 {
                    process::exit_now(exit_code(info.ssi_signo).into());
                }
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(watch).context(|| "start a thread for signals").map(drop)
}

fn exit_code(signal: u32) -> u8 {
    128 + u8::try_from(signal).unwrap_or(0)
}

/// Fails once podctl was told to end.
///
/// # Errors
/// It was; the exit code is 128 and the signal's number.
pub(crate) fn check() -> Result<()> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => {
            let name = i32::try_from(signal).ok().and_then(|number| Signal::try_from(number).ok());
            let name = name.map_or("a signal", Signal::as_str);
            Err(Error::new(format!("interrupted by {name}")).with_exit_code(exit_code(signal)))
        }
    }
}

/// The error with the exit code of an interruption, if there was one: what is in between may have lost it.
pub(crate) fn with_its_code(error: Error) -> Error {
    match check().err().and_then(|told| told.exit_code()) {
        Some(code) => error.with_exit_code(code),
        None => error,
    }
}
