//! Crossing into a pod: finding and verifying its PID 1, and doing work in the pod's namespaces.
//!
//! Everything here starts on the host side. Namespaces are joined by a pidfd of the pod's PID 1, after its root was
//! compared with the pod directory's: a recycled PID is refused.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
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
use crate::sys::{dir, inherited, seccomp};

/// Environment variable with the PID of the pod's PID 1 as the host counts, set by host managers.
pub const ENTER_PID: &str = "RKT_STAGE1_ENTERPID";

/// The namespaces of a pod that are joined by one setns(2), without the user namespace.
///
/// | namespace | why |
/// |---|---|
/// | user | added if it is not the caller's; the kernel joins it first: it gives the capabilities over the others |
/// | mount | the pod's files |
/// | pid | takes effect for children only: fork after it |
/// | ipc, uts, net | what the pod's apps see |
/// | cgroup | paths in /proc/PID/cgroup are relative to the pod's cgroup; the process stays in its own cgroup |
const POD: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// Timeout for a PID 1 that is ending: the kernel first ends all other processes of its PID namespace.
const ENDING: Duration = Duration::from_secs(20);

/// Whether a process has ended or is ending: such a process has no root any more, but its pidfd is not readable yet.
fn is_ending(pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/root")).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// A running pod, held by a descriptor of its PID 1.
#[derive(Debug)]
pub struct Target {
    pid: i32,
    pidfd: OwnedFd,
    foreign_user_namespace: bool,
}

impl Target {
    /// The pod in the current directory. Its PID 1 is the one in [`ENTER_PID`] or, without that variable, the one that
    /// the pod directory records.
    ///
    /// # Errors
    /// The variable is not a PID; or as [`Self::recorded`] and [`Self::open`].
    pub fn of_current_dir() -> Result<Self> {
        match std::env::var(ENTER_PID) {
            Ok(text) => {
                let pid = text.parse().ok().filter(|pid| *pid > 0);
                Self::open(pid.context(|| format!("{ENTER_PID}={text:?} is not a PID"))?)
            }
            Err(_) => Self::recorded(),
        }
    }

    /// The pod in the current directory, by the PID that the directory records: for entrypoints that don't cross, whose
    /// environment host managers do not set.
    ///
    /// # Errors
    /// No PID is recorded, or as [`Self::open`].
    pub fn recorded() -> Result<Self> {
        let pid = crate::pod::read_pid(Path::new("."))?;
        Self::open(pid.context(|| "this pod is not running: its directory names no PID (run this in a pod directory)")?)
    }

    /// As [`Self::recorded`]; `None` if the recorded PID 1 has ended.
    ///
    /// # Errors
    /// No PID is recorded, or as [`Self::open`] for a process that runs.
    pub fn recorded_if_running() -> Result<Option<Self>> {
        let here = Path::new(".");
        match crate::pod::read_pid(here)? {
            Some(pid) => Self::open_if_running(pid),
            // The recorded process has no child any more: PID 1 has ended.
            None if here.join(crate::layout::PPID).exists() => Ok(None),
            None => Self::recorded().map(Some),
        }
    }

    /// The pod in the current directory with PID 1 `pid`, as the host counts.
    ///
    /// # Errors
    /// The process has ended, its root is not this pod's (the PID was recycled), or the current directory is not the
    /// directory of a running pod.
    pub fn open(pid: i32) -> Result<Self> {
        Self::open_if_running(pid)?.ok_or_else(|| Error::new(format!("the pod's PID 1 ({pid}) has ended")))
    }

    /// As [`Self::open`]; `None` if the process has ended.
    fn open_if_running(pid: i32) -> Result<Option<Self>> {
        let pidfd = match process::pidfd_open(pid) {
            Err(error) if error.errno() == Some(libc::ESRCH) => return Ok(None),
            pidfd => pidfd?,
        };
        match Self::verify(pid, &pidfd) {
            Ok(foreign_user_namespace) => {
                let target = Self { pid, pidfd, foreign_user_namespace };
                // `verify` used the PID: its result holds only if the process of the pidfd still has that PID.
                Ok(if target.has_ended()? { None } else { Some(target) })
            }
            Err(_) if process::pidfd_wait_end(&pidfd, if is_ending(pid) { ENDING } else { Duration::ZERO })? => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn has_ended(&self) -> Result<bool> {
        process::pidfd_wait_end(&self.pidfd, Duration::ZERO)
    }

    /// Checks that the process is this pod's PID 1; the result is whether its user namespace differs from ours.
    fn verify(pid: i32, pidfd: &OwnedFd) -> Result<bool> {
        if process::pidfd_wait_end(pidfd, Duration::ZERO)? {
            return Err(Error::new("the process has ended"));
        }
        let root = dir::open_dir(format!("/proc/{pid}/root"))?;
        let expected = dir::open_dir(crate::layout::STAGE1_ROOTFS)
            .context(|| "the current directory is not the directory of a running pod")?;
        if !dir::same_file(&root, &expected)? {
            return Err(Error::new(format!("process {pid} is not this pod's PID 1: its root is another one")));
        }
        let user = |who: &str| {
            fs::read_link(format!("/proc/{who}/ns/user")).context(|| format!("readlink /proc/{who}/ns/user"))
        };
        Ok(user(&pid.to_string())? != user("self")?)
    }

    /// PID of the pod's PID 1 in the caller's PID namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A descriptor of the pod's user namespace; `None` if it is the caller's.
    ///
    /// # Errors
    /// The pod's PID 1 has ended, or its namespace file can't be opened.
    pub fn user_namespace(&self) -> Result<Option<OwnedFd>> {
        if !self.foreign_user_namespace {
            return Ok(None);
        }
        let path = format!("/proc/{}/ns/user", self.pid);
        let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let namespace = namespace.context(|| format!("open {path}"))?;
        // Opened by PID: it is the pod's only if the process of the pidfd still has that PID.
        if process::pidfd_wait_end(&self.pidfd, Duration::ZERO)? {
            return Err(Error::new(format!("the pod's PID 1 ({}) has ended", self.pid)));
        }
        Ok(Some(namespace))
    }

    /// The pidfd of the pod's PID 1, which becomes readable when that ends: pidfd_open(2).
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// A duplicate of [`Self::pidfd`].
    ///
    /// # Errors
    /// The process has no free descriptor.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        self.pidfd.try_clone().context(|| "dup(pidfd)")
    }

    /// Sends a signal to the pod's PID 1. One that has ended is not an error.
    ///
    /// # Errors
    /// This process may not send it signals.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        process::pidfd_kill(&self.pidfd, signal)
    }

    /// Joins all the pod's namespaces: setns(2). The pod's root becomes root and working directory. The PID namespace
    /// takes effect for children that are forked afterwards.
    ///
    /// If the pod has a user namespace of its own, the process becomes root of it.
    ///
    /// # Errors
    /// The pod has ended, or this process may not join.
    pub fn join(&self) -> Result<()> {
        self.join_some(POD)
    }

    /// [`Self::join`] without the PID namespace: children stay in that of this process.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub fn join_all_but_pid(&self) -> Result<()> {
        self.join_some(POD.difference(CloneFlags::CLONE_NEWPID))
    }

    fn join_some(&self, kinds: CloneFlags) -> Result<()> {
        let user = if self.foreign_user_namespace { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
        process::setns(&self.pidfd, kinds | user)?;
        if self.foreign_user_namespace {
            rustix::thread::set_thread_res_gid(rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT)
                .and_then(|()| {
                    rustix::thread::set_thread_res_uid(
                        rustix::fs::Uid::ROOT,
                        rustix::fs::Uid::ROOT,
                        rustix::fs::Uid::ROOT,
                    )
                })
                .context(|| "become root of the pod's user namespace")?;
            // The change of the user has undone it.
            prepare_child()?;
        }
        Ok(())
    }

    /// Begins to do `work` in a child that has joined the pod's namespaces except the PID namespace, which is enough for
    /// mounts. See [`begin_in_child`].
    ///
    /// # Errors
    /// The child can't be forked. At the end of its work, those of joining too.
    pub fn begin_inside(&self, deadline: Instant, work: impl FnOnce() -> Result<()>) -> Result<Begun> {
        begin_in_child(deadline, || {
            self.join()?;
            work()
        })
    }

    /// Does `work` in a child that has joined all the pod's namespaces, the PID namespace too: the pod's systemd
    /// accepts only peers whose PID it can see.
    ///
    /// The pod's processes can see that child, and a process of the pod with CAP_SYS_PTRACE in the host's user
    /// namespace can trace it. So the child has uid 0 without any capability, and no descriptor of the host: `work` can
    /// use none of this process's descriptors.
    ///
    /// # Errors
    /// Those of joining and of `work`; the child was killed, or `deadline` has passed.
    pub fn as_member(&self, deadline: Instant, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut work = Some(work);
        self.member(deadline, &mut || work.take().map_or(Ok(()), |work| work()))
    }

    /// [`Self::as_member`] without type parameters, so that each program has this code once.
    fn member(&self, deadline: Instant, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let (read, write) = report_pipe()?;
        let join = |rings: BorrowedFd<'_>| {
            prepare_child()?;
            process::close_all_but(&[self.pidfd(), write.as_fd(), rings])?;
            leave_standard_fds()?;
            seccomp::new_session_keyring()?;
            self.join()?;
            inherited::drop_capabilities()
        };
        match fork_across(deadline, join)? {
            Across::Failed(error) => process::exit_now(i32::from(!report(write, Err(error)))),
            Across::Inside => {
                let alone = prepare_child().and_then(|()| process::close_all_but(&[write.as_fd()]));
                let done = alone.and_then(|()| must_have_reader(&write)).and_then(|()| work());
                process::exit_now(i32::from(!report(write, done)))
            }
            Across::Outside(sibling) => {
                drop(write);
                outcome(read, sibling.wait(deadline)?)
            }
        }
    }
}

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
    fn wait(&self, deadline: Instant) -> Result<WaitStatus> {
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
fn leave_standard_fds() -> Result<()> {
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
fn prepare_child() -> Result<()> {
    process::not_dumpable()?;
    process::die_with_parent()
}

/// In a new child, after [`prepare_child`]: the parent has not ended before.
fn must_go_on(parent: &OwnedFd) -> Result<()> {
    if process::pidfd_wait_end(parent, Duration::ZERO)? { Err(Error::new(PARENT_ENDED)) } else { Ok(()) }
}

/// [`must_go_on`] for a child that has only the writing end of a pipe from its parent. poll(2) reports such an end as
/// ready (POLLERR) once every reading end is closed, that is when the parent has ended.
fn must_have_reader(pipe: &OwnedFd) -> Result<()> {
    if process::wait_readable(pipe, Duration::ZERO)? { Err(Error::new(PARENT_ENDED)) } else { Ok(()) }
}

const PARENT_ENDED: &str = "the parent process has ended";

/// Longest error text taken from a child, in bytes: less than a pipe holds, so that writing never blocks.
const MAX_REPORT: usize = 4096;

/// Writes an error of the work for the parent: a byte with the exit code, then the text. Returns whether the work
/// succeeded.
fn report(pipe: OwnedFd, done: Result<()>) -> bool {
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
fn report_pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context(|| "pipe")
}

/// The result of a child that has ended.
fn outcome(pipe: OwnedFd, status: WaitStatus) -> Result<()> {
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
