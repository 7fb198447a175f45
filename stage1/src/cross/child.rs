//! The processes that work for this one: forking them, across the border of a pod too, waiting for them, and what they
//! report. Host side.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use crate::error::{Context, Error, Result};
use crate::sys::process::{self, Fork};
use crate::sys::shared::SharedNumber;

/// Which process [`fork_across`] returns in.
pub(crate) enum Across {
    /// In the calling process.
    Outside(Sibling),
    /// In the new process, which has joined the pod.
    Inside,
    /// In the process that was to join, which has failed. It must report that, and end by [`process::exit_now`].
    Failed(Error),
}

/// A child of this process in the pod's PID namespace, and the child that has cloned it there: the crosser.
#[derive(Debug)]
pub(crate) struct Sibling {
    /// The former, in the PID namespace of this process; `None` if the crosser has failed.
    pub(crate) pid: Option<Pid>,
    crosser: Pid,
}

impl Sibling {
    /// Waits until the crosser has ended, which it does right after the clone, and reaps it: waitpid(2).
    pub(crate) fn reap_crosser(&self) -> Result<WaitStatus> {
        process::wait_child(self.crosser)
    }

    /// Waits for the end of both, and kills the process in the pod at `deadline`. How that ended, or else the crosser.
    pub(super) fn wait(&self, deadline: Instant) -> Result<WaitStatus> {
        let status = self.pid.map(|pid| wait_until(pid, deadline)).transpose();
        let crosser = self.reap_crosser()?;
        Ok(status?.unwrap_or(crosser))
    }
}

/// Forks a process, the crosser, that leads a session and runs `join`: this enters the pod's namespaces, keeps its
/// argument open, and none of the host's descriptors. There the crosser clones the new process as its sibling, and ends.
///
/// The pod can see the new process, and can do in its name what it could do at that moment. So the PID comes through
/// memory that the crosser has and the new process has not; the pipe that both have only wakes this process.
///
/// # Errors
/// A call fails, or joining takes longer than `deadline`. In the calling process only.
pub(crate) fn fork_across(deadline: Instant, join: impl FnOnce(BorrowedFd<'_>) -> Result<()>) -> Result<Across> {
    let born = SharedNumber::new()?;
    let (bell, rings) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context(|| "pipe")?;
    let crosser = match process::fork()? {
        Fork::Parent(crosser) => crosser,
        Fork::Child => {
            drop(bell);
            // In the session of the caller the new process could open the caller's terminal, as /dev/tty.
            let alone = process::new_session().and_then(|()| join(rings.as_fd()));
            let joined = alone.and_then(|()| born.keep_from_children());
            return match joined.and_then(|()| process::fork_into(CloneFlags::CLONE_PARENT)) {
                Ok(Fork::Child) => {
                    std::mem::forget(born);
                    Ok(Across::Inside)
                }
                Ok(Fork::Parent(pid)) => {
                    born.set(pid.as_raw());
                    // The end of this process wakes the parent too.
                    let _ = rustix::io::write(&rings, &[0]);
                    process::exit_now(0)
                }
                Err(error) => Ok(Across::Failed(error)),
            };
        }
    };
    drop(rings);
    let pidfd = process::pidfd_open(crosser.as_raw())?;
    process::wait_one_readable(&[bell.as_fd(), pidfd.as_fd()], deadline)?;
    // The pod can ring too early.
    if born.get() == 0 && !process::pidfd_wait_end(&pidfd, deadline.saturating_duration_since(Instant::now()))? {
        process::pidfd_kill(&pidfd, Signal::KILL)?;
        process::wait_child(crosser)?;
        if born.get() > 0 {
            process::pidfd_kill(process::pidfd_open(born.get())?, Signal::KILL)?;
        }
        return Err(Error::new("joining the pod timed out"));
    }
    let pid = Some(born.get()).filter(|pid| *pid > 0).map(Pid::from_raw);
    Ok(Across::Outside(Sibling { pid, crosser }))
}

/// Replaces the caller's standard descriptors by /dev/null, host side.
pub(super) fn leave_standard_fds() -> Result<()> {
    const NOTHING: &str = "/dev/null";
    let nothing = rustix::fs::open(NOTHING, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let nothing = nothing.context(|| format!("open {NOTHING}"))?;
    (0..3).try_for_each(|number| process::set_standard_fd(&nothing, number))
}

/// Begins to do `work` in a forked child. It is not dumpable, and is killed when its parent ends.
///
/// # Errors
/// The child can't be forked.
pub fn begin_in_child(deadline: Instant, work: impl FnOnce() -> Result<()>) -> Result<Begun> {
    let mut work = Some(work);
    fork_for(deadline, &mut || work.take().map_or(Ok(()), |work| work()))
}

/// Work that a child does.
#[derive(Debug)]
#[must_use]
pub struct Begun {
    child: Pid,
    report: OwnedFd,
    deadline: Instant,
}

impl Begun {
    /// Waits until the work is done, and kills the child at its deadline. An error arrives as one message with the exit
    /// code of the original.
    ///
    /// # Errors
    /// Those of the work; the child was killed, or the deadline has passed.
    pub fn finish(self) -> Result<()> {
        outcome(self.report, wait_until(self.child, self.deadline)?)
    }
}

/// [`begin_in_child`] without type parameters, so that each program has this code once.
fn fork_for(deadline: Instant, work: &mut dyn FnMut() -> Result<()>) -> Result<Begun> {
    let (read, write) = report_pipe()?;
    let parent = process::pidfd_open(std::process::id().cast_signed())?;
    match process::fork()? {
        Fork::Child => {
            drop(read);
            let done = prepare_child().and_then(|()| must_go_on(&parent)).and_then(|()| work());
            process::exit_now(i32::from(!report(write, done)))
        }
        Fork::Parent(child) => {
            drop(write);
            Ok(Begun { child, report: read, deadline })
        }
    }
}

/// Waits until a child has ended, and reaps it.
///
/// # Errors
/// It was killed at `deadline`.
fn wait_until(child: Pid, deadline: Instant) -> Result<WaitStatus> {
    let pidfd = process::pidfd_open(child.as_raw())?;
    let timeout = deadline.saturating_duration_since(Instant::now());
    let ended = process::pidfd_wait_end(&pidfd, timeout)?;
    if !ended {
        process::pidfd_kill(&pidfd, Signal::KILL)?;
    }
    let reaped = reap_until(child, deadline.max(Instant::now() + REAP));
    if ended { reaped } else { Err(Error::new(format!("timed out after {} s", timeout.as_secs()))) }
}

/// How long a child that has ended may be held at least: one that a process of the pod traces can't be reaped.
const REAP: Duration = Duration::from_secs(1);

fn reap_until(child: Pid, deadline: Instant) -> Result<WaitStatus> {
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() >= deadline => {
                return Err(Error::new("a process of the pod holds the one that works in it: it traces it"));
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            Err(nix::errno::Errno::EINTR) => {}
            status => return status.context(|| format!("waitpid({child})")),
        }
    }
}

/// In a new child: it is not dumpable, and is killed when its parent ends.
pub(super) fn prepare_child() -> Result<()> {
    process::not_dumpable()?;
    process::die_with_parent()
}

/// In a new child, after [`prepare_child`]: the parent has not ended before.
fn must_go_on(parent: &OwnedFd) -> Result<()> {
    if process::pidfd_wait_end(parent, Duration::ZERO)? { Err(Error::new(PARENT_ENDED)) } else { Ok(()) }
}

/// [`must_go_on`] for a child that has only the writing end of a pipe from its parent. poll(2) reports such an end as
/// ready (POLLERR) once every reading end is closed, that is when the parent has ended.
pub(super) fn must_have_reader(pipe: &OwnedFd) -> Result<()> {
    if process::wait_readable(pipe, Duration::ZERO)? { Err(Error::new(PARENT_ENDED)) } else { Ok(()) }
}

const PARENT_ENDED: &str = "the parent process has ended";

/// Longest error text taken from a child, in bytes: less than a pipe holds, so that writing never blocks.
const MAX_REPORT: usize = 4096;

/// Writes an error of the work for the parent: a byte with the exit code, then the text. Returns whether the work
/// succeeded.
pub(super) fn report(pipe: OwnedFd, done: Result<()>) -> bool {
    let Err(error) = done else { return true };
    let mut text = vec![error.exit_code().unwrap_or(0)];
    text.extend(error.one_line().bytes().take(MAX_REPORT));
    if let Err(io) = fs::File::from(pipe).write_all(&text) {
        log::error!("{} (and reporting it to the parent process failed: {io})", error.one_line());
    }
    false
}

/// A pipe for the report of a child. Both ends are nonblocking: a process of the pod that traces the child can fill the
/// pipe, or keep its writing end open.
pub(super) fn report_pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context(|| "pipe")
}

/// The result of a child that has ended.
pub(super) fn outcome(pipe: OwnedFd, status: WaitStatus) -> Result<()> {
    let mut text = [0; MAX_REPORT + 1];
    let length = match rustix::io::read(&pipe, &mut text) {
        Err(rustix::io::Errno::AGAIN) => 0,
        length => length.context(|| "read the child's report")?,
    };
    let text = &text[..length];
    match (status, text.split_first()) {
        (WaitStatus::Exited(_, 0), None) => Ok(()),
        (_, Some((code, text))) => {
            let error = Error::new(String::from_utf8_lossy(text));
            Err(if *code == 0 { error } else { error.with_exit_code(*code) })
        }
        (status, None) => Err(Error::new(format!("the child process ended without reporting a result: {status:?}"))),
    }
}
