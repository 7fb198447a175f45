//! The monitor: the host-side parent of a pod's PID 1 for as long as the pod lives.
//!
//! It passes signals on, copies the pod's console to its own output, reaps, and cleans up.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::apps::Apps;
use super::kept::Kept;
use super::link::Link;
use crate::cgroup::PodCgroup;
use crate::error::{Context, Result};
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

/// Console output kept while the reader of our output is slow; then new output is dropped, so
/// that nobody who writes to the console ever waits for it.
const BACKLOG: usize = 256 * 1024;
/// A pipe that polls as writable takes this much without blocking: pipe(7), PIPE_BUF.
const CHUNK: usize = 4096;

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
    link: Option<Link>,
    backlog: VecDeque<u8>,
    output_open: bool,
    /// The file that our output is, where the host manager keeps it.
    kept: Option<Kept>,
    asked_to_stop: bool,
    apps: Option<Apps>,
}

impl Monitor {
    pub(super) fn new(
        (pid, pidfd): (Pid, OwnedFd),
        cgroup: PodCgroup,
        (console, _terminal): (OwnedFd, OwnedFd),
        link: Option<Link>,
        signals: SignalFd,
    ) -> Self {
        let backlog = VecDeque::new();
        Self {
            pid,
            pidfd,
            cgroup,
            console,
            _terminal,
            signals,
            link,
            backlog,
            output_open: true,
            kept: None,
            asked_to_stop: false,
            apps: None,
        }
    }

    /// PID 1's PID in the host's view.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// The pod's cgroup path, the content of `subcgroup`.
    pub fn cgroup(&self) -> &PodCgroup {
        &self.cgroup
    }

    /// Sees to it that our output does not grow without end, where it is kept.
    pub(super) fn bound_output(&mut self) -> Result<()> {
        self.kept = Kept::find()?;
        Ok(())
    }

    /// Makes this the monitor of an immutable pod, which lives as its apps do.
    pub(super) fn supervise(&mut self, apps: Apps) {
        self.apps = Some(apps);
    }

    /// Ends the pod at once; for a failure after the launch.
    pub fn abort(self) -> Result<()> {
        process::pidfd_kill(&self.pidfd, rustix::process::Signal::KILL)?;
        process::wait_child(self.pid)?;
        self.cgroup.clear()
    }

    /// Stays until the pod has ended and nothing is in its cgroup any more. Returns the pod's exit code: that of an
    /// app that failed, if the pod ended for it, else PID 1's, 0 after one of the kernel's orderly
    /// ends (halt, reboot), 128 + signal after any other signal.
    pub fn watch(mut self) -> Result<u8> {
        let status = loop {
            match &mut self.link {
                None => {
                    self.wait_for_event()?;
                    self.copy_console()?;
                }
                Some(link) => {
                    let apps = self.apps.as_ref().map(Apps::fd);
                    let wake: Vec<_> = [Some(self.signals.as_fd()), apps].into_iter().flatten().collect();
                    link.step(&wake)?;
                    if link.is_cut() && !self.asked_to_stop {
                        self.halt()?;
                    }
                }
            }
            self.take_signals()?;
            self.look_after_apps()?;
            if let Some(status) = self.reap()? {
                break status;
            }
        };
        if let Some(link) = self.link.take() {
            link.finish(&self.signals)?;
        }
        while self.read_console()? {}
        while self.output_open && !self.backlog.is_empty() && self.output_ready(PollTimeout::from(100u8))? {
            self.write_output()?;
        }
        self.cgroup.clear()?;
        let verdict = self.apps.as_ref().and_then(Apps::verdict).unwrap_or(0);
        Ok(if verdict == 0 { exit_code(status) } else { verdict })
    }

    fn look_after_apps(&mut self) -> Result<()> {
        let pid = self.pid();
        let Some(apps) = &mut self.apps else { return Ok(()) };
        if self.asked_to_stop {
            // How the apps end now is the doing of whoever asked.
            return apps.drain();
        }
        let before_start = || self.link.as_ref().map_or(Ok(()), Link::set_up);
        if apps.look(pid, before_start)? { self.halt() } else { Ok(()) }
    }

    fn halt(&mut self) -> Result<()> {
        self.asked_to_stop = true;
        process::pidfd_kill(&self.pidfd, signal::systemd_halt())
    }

    fn wait_for_event(&self) -> Result<()> {
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.console.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(apps) = &self.apps {
            fds.push(PollFd::new(apps.fd(), PollFlags::POLLIN));
        }
        let stdout = std::io::stdout();
        if self.output_open && !self.backlog.is_empty() {
            fds.push(PollFd::new(stdout.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno).context(|| "poll"),
        }
    }

    /// First request: an orderly shutdown. Second: the end.
    fn take_signals(&mut self) -> Result<()> {
        while let Some(info) = self.signals.read_signal().context(|| "read(signalfd)")? {
            let number = i32::try_from(info.ssi_signo).context(|| "signal number")?;
            match (Signal::try_from(number).context(|| format!("signal {number}"))?, &mut self.link) {
                (Signal::SIGCHLD | Signal::SIGPIPE, _) | (Signal::SIGWINCH | Signal::SIGCONT, None) => {}
                (Signal::SIGWINCH, Some(link)) => link.resized()?,
                (Signal::SIGCONT, Some(link)) => link.continued()?,
                (Signal::SIGTSTP, link) => {
                    if let Some(link) = link {
                        link.stopping()?;
                    }
                    // This process alone: the pod goes on.
                    nix::sys::signal::raise(Signal::SIGSTOP).context(|| "raise(SIGSTOP)")?;
                }
                _ if self.asked_to_stop => process::pidfd_kill(&self.pidfd, rustix::process::Signal::KILL)?,
                _ => self.halt()?,
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
            if let Some(link) = &mut self.link
                && self.apps.as_ref().is_some_and(Apps::are_started)
            {
                link.start()?;
            }
        }
        Ok(None)
    }

    fn copy_console(&mut self) -> Result<()> {
        while self.read_console()? {}
        while self.output_open && !self.backlog.is_empty() && self.output_ready(PollTimeout::ZERO)? {
            self.write_output()?;
        }
        Ok(())
    }

    /// Reads what is there; false when there is nothing (more).
    fn read_console(&mut self) -> Result<bool> {
        let mut fds = [PollFd::new(self.console.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO).context(|| "poll(console)")? == 0 {
            return Ok(false);
        }
        let mut buffer = [0; CHUNK];
        match rustix::io::read(&self.console, &mut buffer) {
            Ok(0) => Ok(false),
            // A master without open slave reads EIO: pty(7).
            Err(rustix::io::Errno::IO | rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
            Ok(n) => {
                let room = BACKLOG - self.backlog.len();
                self.backlog.extend(&buffer[..n.min(room)]);
                Ok(true)
            }
            Err(errno) => Err(errno).context(|| "read(console)"),
        }
    }

    fn output_ready(&self, timeout: PollTimeout) -> Result<bool> {
        let stdout = std::io::stdout();
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut fds, timeout) {
            Ok(n) => Ok(n > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno).context(|| "poll(stdout)"),
        }
    }

    /// Writes one chunk of the backlog; a reader that has gone away ends the copying, not the pod.
    fn write_output(&mut self) -> Result<()> {
        let chunk: Vec<u8> = self.backlog.iter().copied().take(CHUNK).collect();
        match rustix::io::write(std::io::stdout(), &chunk) {
            Ok(n) => {
                drop(self.backlog.drain(..n));
                self.kept.as_mut().map_or(Ok(()), |kept| kept.wrote(n))
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(()),
            Err(errno) => {
                log::debug!("the pod's console has no reader any more: {errno}");
                self.output_open = false;
                self.backlog = VecDeque::new();
                Ok(())
            }
        }
    }
}

fn exit_code(status: WaitStatus) -> u8 {
    match status {
        WaitStatus::Exited(_, code) => code.to_le_bytes()[0],
        // reboot(2) in a PID namespace: its init is reported as killed by one of these.
        WaitStatus::Signaled(_, Signal::SIGINT | Signal::SIGHUP, _) => 0,
        WaitStatus::Signaled(_, signal, _) => 128 + (signal as i32).to_le_bytes()[0],
        _ => crate::cli::FAILURE,
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
