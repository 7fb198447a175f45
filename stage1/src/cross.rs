//! Crossing into a pod: finding and verifying its PID 1, and doing work in the pod's namespaces.
//!
//! Everything here starts on the host side. Namespaces are joined by a pidfd of the pod's PID 1, after its root was
//! compared with the pod directory's: a recycled PID is refused.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use crate::error::{Context, Error, Result};
use crate::sys::{dir, process, process_attributes, seccomp};

mod child;

pub(crate) use child::{Across, Sibling, fork_across};
pub use child::{Begun, begin_in_child};
use child::{leave_standard_fds, must_have_reader, outcome, prepare_child, report, report_pipe};

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
            process_attributes::drop_capabilities()
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
