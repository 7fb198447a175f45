//! Relaying for a command until its end: input and output, signals, stops and continuations. Host side.

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

/// Blocks every signal that can be blocked, and returns a descriptor that reports them: each is either passed to the
/// command, or handled after the caller's terminal is restored.
///
/// SIGTTIN and SIGTTOU, which concern this process and the caller's terminal, are not blocked; nor is SIGPIPE, which is
/// ignored: a missing reader is an error like others.
pub(super) fn block_signals() -> Result<SignalFd> {
    let own = [Signal::SIGKILL, Signal::SIGSTOP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGPIPE];
    let blocked: Vec<Signal> = Signal::iterator().filter(|signal| !own.contains(signal)).collect();
    signal::block(&blocked)
}

/// Waits for the end of `child`, the command; copies its input and output, and passes on signals, stops and
/// continuations.
///
/// # Errors
/// A call fails, or a file of the caller could not be read or written completely.
pub(super) fn accompany(child: Pid, signals: &SignalFd, mut outside: Outside) -> Result<Ended> {
    let mut ended = None;
    loop {
        if outside.step(signals.as_fd())? {
            while let Some(info) = signals.read_signal().context(|| "read(signalfd)")? {
                let signal = signal_of(&info)?;
                match ended {
                    None => pass_on(signal, &info, child, &mut outside)?,
                    // The command has ended: the signal is for this process.
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

/// Signals that ask a process to end.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

fn signal_of(info: &siginfo) -> Result<Signal> {
    let number = i32::try_from(info.ssi_signo).context(|| "signal number")?;
    Signal::try_from(number).context(|| format!("signal {number}"))
}

fn pass_on(signal: Signal, info: &siginfo, child: Pid, outside: &mut Outside) -> Result<()> {
    // A terminal sends signals to its foreground process group; the command has another group than this process.
    let to_all = info.ssi_code == libc::SI_KERNEL;
    match signal {
        Signal::SIGCHLD | Signal::SIGURG => Ok(()),
        Signal::SIGWINCH => outside.resized(),
        Signal::SIGCONT => {
            outside.continued()?;
            send(child, Signal::SIGCONT, true)
        }
        // The command leads a session, so SIGTSTP would not stop it. This process stops when the command has stopped.
        Signal::SIGTSTP => send(child, Signal::SIGSTOP, true),
        Signal::SIGTERM | Signal::SIGHUP => {
            outside.asked_to_end();
            send(child, signal, to_all)
        }
        other => send(child, other, to_all),
    }
}

/// Sends a signal to the command, or to its whole process group.
fn send(child: Pid, signal: Signal, to_all: bool) -> Result<()> {
    let group = Pid::from_raw(-child.as_raw());
    let sent = match kill(if to_all { group } else { child }, signal) {
        // The command has not made its process group yet.
        Err(Errno::ESRCH) if to_all => kill(child, signal),
        other => other,
    };
    match sent {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("kill({child}, {signal})")),
    }
}

/// Reads the command's state changes. When the command has stopped, so does this process.
fn follow(child: Pid, outside: &mut Outside) -> Result<Option<Ended>> {
    loop {
        let ended = match waitpid(child, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Exited(_, code)) => Ended::Exited(code.to_le_bytes()[0]),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ended::Killed(signal),
            Ok(WaitStatus::Stopped(..)) => {
                outside.stopping()?;
                // SIGCONT continues this process, and is reported with the other signals.
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
