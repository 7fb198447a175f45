//! Running an app in the PID namespace of the host, for the process of the pod that stands in for it
//! ([`super::stand_in`]). The pod's monitor has executed this program. It enters the pod as every command does, but for
//! the PID namespace, in the app's cgroup, and follows the app to its end. Host side.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::enter::{Born, Tie, cross_without_streams};
use super::exec::{hand_over, load_record};
use super::pid_namespace::may_be_on_host;
use super::stand_in::{EXITED, FAILED, KILLED, RUNNING, SIGNAL, heard, wait_for};
use super::{bounding_set, deadline};
use crate::appc::AcName;
use crate::cgroup::PodCgroup;
use crate::confine;
use crate::cross::Target;
use crate::error::{Context, Error, Result, exit};
use crate::launch::{self, Command};
use crate::streams::call;
use crate::streams::handover::{CommandRole, Handover};
use crate::sys::process::ChildEnd;
use crate::sys::process_attributes::ResourceLimits;
use crate::sys::{fd_passing, process, signal};
use crate::{inherited, layout, rootfs};

/// The pause between two looks at the processes of an app that are being killed.
const PAUSE: Duration = Duration::from_millis(2);

/// Kills what is left of an app in the host's PID namespace, for the process at the other end of `talk` that stands in for
/// it. Host side, in the pod's directory.
///
/// # Errors
/// As [`run_on_host`].
pub fn end_on_host(app: &AcName, talk: &OwnedFd) -> Result<()> {
    process::not_dumpable()?;
    let end = || {
        let pods = namespace_of(Target::recorded()?.pid()).context(|| "the PID namespace of the pod")?;
        end_rest(&PodCgroup::recorded(Path::new("."))?, &layout::app_cgroup(app), &pods)
    };
    let text = match end() {
        Ok(()) => call::OK.to_owned(),
        Err(error) => error.one_line(),
    };
    fd_passing::send_message(talk, &text.as_bytes()[..text.len().min(call::MAX)], &[])
}

/// Runs an app in the host's PID namespace, for the process at the other end of `talk` that stands in for it, to its end.
/// Host side, in the pod's directory.
///
/// # Errors
/// The other end of `talk` has closed. What goes wrong with the app is no error here: it is sent through `talk`.
pub fn run_on_host(app: &AcName, talk: &OwnedFd) -> Result<()> {
    let text = match follow(app, talk) {
        Ok(text) => text,
        Err(error) => format!("{FAILED} {} {}", error.exit_code().unwrap_or(exit::SETUP), error.one_line()),
    };
    fd_passing::send_message(talk, &text.as_bytes()[..text.len().min(call::MAX)], &[])
}

/// What is to be told at the app's end.
fn follow(app: &AcName, talk: &OwnedFd) -> Result<String> {
    process::not_dumpable()?;
    if !may_be_on_host(app)? {
        return Err(Error::new(format!("app {app} does not have the host's PID namespace")));
    }
    // The app's processes whose parents have ended are this process's, as they are PID 1's in a pod.
    process::adopt_orphans()?;
    let signals = signal::block(&[Signal::SIGCHLD])?;
    let peer = rustix::net::sockopt::socket_peercred(talk).context(|| "getsockopt(SO_PEERCRED)")?;
    let stand_in = peer.pid.as_raw_nonzero().get();
    let target = Target::recorded()?;
    let place = layout::app_cgroup(app);
    let cgroup = PodCgroup::recorded(Path::new("."))?;
    let running = cgroup.running(&place)?.context(|| format!("app {app} has just ended"))?;
    let pods = namespace_of(target.pid()).context(|| "the PID namespace of the pod")?;
    let limits = ResourceLimits::of(stand_in)?;
    let most = bounding_set(&target)?;
    let join = || {
        inherited::leave_caller()?;
        limits.map_or(Ok(()), |limits| limits.take())?;
        target.join_all_but_pid()?;
        confine::limit_capabilities(most)
    };
    let mut born = cross_without_streams(join, |tie| become_app(app, tie))?;
    let done = running.admit(born.pid).and_then(|admitted| match admitted {
        true => born.go(true),
        false => Err(Error::new(format!("app {app} has just ended"))),
    });
    let done = done.and_then(|()| attend(&mut born, talk, &signals));
    // Whatever has happened: nothing of the app outlives this.
    end_rest(&cgroup, &place, &pods)?;
    done
}

/// In the child: in the app's cgroup, a session of its own, the app's root with a procfs of this process's PID
/// namespace, its streams, its confinement, the command. Pod side but for the PID namespace.
fn become_app(app: &AcName, tie: &mut Tie) -> Result<Infallible> {
    process::new_session()?;
    tie.wait()?;
    let record = load_record(app)?;
    let handover = Handover::begin()?;
    rootfs::join_pinned(app)?;
    rootfs::renew_proc()?;
    hand_over(handover, app, &record, CommandRole::Main)?;
    launch::exec(&record.confinement, &Command { parent: Some(tie.parent()), ..record.command() })
}

/// Follows the app to its end: tells that it runs, and passes signals on. What is to be told at the end.
fn attend(born: &mut Born, talk: &OwnedFd, signals: &nix::sys::signalfd::SignalFd) -> Result<String> {
    let mut told = false;
    loop {
        let mut fds = vec![signals.as_fd(), talk.as_fd()];
        fds.extend((!told).then(|| born.ended_or_executed()));
        wait_for(&fds)?;
        while signals.read_signal().context(|| "read(signalfd)")?.is_some() {}
        if let Some(text) = heard(talk)? {
            let number = text.strip_prefix(SIGNAL).and_then(|word| word.trim().parse::<i32>().ok());
            let number = number.context(|| format!("{text:?} is not a request to pass a signal on"))?;
            // This process has not waited for it: the PID is still its own.
            process::pidfd_kill(process::pidfd_open(born.pid.as_raw())?, signal::by_number(number)?)?;
        }
        if !told && process::wait_readable(born.ended_or_executed(), Duration::ZERO)? {
            if let Some(error) = born.failure()? {
                process::wait_child(born.pid)?;
                return Err(error);
            }
            told = true;
            fd_passing::send_message(talk, RUNNING.as_bytes(), &[])?;
        }
        match process::reap_all(born.pid)? {
            Some(ChildEnd::Exited(code)) => return Ok(format!("{EXITED} {code}")),
            Some(ChildEnd::Killed(by)) => return Ok(format!("{KILLED} {by}")),
            None => {}
        }
    }
}

/// Kills all processes in the app's cgroup that are not in the pod's PID namespace `pods`: those that are, as the one that
/// stands in for the app and who writes its end down, are the supervisor's.
fn end_rest(cgroup: &PodCgroup, place: &Path, pods: &Path) -> Result<()> {
    let end = deadline();
    let is_outside = |pid: &i32| namespace_of(*pid).is_ok_and(|namespace| namespace != pods);
    loop {
        let rest: Vec<i32> = cgroup.processes(place)?.into_iter().filter(is_outside).collect();
        if rest.is_empty() {
            return Ok(());
        }
        for pid in rest {
            // Its number may be another's by now: the descriptor's can't change any more.
            let Ok(pidfd) = process::pidfd_open(pid) else { continue };
            if cgroup.has_process(pid, place)? && is_outside(&pid) {
                process::pidfd_kill(&pidfd, rustix::process::Signal::KILL)?;
            }
        }
        if std::time::Instant::now() > end {
            return Err(Error::new("processes of the app do not end"));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Which PID namespace a process is in: namespaces(7).
fn namespace_of(pid: i32) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid"))
}
