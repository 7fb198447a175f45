//! The monitor: the host-side parent of a pod's PID 1 for as long as the pod lives.
//!
//! It carries what the apps read and write ([`crate::mux`]), passes signals on, keeps what the pod's console says, reaps,
//! and cleans up.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::apps::Apps;
use super::console_file::ConsoleFile;
use crate::cgroup::PodCgroup;
use crate::error::{Context, Result, exit};
use crate::mux::Mux;
use crate::pod;
use crate::sys::{process, signal};

/// What the monitor takes as events instead of being interrupted by.
pub(super) const SIGNALS: &[Signal] = &[
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGPIPE,
    Signal::SIGCHLD,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// What PID 1 has to say in debug mode is kept while the reader of standard error is slow, in bytes; then it is dropped,
/// and that is said. PID 1 never waits for it.
const BACKLOG: usize = 256 * 1024;
/// A pipe that polls as writable takes this much without blocking: pipe(7), PIPE_BUF.
const CHUNK: usize = 4096;
/// How often it is tried again.
const BACKLOG_LOOK: Duration = Duration::from_millis(20);
/// How much of what the console said is shown when the pod never got ready, in bytes.
const LAST_WORDS: usize = 4096;

/// The parent of a running pod's PID 1.
#[derive(Debug)]
pub struct Monitor {
    pid: Pid,
    pidfd: OwnedFd,
    cgroup: PodCgroup,
    console: OwnedFd,
    /// Held open: a master whose last slave closes reports a hang-up for ever.
    _terminal: OwnedFd,
    signals: SignalFd,
    mux: Mux,
    /// In debug mode the console is copied to standard error.
    debug: bool,
    backlog: VecDeque<u8>,
    dropped: u64,
    kept: ConsoleFile,
    last_words: VecDeque<u8>,
    asked_to_stop: bool,
    /// … by the entrypoint `stop`, and since then by no signal.
    stop_was_told: bool,
    apps: Option<Apps>,
}

impl Monitor {
    pub(super) fn new(
        (pid, pidfd): (Pid, OwnedFd),
        cgroup: PodCgroup,
        (console, _terminal): (OwnedFd, OwnedFd),
        mut mux: Mux,
        signals: SignalFd,
        debug: bool,
    ) -> Result<Self> {
        let kept = match ConsoleFile::open() {
            Ok(kept) => kept,
            Err(error) => {
                process::pidfd_kill(&pidfd, rustix::process::Signal::KILL)?;
                process::wait_child(pid)?;
                cgroup.clear()?;
                return Err(error);
            }
        };
        if kept.is_output() {
            // What the apps write is in their logs.
            mux.show_nothing();
        }
        Ok(Self {
            pid,
            pidfd,
            cgroup,
            console,
            _terminal,
            signals,
            mux,
            debug: debug && !kept.is_output(),
            backlog: VecDeque::new(),
            dropped: 0,
            kept,
            last_words: VecDeque::new(),
            asked_to_stop: false,
            stop_was_told: false,
            apps: None,
        })
    }

    /// PID 1's PID in the host's view.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Makes this the monitor of an immutable pod, which lives as its apps do.
    pub(super) fn supervise(&mut self, apps: Apps) {
        self.apps = Some(apps);
    }

    /// Waits until the pod has ended and its cgroup is empty. Returns the pod's exit code: that of an
    /// app that failed, if the pod ended for it, else PID 1's, 0 after one of the kernel's orderly
    /// ends (halt, reboot), 128 + signal after any other signal. Somebody who asks for an orderly end makes no app fail.
    ///
    /// # Errors
    /// The monitor itself fails; the pod has ended then, as far as it could be ended.
    pub fn watch(mut self) -> Result<u8> {
        let status = loop {
            let watched = [Some(self.signals.as_fd()), Some(self.console.as_fd()), self.apps.as_ref().map(Apps::fd)];
            let watched: Vec<_> = watched.into_iter().flatten().collect();
            self.mux.step(&watched, (!self.backlog.is_empty()).then_some(BACKLOG_LOOK))?;
            if self.mux.link().is_some_and(|link| link.is_cut()) && !self.asked_to_stop {
                self.halt()?;
            }
            if self.mux.is_stopped() && !self.asked_to_stop {
                self.stop_was_told = true;
                self.halt()?;
            }
            self.copy_console()?;
            self.take_signals()?;
            self.look_after_apps()?;
            if let Some(status) = self.reap()? {
                break status;
            }
        };
        self.copy_console()?;
        let verdict = self.apps.as_ref().and_then(Apps::verdict).unwrap_or(0);
        if !self.debug && !self.kept.is_output() && !pod::is_ready(Path::new("."))? {
            // It never got as far as to have logs.
            let words: Vec<u8> = self.last_words.into();
            eprint!("{}", String::from_utf8_lossy(&words));
        }
        let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
        if (self.asked_to_stop || killed) && verdict == 0 {
            self.mux.stop();
        }
        let finished = self.mux.finish(&self.signals);
        self.cgroup.clear()?;
        finished?;
        Ok(if verdict == 0 { exit_code(status) } else { verdict })
    }

    fn look_after_apps(&mut self) -> Result<()> {
        let pid = self.pid();
        let Some(apps) = &mut self.apps else { return Ok(()) };
        if self.asked_to_stop {
            // The caller ends the apps, so that is not their failure.
            return apps.drain();
        }
        if apps.look(pid)? { self.halt() } else { Ok(()) }
    }

    fn halt(&mut self) -> Result<()> {
        self.asked_to_stop = true;
        process::pidfd_kill(&self.pidfd, signal::systemd_halt())
    }

    /// First signal: an orderly shutdown. Second: the end.
    fn take_signals(&mut self) -> Result<()> {
        while let Some(info) = self.signals.read_signal().context(|| "read(signalfd)")? {
            let number = i32::try_from(info.ssi_signo).context(|| "signal number")?;
            match (Signal::try_from(number).context(|| format!("signal {number}"))?, self.mux.link()) {
                (Signal::SIGCHLD | Signal::SIGPIPE, _) | (Signal::SIGWINCH | Signal::SIGCONT, None) => {}
                (Signal::SIGWINCH, Some(link)) => link.resized(),
                (Signal::SIGCONT, Some(link)) => link.continued()?,
                (Signal::SIGTSTP, link) => {
                    if let Some(link) = link {
                        link.stopping()?;
                    }
                    // This process alone: the pod goes on.
                    nix::sys::signal::raise(Signal::SIGSTOP).context(|| "raise(SIGSTOP)")?;
                }
                _ => {
                    self.mux.stop();
                    if self.asked_to_stop && !std::mem::take(&mut self.stop_was_told) {
                        process::pidfd_kill(&self.pidfd, rustix::process::Signal::KILL)?;
                    } else {
                        self.halt()?;
                    }
                }
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<Option<WaitStatus>> {
        while let Some(status) = process::reap_any()? {
            if status.pid() == Some(self.pid) {
                return Ok(Some(status));
            }
            let over = self.apps.as_mut().map_or(Ok(false), |apps| apps.reaped(status))?;
            if over && !self.asked_to_stop {
                self.halt()?;
            }
        }
        Ok(None)
    }

    /// Takes what the console says: it is read whatever becomes of it.
    fn copy_console(&mut self) -> Result<()> {
        while let Some(bytes) = self.read_console()? {
            self.last_words.extend(&bytes);
            self.last_words.drain(..self.last_words.len().saturating_sub(LAST_WORDS));
            if !self.debug {
                if let Err(error) = self.kept.write(&bytes) {
                    log::debug!("{}", error.one_line());
                }
                continue;
            }
            let room = BACKLOG - self.backlog.len().min(BACKLOG);
            self.dropped += bytes.len().saturating_sub(room) as u64;
            self.backlog.extend(&bytes[..bytes.len().min(room)]);
        }
        while !self.backlog.is_empty() && is_writable(std::io::stderr())? {
            let chunk: Vec<u8> = self.backlog.iter().copied().take(CHUNK).collect();
            match rustix::io::write(std::io::stderr(), &chunk) {
                Ok(count) => drop(self.backlog.drain(..count)),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => break,
                Err(_) => {
                    // Nobody wants to know.
                    self.backlog.clear();
                    self.debug = false;
                }
            }
        }
        if self.backlog.is_empty() && self.dropped > 0 {
            let words = format!("\n[{} bytes of the pod's console were not read fast enough]\n", self.dropped);
            self.backlog.extend(words.as_bytes());
            self.dropped = 0;
        }
        Ok(())
    }

    /// Reads what is there; `None` when there is nothing (more).
    fn read_console(&mut self) -> Result<Option<Vec<u8>>> {
        let mut fds = [PollFd::new(self.console.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).context(|| "poll(console)")? == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; CHUNK];
        match rustix::io::read(&self.console, &mut buffer) {
            Ok(0) => Ok(None),
            // A master without open slave reads EIO: pty(7).
            Err(rustix::io::Errno::IO | rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Ok(n) => {
                buffer.truncate(n);
                Ok(Some(buffer))
            }
            Err(errno) => Err(errno).context(|| "read(console)"),
        }
    }
}

fn is_writable(fd: impl AsFd) -> Result<bool> {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(n) => Ok(n > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno).context(|| "poll(stderr)"),
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => code.to_le_bytes()[0],
        // reboot(2) in a PID namespace: its init is reported as killed by one of these.
        WaitStatus::Signaled(_, Signal::SIGINT | Signal::SIGHUP, _) => 0,
        WaitStatus::Signaled(_, signal, _) => 128 + (signal as i32).to_le_bytes()[0],
        _ => exit::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        let pid = Pid::from_raw(1);
        assert_eq!(exit_code(WaitStatus::Exited(pid, 7)), 7);
        assert_eq!(exit_code(WaitStatus::Signaled(pid, Signal::SIGINT, false)), 0);
        assert_eq!(exit_code(WaitStatus::Signaled(pid, Signal::SIGKILL, false)), 137);
    }
}
