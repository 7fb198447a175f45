//! Standing in for an app in the PID namespace of the host. Pod side.
//!
//! The kernel lets a process into a PID namespace below its own only, so what the pod's supervisor starts never gets into
//! that of the host. That process stays in the pod as the app's main process and stands in for the app: it asks the pod's
//! monitor for the app, tells the supervisor that it runs, passes signals on, and ends as the app does. The monitor, which
//! is outside, executes a program that runs the app ([`super::on_host`]). Whichever of the two is killed, the other one has
//! the rest of the app killed.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use rustix::fs::{Mode, OFlags};

use super::notify::supervisor;
use crate::appc::AcName;
use crate::error::{Context, Error, Result, exit};
use crate::streams::call;
use crate::sys::{fd_passing, process, signal};
use crate::{layout, rootfs};

/// The app was executed: `running`. From outside.
pub(super) const RUNNING: &str = "running";
/// The app has exited: `exited CODE`.
pub(super) const EXITED: &str = "exited";
/// The app was killed: `killed SIGNAL`.
pub(super) const KILLED: &str = "killed";
/// The app was never executed: `failed CODE WHY`.
pub(super) const FAILED: &str = "failed";
/// Send the app a signal: `signal NUMBER`. From inside.
pub(super) const SIGNAL: &str = "signal";

/// Stands in for the app, as its main process, and ends as it does. Pod side.
///
/// # Errors
/// The monitor refuses, the app could not be executed, or who follows it has ended.
pub(super) fn stand_in(app: &AcName) -> Result<Infallible> {
    let signals = signal::block_all_but(&[Signal::SIGCHLD, Signal::SIGPIPE, Signal::SIGTTIN, Signal::SIGTTOU])?;
    let supervisor = supervisor()?;
    let talk = call::connected(layout::MONITOR)?;
    let pods_root = rustix::fs::open("/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(|| "open /proc/self/ns/mnt")?;
    // Who looks for the app's root finds it at any of its processes.
    rootfs::join_pinned(app)?;
    fd_passing::send_message(&talk, format!("{} {app}", call::ON_HOST).as_bytes(), &[])?;
    loop {
        wait_for(&[signals.as_fd(), talk.as_fd()])?;
        while let Some(info) = signals.read_signal().context(|| "read(signalfd)")? {
            // If it has ended, what it said last is still to be read.
            let _ = fd_passing::send_message(&talk, format!("{SIGNAL} {}", info.ssi_signo).as_bytes(), &[]);
        }
        let text = match heard(&talk) {
            Ok(None) => continue,
            Ok(Some(text)) => text,
            Err(error) => {
                end_rest(app, &pods_root)?;
                return Err(error).context(|| "the process that runs it on the host");
            }
        };
        let number = |word: &str| word.parse::<i32>().context(|| format!("the pod's monitor: {text:?}"));
        match text.splitn(3, ' ').collect::<Vec<_>>()[..] {
            [RUNNING] => supervisor
                .as_ref()
                .map_or(Ok(0), |supervisor| supervisor.send(b"READY=1"))
                .map(drop)
                .context(|| "tell the supervisor READY=1")?,
            [EXITED, code] => process::exit_now(number(code)?),
            [KILLED, by] => signal::die_by_number(number(by)?),
            [FAILED, code, why] => {
                return Err(Error::new(why).with_exit_code(u8::try_from(number(code)?).unwrap_or(exit::SETUP)));
            }
            _ => return Err(Error::new(format!("the pod's monitor: {text}"))),
        }
    }
}

/// Has the monitor kill what is left of the app on the host.
fn end_rest(app: &AcName, pods_root: &OwnedFd) -> Result<()> {
    process::setns(pods_root, CloneFlags::CLONE_NEWNS)?;
    call::from_pod(&[call::ON_HOST_END, app.as_ref()], super::TIMEOUT)
}

/// Waits until one of them has something to read, or was closed.
pub(super) fn wait_for(fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut all: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut all, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).context(|| "poll"),
    }
}

/// A message of the other side, if there is one.
///
/// # Errors
/// The other side has ended.
pub(super) fn heard(talk: &OwnedFd) -> Result<Option<String>> {
    rustix::io::ioctl_fionbio(talk, true).context(|| "make a socket non-blocking")?;
    let got = match fd_passing::receive_message(talk, call::MAX) {
        // That it has ended without having read all is told before what it said last.
        Err(error) if error.errno() == Some(libc::ECONNRESET) => fd_passing::receive_message(talk, call::MAX),
        got => got,
    };
    match got {
        Ok(Some((text, _))) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.errno() == Some(libc::EAGAIN) => Ok(None),
        Ok(None) => Err(Error::new("the other side has ended")),
        Err(error) => Err(error),
    }
}
