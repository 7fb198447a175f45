//! Health checks: a command in the app, confined as the app is and in its cgroup, or a request to it ([`request`]). Pod
//! side, started by a timer of the pod's systemd.

mod request;

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rustix::pipe::{PipeFlags, pipe_with};

use super::deadline;
use super::exec::load_record;
use super::pid_namespace::{join_root, main_pid};
use crate::appc::{AcName, HealthCheck, OnFailure, PidNamespace};
use crate::cgroup;
use crate::error::{Context, Error, Result, exit};
use crate::launch::{self, Command, LaunchRecord};
use crate::layout;
use crate::pod::events::Event;
use crate::pod::{Check, Health, MAX_OUTPUT};
use crate::sys::process::{self, Fork};
use crate::systemd::{Client, PRIVATE_SOCKET, Verb};

/// Runs the app's health check once and records its result. If the app has become unhealthy, does what its declaration
/// says.
///
/// # Errors
/// The app has no check, or it can't be run for a reason other than the app.
pub fn check_health(app: &AcName) -> Result<()> {
    process::not_dumpable()?;
    process::close_on_exec_from_3()?;
    let record = load_record(app)?;
    let check = record.health.as_ref().context(|| format!("app {app} has no health check"))?;
    let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline())?;
    // The app has ended meanwhile: there is nothing to record.
    let Some(main) = main_pid(&mut systemd, app)? else { return Ok(()) };
    // A paused app can't answer.
    if cgroup::is_frozen(main)? {
        return Ok(());
    }
    let outcome = match &check.request {
        Some(request) => {
            let outcome = request::ask(request, Duration::from_millis(check.timeout_ms));
            // An app that has ended meanwhile did not answer for that reason.
            (main_pid(&mut systemd, app)? == Some(main)).then_some(outcome)
        }
        None => probe(app, &record, check, main)?,
    };
    let Some(outcome) = outcome else { return Ok(()) };
    if cgroup::is_frozen(main)? {
        return Ok(());
    }
    let mut health = Health::load_in_pod(app)?.unwrap_or_default();
    let was = health.status;
    let became_unhealthy = health.note(outcome, check);
    // Before the job, so that the reaper can tell why the app ends.
    health.ends_app = became_unhealthy && check.on_failure != OnFailure::None;
    health.store_in_pod(app)?;
    if health.status != was {
        let exit_code = health.last.as_ref().and_then(|last| last.exit_code);
        let said = health.last.as_ref().map(|last| last.output.clone()).filter(|said| !said.is_empty());
        // A command that timed out may have said nothing.
        let timed_out = (health.last.is_some() && exit_code.is_none())
            .then(|| format!("timed out after {}", request::in_seconds(Duration::from_millis(check.timeout_ms))));
        let said = said.or(timed_out);
        Event { exit_code, why: said, ..Event::now(health.status.word(), Some(app)) }.note_in_pod();
    }
    let verb = match check.on_failure {
        OnFailure::Restart if became_unhealthy => Verb::Restart,
        OnFailure::Stop if became_unhealthy => Verb::Stop,
        _ => return Ok(()),
    };
    // Does not wait for the job, which first ends this check.
    systemd.queue(verb, &layout::app_unit(app), deadline()).map(drop)
}

/// Runs the command; `None` if the app has ended meanwhile.
fn probe(app: &AcName, record: &LaunchRecord, check: &HealthCheck, main: i32) -> Result<Option<Check>> {
    let pipe = |flags| pipe_with(PipeFlags::CLOEXEC | flags).context(|| "pipe");
    let (go, our_go) = pipe(PipeFlags::empty())?;
    let (output, its_output) = pipe(PipeFlags::empty())?;
    // The pod's PID namespace, or that of the app's main process.
    let own = record.pid_namespace != PidNamespace::Pod;
    if own {
        process::setns(process::pidfd_open(main)?, CloneFlags::CLONE_NEWPID)?;
    }
    let null = File::options().read(true).write(true).open("/dev/null").context(|| "open /dev/null")?;
    let child = match process::fork()? {
        Fork::Child => {
            drop((our_go, output));
            let Err(error) = become_check(app, record, own.then_some(main), check, &go, &its_output, &null);
            // Errors go where its output goes.
            let said = File::from(its_output).write_all(error.one_line().as_bytes());
            process::exit_now(i32::from(if said.is_ok() {
                error.exit_code().unwrap_or(exit::SETUP)
            } else {
                exit::SETUP
            }))
        }
        Fork::Parent(child) => child,
    };
    drop((go, its_output));
    if !cgroup::join_like(child, main)? {
        process::pidfd_kill(&process::pidfd_open(child.as_raw())?, rustix::process::Signal::KILL)?;
        process::wait_child(child)?;
        return Ok(None);
    }
    let mut our_go = File::from(our_go);
    our_go.write_all(&[1]).context(|| "let the check go on")?;
    attend(child, output, Duration::from_millis(check.timeout_ms), None).map(Some)
}

/// In the child, once it is in the app's cgroup: takes the app's root and confinement, and executes the command.
fn become_check(
    app: &AcName,
    record: &LaunchRecord,
    main: Option<i32>,
    check: &HealthCheck,
    go: &OwnedFd,
    output: &OwnedFd,
    null: &File,
) -> Result<Infallible> {
    process::die_with_parent()?;
    process::new_session()?;
    let mut word = [0];
    if rustix::io::read(go, &mut word).context(|| "wait for the word to go on")? == 0 {
        return Err(Error::new("the calling process has ended"));
    }
    process::set_standard_fd(null, 0)?;
    for number in [1, 2] {
        process::set_standard_fd(output, number)?;
    }
    join_root(app, main)?;
    let command = Command { parent: Some(go.as_fd()), ..record.command_of(&check.command) };
    launch::exec(&record.confinement, &command)
}

/// Reads the command's output and waits for its end. Kills it and its session after its timeout, or when the process
/// `main` has ended.
pub(super) fn attend(child: Pid, output: OwnedFd, timeout: Duration, main: Option<&OwnedFd>) -> Result<Check> {
    let pidfd = process::pidfd_open(child.as_raw())?;
    rustix::io::ioctl_fionbio(&output, true).context(|| "make a pipe non-blocking")?;
    let mut output = Some(File::from(output));
    let mut text = Vec::new();
    let end = Instant::now() + timeout;
    let in_time = loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds = vec![PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(main.map(|main| PollFd::new(main.as_fd(), PollFlags::POLLIN)));
        fds.extend(output.as_ref().map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)));
        let wait = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "poll"),
        }
        let ended = fds[0].any() == Some(true);
        let is_alone = main.is_some() && fds[1].any() == Some(true);
        if !take(&mut output, &mut text) {
            output = None;
        }
        if ended {
            break true;
        }
        if is_alone || Instant::now() >= end {
            break false;
        }
    };
    if !in_time {
        match killpg(child, Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context(|| format!("killpg({child})")),
        }
    }
    let status = process::wait_child(child)?;
    let exit_code = match status {
        _ if !in_time => None,
        WaitStatus::Exited(_, code) => Some(code.to_le_bytes()[0]),
        WaitStatus::Signaled(_, signal, _) => Some(128 + (signal as i32).to_le_bytes()[0]),
        other => return Err(Error::new(format!("the check ended: {other:?}"))),
    };
    take(&mut output, &mut text);
    let mut text = String::from_utf8_lossy(&text).trim_end().to_owned();
    text.drain(..text.ceil_char_boundary(text.len().saturating_sub(MAX_OUTPUT)));
    Ok(Check { exit_code, output: text })
}

/// Reads output, and keeps its end. Returns whether there may be more.
fn take(output: &mut Option<File>, text: &mut Vec<u8>) -> bool {
    let Some(output) = output else { return false };
    let mut buffer = [0; 4096];
    loop {
        match output.read(&mut buffer) {
            Ok(0) => return false,
            Ok(length) => {
                text.extend_from_slice(&buffer[..length]);
                text.drain(..text.len().saturating_sub(MAX_OUTPUT));
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // Any other error counts as the end.
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}
