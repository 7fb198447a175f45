//! Running a command in a pod or in one of its apps, confined as the app is. Host side, in the pod directory.

use std::convert::Infallible;
use std::path::Path;

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::exec::load_record;
use crate::appc::AcName;
use crate::cgroup::PodCgroup;
use crate::confine::Confinement;
use crate::confine::caps::CapSet;
use crate::confine::ids::Ids;
use crate::cross::Target;
use crate::error::{Context, Error, Result};
use crate::launch::{self, Command, env};
use crate::sys::process::{self, Fork};
use crate::sys::signal;
use crate::{layout, rootfs};

/// What `enter` is told.
#[derive(Debug)]
pub struct Entry {
    /// PID of the pod's PID 1, host view.
    pub pid: i32,
    /// The app to enter; the pod itself without one.
    pub app: Option<AcName>,
    /// Command and arguments.
    pub command: Vec<String>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status.
    Exited(u8),
    /// By this signal.
    Killed(Signal),
}

/// Runs the command and waits for its end; what stops or continues it does so to this process too.
pub fn enter(entry: &Entry) -> Result<Ended> {
    if entry.command.is_empty() {
        return Err(Error::new("no command: write it after --, e.g. -- /bin/sh"));
    }
    process::not_dumpable()?;
    process::close_on_exec_from_3()?;
    let target = Target::open(entry.pid)?;
    let cgroup = PodCgroup::recorded(Path::new("."))?;
    let signals = signal::block(FORWARDED)?;
    let parent = process::pidfd_open(std::process::id().cast_signed())?;
    // Only for children: the command is born in the pod.
    process::setns(target.pidfd(), CloneFlags::CLONE_NEWPID)?;
    match process::fork()? {
        Fork::Child => {
            let Err(error) = become_command(entry, &target, &cgroup, &parent);
            eprintln!("enter: {}", error.one_line());
            process::exit_now(i32::from(error.exit_code().unwrap_or(launch::exit::SETUP)))
        }
        Fork::Parent(child) => accompany(child, &signals),
    }
}

/// In the pod's PID namespace: cgroup, the other namespaces, the app's root, its confinement, the command.
fn become_command(
    entry: &Entry,
    target: &Target,
    cgroup: &PodCgroup,
    parent: &std::os::fd::OwnedFd,
) -> Result<Infallible> {
    process::die_with_parent()?;
    if process::pidfd_wait_end(parent, std::time::Duration::ZERO)? {
        return Err(Error::new("the calling process has ended"));
    }
    let Some(app) = &entry.app else {
        cgroup.join_unit(Path::new("init.scope"))?;
        target.join()?;
        return launch::exec(
            &unconfined(),
            &Command {
                argv: &entry.command,
                environment: &[("PATH".into(), layout::POD_PATH.into()), term()],
                search_path: &layout::POD_PATH.split(':').map(str::to_owned).collect::<Vec<_>>(),
                working_directory: "/",
            },
        );
    };
    cgroup.join_unit(&layout::app_cgroup(app))?;
    target.join()?;
    let mut record = load_record(app).context(|| format!("app {app} is not in this pod"))?;
    rootfs::join_pinned(app)?;
    let (name, value) = term();
    env::set(&mut record.environment, &name, &value);
    let confinement = record.confinement.clone().with_ids(&Ids::default());
    launch::exec(&confinement, &record.command_of(&entry.command))
}

/// The terminal type of the caller, which the command is going to write to.
fn term() -> (String, String) {
    let term = std::env::var("TERM").ok().filter(|term| !term.is_empty()).unwrap_or_else(|| "vt100".to_owned());
    ("TERM".to_owned(), term)
}

/// The pod itself has no confinement but its namespaces: whoever enters it is its administrator.
fn unconfined() -> Confinement {
    Confinement {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        capabilities: CapSet::ALL,
        no_new_privileges: false,
        seccomp: None,
    }
}

/// Signals that somebody sends to `enter` and means for the command.
const FORWARDED: &[Signal] = &[
    Signal::SIGCHLD,
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGTSTP,
];

/// Waits for the command's end, passing signals, stops and continuations on.
fn accompany(child: Pid, signals: &nix::sys::signalfd::SignalFd) -> Result<Ended> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    loop {
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "poll"),
        }
        while let Some(info) = signals.read_signal().context(|| "read(signalfd)")? {
            let number = i32::try_from(info.ssi_signo).context(|| "signal number")?;
            // What the terminal sends goes to the whole process group, the command included.
            if number == Signal::SIGCHLD as i32 || info.ssi_code == libc::SI_KERNEL {
                continue;
            }
            let signal = Signal::try_from(number).context(|| format!("signal {number}"))?;
            match nix::sys::signal::kill(child, signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => return Err(errno).context(|| format!("kill({child}, {signal})")),
            }
        }
        while let Some(status) = next_change(child)? {
            match status {
                WaitStatus::Exited(_, code) => return Ok(Ended::Exited(code.to_le_bytes()[0])),
                WaitStatus::Signaled(_, signal, _) => return Ok(Ended::Killed(signal)),
                WaitStatus::Stopped(..) => {
                    nix::sys::signal::raise(Signal::SIGSTOP).context(|| "raise(SIGSTOP)")?;
                    nix::sys::signal::kill(child, Signal::SIGCONT).context(|| "kill(SIGCONT)")?;
                }
                _ => {}
            }
        }
    }
}

fn next_change(child: Pid) -> Result<Option<WaitStatus>> {
    match waitpid(child, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
        Ok(WaitStatus::StillAlive) => Ok(None),
        other => other.map(Some).context(|| format!("waitpid({child})")),
    }
}
