//! The monitor: the parent of a pod's PID 1, on the host side, until the pod has ended.
//!
//! It carries the apps' streams ([`crate::mux`]), passes signals on, keeps the output of the pod's console, reaps
//! children, and empties the pod's cgroup at the end.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

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

/// The signals that the monitor blocks and reads from a signalfd(2).
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

/// Maximum of console output, in bytes, that is kept in debug mode while the reader of standard error is slow. What
/// comes on top is dropped and counted in a message: PID 1 never waits for that reader.
const BACKLOG: usize = 256 * 1024;
/// A pipe that polls as writable takes this much without blocking: pipe(7), PIPE_BUF.
const CHUNK: usize = 4096;
/// Time between attempts to write the backlog.
const BACKLOG_LOOK: Duration = Duration::from_millis(20);
/// Length of the end of the console output, in bytes, that is shown if the pod never became ready.
const LAST_WORDS: usize = 4096;

/// The parent of a running pod's PID 1.
#[derive(Debug)]
pub struct Monitor {
    pid: Pid,
    pidfd: OwnedFd,
    cgroup: PodCgroup,
    console: OwnedFd,
    /// The slave of `console`, held open: without an open slave the master would always poll as hung up.
    _terminal: OwnedFd,
    signals: SignalFd,
    mux: Mux,
    /// Whether the console is copied to standard error.
    debug: bool,
    backlog: VecDeque<u8>,
    dropped: u64,
    kept: ConsoleFile,
    last_words: VecDeque<u8>,
    asked_to_stop: bool,
    /// Whether the entrypoint `stop` asked, and no signal has arrived since.
    stop_was_told: bool,
    apps: Option<Apps>,
}

/// How often PID 1 is told to look for ended processes while the pod is being ended. systemd-shutdown waits up to 10 s for
/// a SIGCHLD when a process ends whose parent is outside of the pod: an entered command, or a child that starts apps.
const NUDGE: Duration = Duration::from_millis(100);

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
            // The apps' output is in their logs already: keep it out of the console file.
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

    /// PID of the pod's PID 1, as the host counts.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Makes this the monitor of an immutable pod, which starts `apps` and ends with them.
    pub(super) fn supervise(&mut self, apps: Apps) {
        self.apps = Some(apps);
    }

    /// Waits until the pod has ended and its cgroup is empty. Returns the pod's exit code: that of the app whose
    /// failure ended the pod; otherwise that of PID 1, 0 if PID 1 halted or rebooted, 128 + signal if another signal
    /// ended it. Apps that end after an orderly end was asked for have not failed.
    ///
    /// # Errors
    /// A step of the monitor fails. PID 1 is killed by the kernel when this process ends.
    pub fn watch(mut self) -> Result<u8> {
        let mut nudged: Option<Instant> = None;
        let status = loop {
            let watched = [Some(self.signals.as_fd()), Some(self.console.as_fd()), self.apps.as_ref().map(Apps::fd)];
            let watched: Vec<_> = watched.into_iter().flatten().collect();
            let at_most = match (self.backlog.is_empty(), self.asked_to_stop) {
                (false, _) => Some(BACKLOG_LOOK),
                (true, true) => Some(NUDGE),
                (true, false) => None,
            };
            self.mux.step(&watched, at_most)?;
            if self.asked_to_stop && nudged.is_none_or(|last| last.elapsed() >= NUDGE) {
                nudged = Some(Instant::now());
                process::pidfd_kill(&self.pidfd, rustix::process::Signal::CHILD)?;
            }
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
            // The pod never became ready, so no app has a log: show the end of the console output.
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
            // The pod is being ended: the end of an app is not a failure.
            return apps.drain();
        }
        if apps.look(pid)? { self.halt() } else { Ok(()) }
    }

    fn halt(&mut self) -> Result<()> {
        self.asked_to_stop = true;
        process::pidfd_kill(&self.pidfd, signal::systemd_halt())
    }

    /// Handles pending signals. The first one that asks for the end starts an orderly shutdown, the second one kills
    /// PID 1.
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
                    // Stops this process only: the pod keeps running.
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

    /// Reads all output of the console, and writes it to the console file or, in debug mode, to standard error.
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
                    // Standard error has no reader any more: stop copying.
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

    /// Reads a chunk of console output without blocking; `None` if there is none.
    fn read_console(&mut self) -> Result<Option<Vec<u8>>> {
        let mut fds = [PollFd::new(self.console.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).context(|| "poll(console)")? == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; CHUNK];
        match rustix::io::read(&self.console, &mut buffer) {
            Ok(0) => Ok(None),
            // EIO: the master has no open slave, pty(7).
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
        // After reboot(2) in a PID namespace the kernel reports that one of these signals killed its init.
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
