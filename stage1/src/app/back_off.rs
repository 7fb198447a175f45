//! The time between an app's end and its next start. Pod side.
//!
//! systemd itself waits [`unit::RESTART_DELAY`], the same before every restart: version 252 has no steps, and a unit's
//! `RestartSec=` changes only with a reload of all units. So what is more is waited for here, before the app's start,
//! where a stop ends it at once. systemd does not wait at all if a health check had it restart the app, by a job. How often
//! the app has ended in a row is in the details of its exit (`crate::pod::ExitDetails`).

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::pod::ExitDetails;
use crate::sys::signal;
use crate::unit;

/// Waits for what is left of the time before the app's next start, unless a signal says that there is to be none.
///
/// # Errors
/// The supervisor can't be told, or the signals can't be waited for.
pub fn back_off(app: &AcName) -> Result<()> {
    let Some(ended) = ExitDetails::load_in_pod(app)?.filter(|ended| ended.restarting) else { return Ok(()) };
    let waited = if ended.unhealthy { Duration::ZERO } else { unit::RESTART_DELAY };
    let time = unit::restart_delay(ended.in_a_row).saturating_sub(waited);
    if time.is_zero() {
        return Ok(());
    }
    // also those stop signals that do nothing if nobody takes them
    let signals: Vec<Signal> =
        Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)).collect();
    let signals = signal::block(&signals)?;
    ask_for_time(time)?;
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        // a millisecond more than asked for is no harm, one less would be a busy loop
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) if Instant::now() >= end => return Ok(()),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno).context(|| "poll"),
        }
    }
}

/// Tells the supervisor that the start takes longer by this: sd_notify(3).
pub(super) fn ask_for_time(time: Duration) -> Result<()> {
    extend_to(time + unit::START_TIMEOUT)
}

/// Tells the supervisor that what it waits for takes this long from now on: sd_notify(3).
pub(super) fn extend_to(time: Duration) -> Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let tell = || -> std::io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&path)?;
        socket.send(format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()).as_bytes()).map(drop)
    };
    tell().context(|| format!("ask the supervisor at {path:?} for time"))
}
