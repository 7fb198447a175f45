//! Accompanying a command to its end: copying, signals, stops and continuations. Host side.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::signalfd::{SignalFd, siginfo};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Ended;
use super::wiring::Outside;
use crate::error::{Context, Result};
use crate::sys::signal;

/// Blocks every signal that can be blocked, and returns a descriptor that reports them: each is either the command's,
/// or must find the caller's terminal as it was.
///
/// SIGTTIN and SIGTTOU stay as they are, between this process and the caller's terminal; so does SIGPIPE, which is
/// ignored: to find no reader is an error like others.
pub(super) fn block_signals() -> Result<SignalFd> {
    let own = [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGPIPE];
    let blocked: Vec<Signal> = Signal::iterator().filter(|signal| !own.contains(signal)).collect();
    signal::block(&blocked)
}

/// Waits for the end of `child`, the command; copies for it, and passes signals, stops and continuations on.
///
/// # Errors
/// Also when a file of the caller's could not be read or written to its end.
pub(super) fn accompany(child: Pid, signals: &SignalFd, mut outside: Outside) -> Result<Ended> {
    let mut ended = None;
    loop {
        if outside.step(signals.as_fd())? {
            while let Some(info) = signals.read_signal().context(|| "read(signalfd)")? {
                let signal = signal_of(&info)?;
                match ended {
                    None => pass_on(signal, &info, child, &mut outside)?,
                    // Nobody is left whom it could be for, and the caller is in a hurry.
                    Some(ended) if ENDING.contains(&signal) => return Ok(ended),
                    Some(_) => {}
                }
            }
            if ended.is_none() {
                ended = follow(child, &mut outside)?;
            }
        }
        match ended {
            Some(ended) if outside.is_done() => return outside.check().map(|()| ended),
            _ => {}
        }
    }
}

/// Signals that ask for an end.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

fn signal_of(info: &siginfo) -> Result<Signal> {
    let number = i32::try_from(info.ssi_signo).context(|| "signal number")?;
    Signal::try_from(number).context(|| format!("signal {number}"))
}

fn pass_on(signal: Signal, info: &siginfo, child: Pid, outside: &mut Outside) -> Result<()> {
    // What a terminal sends it sends to a process group; the command's is another than this process's.
    let to_all = info.ssi_code == libc::SI_KERNEL;
    match signal {
        Signal::SIGCHLD | Signal::SIGURG => Ok(()),
        Signal::SIGWINCH => outside.resized(),
        Signal::SIGCONT => {
            outside.continued()?;
            send(child, Signal::SIGCONT, true)
        }
        // The command leads a session: SIGTSTP would not stop it. This process stops when it hears that it has.
        Signal::SIGTSTP => send(child, Signal::SIGSTOP, true),
        other => send(child, other, to_all),
    }
}

/// Sends a signal to the command, or to its whole process group.
fn send(child: Pid, signal: Signal, to_all: bool) -> Result<()> {
    let group = Pid::from_raw(-child.as_raw());
    let sent = match kill(if to_all { group } else { child }, signal) {
        // It has not made its group yet.
        Err(Errno::ESRCH) if to_all => kill(child, signal),
        other => other,
    };
    match sent {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("kill({child}, {signal})")),
    }
}

/// Takes note of what has become of the command. When it has stopped, so does this process.
fn follow(child: Pid, outside: &mut Outside) -> Result<Option<Ended>> {
    loop {
        let ended = match waitpid(child, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, code)) => Ended::Exited(code.to_le_bytes()[0]),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ended::Killed(signal),
            Ok(WaitStatus::Stopped(..)) => {
                outside.stopping()?;
                // A SIGCONT continues this process; it is among the signals.
                raise(Signal::SIGSTOP).context(|| "raise(SIGSTOP)")?;
                continue;
            }
            Ok(_) => return Ok(None),
            Err(errno) => return Err(errno).context(|| format!("waitpid({child})")),
        };
        outside.finish()?;
        return Ok(Some(ended));
    }
}
