//! Crossing into a pod: the target, verified, and doing work on its side of the border.
//!
//! Everything here starts on the host side. A pod is entered by a pidfd of its PID 1, whose root
//! was compared with the pod directory's: a recycled PID is refused, not entered.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::wait::WaitStatus;
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use crate::error::{Context, Error, Result};
use crate::sys::process::{self, Fork};
use crate::sys::{dir, inherited};

/// Environment variable with the PID of the pod's PID 1 (host view), set by host managers.
pub const ENTER_PID: &str = "RKT_STAGE1_ENTERPID";

/// The namespaces of a pod, in the order of the table below, joined by one call: setns(2).
///
/// | namespace | why |
/// |---|---|
/// | user | first, if it is not ours: it gives the capabilities over the others |
/// | mount | the pod's files |
/// | pid | takes effect for children only: fork after it |
/// | ipc, uts, net | what the pod's apps see |
/// | cgroup | last seen path is relative to it; the cgroup itself was joined before |
const POD: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWNET)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// How long the end of a PID 1 that is ending may take: the kernel ends all others of the pod first.
const ENDING: Duration = Duration::from_secs(20);

/// Whether a process has let go of its root: it is ending, though it can still be waited for. Also when it has ended.
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
    /// The pod in the current directory: its PID 1 is named by the environment of a crossing
    /// entrypoint or, by hand, by the pod directory itself.
    ///
    /// # Errors
    /// The process does not exist, or its root is not this pod's: the PID was recycled.
    pub fn of_current_dir() -> Result<Self> {
        match std::env::var(ENTER_PID) {
            Ok(text) => {
                let pid = text.parse().ok().filter(|pid| *pid > 0);
                Self::open(pid.context(|| format!("{ENTER_PID}={text:?} is not a PID"))?)
            }
            Err(_) => Self::recorded(),
        }
    }

    /// The pod in the current directory, by what the directory itself says: for entrypoints that
    /// don't cross, whose environment is anybody's.
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
            // The recorded parent has no child now.
            None if here.join(crate::layout::PPID).exists() => Ok(None),
            None => Self::recorded().map(Some),
        }
    }

    /// The pod in the current directory with PID 1 `pid` (host view).
    ///
    /// # Errors
    /// The process does not exist, or its root is not this pod's: the PID was recycled.
    pub fn open(pid: i32) -> Result<Self> {
        Self::open_if_running(pid)?.ok_or_else(|| Error::new(format!("the pod's PID 1 ({pid}) has ended")))
    }

    /// The same; `None` if the process has ended.
    fn open_if_running(pid: i32) -> Result<Option<Self>> {
        let pidfd = match process::pidfd_open(pid) {
            Err(error) if error.errno() == Some(libc::ESRCH) => return Ok(None),
            pidfd => pidfd?,
        };
        match Self::verify(pid, &pidfd) {
            Ok(foreign_user_namespace) => {
                let target = Self { pid, pidfd, foreign_user_namespace };
                // It was looked at by number: that counts only if the process still holds that number.
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

    /// Whether the process is this pod's PID 1; if so, whether its user namespace is another one than ours.
    fn verify(pid: i32, pidfd: &OwnedFd) -> Result<bool> {
        if process::pidfd_wait_end(pidfd, Duration::ZERO)? {
            return Err(Error::new("it has ended"));
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

    /// The pod's user namespace, if it has one of its own.
    ///
    /// # Errors
    /// Also when the pod's PID 1 has ended.
    pub fn user_namespace(&self) -> Result<Option<OwnedFd>> {
        if !self.foreign_user_namespace {
            return Ok(None);
        }
        let path = format!("/proc/{}/ns/user", self.pid);
        let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let namespace = namespace.context(|| format!("open {path}"))?;
        // Opened by number: it counts only if the process still holds that number.
        if process::pidfd_wait_end(&self.pidfd, Duration::ZERO)? {
            return Err(Error::new(format!("the pod's PID 1 ({}) has ended", self.pid)));
        }
        Ok(Some(namespace))
    }

    /// A descriptor that becomes readable when the pod's PID 1 ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Another such descriptor.
    ///
    /// # Errors
    /// No descriptor is left.
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

    /// Joins all the pod's namespaces, with the pod's root as root and working directory. The PID
    /// namespace takes effect for children forked afterwards.
    ///
    /// In a user namespace of its own the process becomes that namespace's root.
    ///
    /// # Errors
    /// The pod has ended, or this process may not join.
    pub fn join(&self) -> Result<()> {
        let user = if self.foreign_user_namespace { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
        process::setns(&self.pidfd, POD | user)?;
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
        }
        Ok(())
    }

    /// Does `work` in a child that has joined the pod's namespaces except that of PIDs, which is
    /// enough for mounts. See [`in_child`].
    ///
    /// # Errors
    /// As [`in_child`], and those of joining.
    pub fn inside(&self, deadline: Instant, work: impl FnOnce() -> Result<()>) -> Result<()> {
        in_child(deadline, || {
            self.join()?;
            work()
        })
    }

    /// Does `work` in a child that is a process of the pod in every respect, its PID namespace too,
    /// so that the pod's systemd knows who is talking to it. See [`in_child`].
    ///
    /// The pod's processes can see that child, and one with CAP_SYS_PTRACE in the host's user namespace can do with it
    /// as it likes. So it is uid 0 without a capability, and of the host it has nothing, no descriptor either: `work`
    /// can use none that this process has.
    ///
    /// # Errors
    /// As [`in_child`], and those of joining.
    pub fn as_member(&self, deadline: Instant, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut work = Some(work);
        fork_for(deadline, Some(self.pidfd()), &mut || {
            leave_standard_fds()?;
            self.join()?;
            inherited::drop_capabilities()?;
            work.take().map_or(Ok(()), |work| in_child(deadline, work))
        })
    }
}

/// Puts nothing in the place of the caller's standard descriptors, host side.
fn leave_standard_fds() -> Result<()> {
    const NOTHING: &str = "/dev/null";
    let nothing = rustix::fs::open(NOTHING, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let nothing = nothing.context(|| format!("open {NOTHING}"))?;
    (0..3).try_for_each(|number| process::set_standard_fd(&nothing, number))
}

/// Does `work` in a forked child and returns its result, the whole error chain as one message.
/// The child is not dumpable, dies with its parent, and is killed at `deadline`.
///
/// # Errors
/// Those of `work`; the child was killed, or the deadline has passed.
pub fn in_child(deadline: Instant, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut work = Some(work);
    fork_for(deadline, None, &mut || work.take().map_or(Ok(()), |work| work()))
}

/// The same for any work: this code is in every program that crosses, once. With `keep` the child has of this
/// process's descriptors that one and the standard three.
fn fork_for(deadline: Instant, keep: Option<BorrowedFd<'_>>, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(|| "pipe")?;
    let parent = process::pidfd_open(std::process::id().cast_signed())?;
    match process::fork()? {
        Fork::Child => {
            drop(read);
            let alone = |fd| process::close_all_but(&[fd, write.as_fd()]);
            let done = prepare_child(&parent).and_then(|()| keep.map_or(Ok(()), alone)).and_then(|()| work());
            process::exit_now(i32::from(!report(write, done)))
        }
        Fork::Parent(child) => {
            drop(write);
            let pidfd = process::pidfd_open(child.as_raw())?;
            let ended = process::pidfd_wait_end(&pidfd, deadline.saturating_duration_since(Instant::now()))?;
            if !ended {
                process::pidfd_kill(&pidfd, Signal::KILL)?;
            }
            let status = process::wait_child(child)?;
            if !ended {
                return Err(Error::new("it took too long and was given up"));
            }
            outcome(read, status)
        }
    }
}

fn prepare_child(parent: &OwnedFd) -> Result<()> {
    process::not_dumpable()?;
    process::die_with_parent()?;
    if process::pidfd_wait_end(parent, Duration::ZERO)? {
        return Err(Error::new("the parent process has ended"));
    }
    Ok(())
}

/// Longest error text taken from a child: well below what a pipe holds, so that writing never waits.
const MAX_REPORT: usize = 4096;

/// Writes a failure for the parent: its exit code, then its text. Returns whether all went well.
fn report(pipe: OwnedFd, done: Result<()>) -> bool {
    let Err(error) = done else { return true };
    let mut text = vec![error.exit_code().unwrap_or(0)];
    text.extend(error.one_line().bytes().take(MAX_REPORT));
    if let Err(io) = fs::File::from(pipe).write_all(&text) {
        log::error!("{} (and telling so failed: {io})", error.one_line());
    }
    false
}

fn outcome(pipe: OwnedFd, status: WaitStatus) -> Result<()> {
    let mut text = Vec::new();
    fs::File::from(pipe).take(MAX_REPORT as u64 + 1).read_to_end(&mut text).context(|| "read the child's report")?;
    match (status, text.split_first()) {
        (WaitStatus::Exited(_, 0), None) => Ok(()),
        (_, Some((code, text))) => {
            let error = Error::new(String::from_utf8_lossy(text));
            Err(if *code == 0 { error } else { error.with_exit_code(*code) })
        }
        (status, None) => Err(Error::new(format!("the process doing this ended without a word: {status:?}"))),
    }
}
