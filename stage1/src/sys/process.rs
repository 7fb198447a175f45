//! Processes and namespaces: fork, pidfds, setns(2), unshare(2), waiting.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid};
use rustix::process::{PidfdFlags, Signal};

use super::mount::{Attributes, DetachedMount, Scope};
use crate::error::{Context, Error, Result};

/// The two returns of a fork.
pub enum Fork {
    /// In the new process.
    Child,
    /// In the caller, with the child's PID in the caller's PID namespace.
    Parent(Pid),
}

/// How long [`fork`] waits for threads to end.
const ENDING: Duration = Duration::from_secs(2);

/// fork(2), in a process with one thread only: there the child may call whatever its parent may. A process with several
/// threads starts programs by [`super::spawn::spawn`].
///
/// Threads that are ending are waited for: the kernel counts a thread for a moment longer than pthread_join(3).
///
/// ```standalone_crate
/// use stage1::sys::process::{Fork, exit_now, fork, wait_child};
///
/// std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_millis(50)));
/// match fork().expect("the thread has ended") {
///     Fork::Child => exit_now(0),
///     Fork::Parent(child) => assert!(wait_child(child).is_ok()),
/// }
/// ```
///
/// # Errors
/// This process has more than one thread, or fork(2) fails.
pub fn fork() -> Result<Fork> {
    check_single_threaded()?;
    // SAFETY: this process has one thread (checked above), so no lock or allocator state can be
    // held by a thread that does not exist in the child.
    match unsafe { nix::unistd::fork() }.context(|| "fork")? {
        ForkResult::Child => Ok(Fork::Child),
        ForkResult::Parent { child } => Ok(Fork::Parent(child)),
    }
}

/// Forks into new namespaces: clone(2) with `namespaces` and SIGCHLD. With a new PID namespace the child is PID 1.
///
/// # Errors
/// This process has more than one thread, or may not make such a namespace.
pub fn fork_into(namespaces: CloneFlags) -> Result<Fork> {
    check_single_threaded()?;
    // SAFETY: this process has one thread (checked above), as in `fork`.
    unsafe { clone_into(namespaces) }
}

/// [`fork_into`] whatever threads this process has.
///
/// # Errors
/// This process may not make such a namespace.
///
/// # Safety
/// If there are other threads, the child may do only what is async-signal-safe until it ends: signal-safety(7).
pub(super) unsafe fn clone_into(namespaces: CloneFlags) -> Result<Fork> {
    let flags = libc::c_ulong::from(namespaces.bits().cast_unsigned()) | libc::SIGCHLD as libc::c_ulong;
    // SAFETY: without CLONE_VM and with a null stack this is a fork: the child runs on a copy of
    // this stack. What it may do is for the caller to observe.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match nix::errno::Errno::result(pid).context(|| format!("clone({namespaces:?})"))? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Pid::from_raw(i32::try_from(pid).context(|| "clone returned no PID")?))),
    }
}

/// unshare(2) with CLONE_THREAD does nothing in a process with one thread and fails with EINVAL in any other.
fn check_single_threaded() -> Result<()> {
    let deadline = Instant::now() + ENDING;
    loop {
        match nix::sched::unshare(CloneFlags::CLONE_THREAD) {
            Err(nix::errno::Errno::EINVAL) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            checked => return checked.context(|| "fork: this process has several threads, so its child could hang"),
        }
    }
}

/// Opens a pidfd, which the kernel makes close-on-exec: pidfd_open(2).
///
/// # Errors
/// The process does not exist.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    let target = rustix::process::Pid::from_raw(pid).context(|| format!("pidfd_open({pid}): not a PID"))?;
    rustix::process::pidfd_open(target, PidfdFlags::empty()).context(|| format!("pidfd_open({pid})"))
}

/// Sends `signal` to the process of a pidfd: pidfd_send_signal(2). A process that has ended is not an error.
///
/// # Errors
/// This process may not send it signals.
pub fn pidfd_kill(pidfd: impl AsFd, signal: Signal) -> Result<()> {
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("pidfd_send_signal({signal:?})")),
    }
}

/// Waits until the process of `pidfd` has ended; `Ok(false)` if `timeout` passed first.
///
/// # Errors
/// poll(2) fails.
pub fn pidfd_wait_end(pidfd: impl AsFd, timeout: Duration) -> Result<bool> {
    wait_readable(pidfd, timeout)
}

/// Waits until `fd` can be read without blocking, also because it is at its end; `Ok(false)` if `timeout` passed first.
///
/// # Errors
/// poll(2) fails.
pub fn wait_readable(fd: impl AsFd, timeout: Duration) -> Result<bool> {
    wait_one_readable(&[fd.as_fd()], Instant::now() + timeout)
}

/// [`wait_readable`] for any of several descriptors, until `end`.
///
/// # Errors
/// poll(2) fails.
pub fn wait_one_readable(fds: &[std::os::fd::BorrowedFd<'_>], end: Instant) -> Result<bool> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut fds: Vec<_> = fds.iter().map(|fd| nix::poll::PollFd::new(*fd, nix::poll::PollFlags::POLLIN)).collect();
        let wait =
            nix::poll::PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(nix::poll::PollTimeout::MAX);
        match nix::poll::poll(&mut fds, wait) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno).context(|| "poll"),
        }
    }
}

/// Joins the namespaces `kinds` of the process of a pidfd (Linux 5.8), or the namespace of a namespace file: setns(2).
///
/// # Errors
/// The process has ended, or this process may not join.
pub fn setns(target: impl AsFd, kinds: CloneFlags) -> Result<()> {
    nix::sched::setns(target, kinds).context(|| format!("setns({kinds:?})"))
}

/// Moves this process into new namespaces: unshare(2).
///
/// # Errors
/// This process may not make such a namespace, or a limit of their number is reached.
pub fn unshare(kinds: CloneFlags) -> Result<()> {
    nix::sched::unshare(kinds).context(|| format!("unshare({kinds:?})"))
}

/// The number of a mount namespace, by which the kernel orders them: ioctl_nsfs(2), NS_GET_MNTNS_ID. `None` before
/// Linux 6.11, which has no such call.
///
/// # Errors
/// The call fails for another reason than that the kernel does not know it.
pub fn mount_namespace_id(namespace: impl AsFd) -> Result<Option<u64>> {
    const NS_GET_MNTNS_ID: libc::c_ulong = 0x8008_b705;
    let mut id: u64 = 0;
    // SAFETY: the call writes one u64, which `id` is.
    let done = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_MNTNS_ID as _, &raw mut id) };
    match nix::errno::Errno::result(done) {
        Ok(_) => Ok(Some(id)),
        Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::EINVAL) => Ok(None),
        Err(errno) => Err(errno).context(|| "ioctl(NS_GET_MNTNS_ID)"),
    }
}

/// Lets this process run on every processor that its cgroup allows, whatever affinity it inherited:
/// sched_setaffinity(2).
///
/// # Errors
/// The kernel refuses it.
pub fn run_on_any_cpu() -> Result<()> {
    let mut all = rustix::thread::CpuSet::new();
    (0..rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    rustix::thread::sched_setaffinity(None, &all).context(|| "sched_setaffinity(all)")
}

/// The processors that this process may run on: sched_getaffinity(2).
///
/// # Errors
/// The kernel refuses it.
pub fn allowed_cpus() -> Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(None).context(|| "sched_getaffinity")?;
    Ok((0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// Moves this process to one processor: sched_setaffinity(2).
///
/// # Errors
/// This process may not run on it.
pub fn run_on_cpu(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).context(|| format!("sched_setaffinity({cpu})"))
}

/// Waits until a child has ended, and reaps it: waitpid(2).
///
/// # Errors
/// It is not a child, or was reaped before.
pub fn wait_child(pid: Pid) -> Result<WaitStatus> {
    loop {
        match waitpid(pid, None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.context(|| format!("waitpid({pid})")),
        }
    }
}

/// How a child has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEnd {
    /// It exited with this status.
    Exited(i32),
    /// The signal with this number killed it; it may be a real-time signal.
    Killed(i32),
}

/// Reaps all children that have ended, without blocking. How the child `wanted` ended, if it is one of them.
///
/// # Errors
/// waitpid(2) fails.
pub fn reap_all(wanted: Pid) -> Result<Option<ChildEnd>> {
    let mut found = None;
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == wanted.as_raw() => {
                found = status.exit_status().map(ChildEnd::Exited);
                found = found.or_else(|| status.terminating_signal().map(ChildEnd::Killed));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(found),
            Err(errno) => return Err(errno).context(|| "waitpid(-1)"),
        }
    }
}

/// Makes this process the parent of all its descendants whose parents have ended: prctl(2), PR_SET_CHILD_SUBREAPER.
///
/// # Errors
/// prctl(2) fails.
pub fn adopt_orphans() -> Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context(|| "prctl(PR_SET_CHILD_SUBREAPER, 1)")
}

/// Reaps a child that has ended, without blocking: waitid(2). `None` if no child has ended.
///
/// # Errors
/// waitid(2) fails.
pub fn reap_any() -> Result<Option<WaitStatus>> {
    match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => Ok(None),
        other => other.map(Some).context(|| "waitid(P_ALL)"),
    }
}

/// Has the kernel kill this process when its parent ends: prctl(2), PR_SET_PDEATHSIG. A change of credentials clears
/// that.
///
/// # Errors
/// prctl(2) fails.
pub fn die_with_parent() -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context(|| "prctl(PR_SET_PDEATHSIG)")
}

/// Makes this process not dumpable, so that processes without CAP_SYS_PTRACE can neither trace it nor open its files in
/// /proc: prctl(2), PR_SET_DUMPABLE. An exec of a readable file resets that.
///
/// # Errors
/// prctl(2) fails.
pub fn not_dumpable() -> Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .context(|| "prctl(PR_SET_DUMPABLE, 0)")
}

/// Marks every descriptor from 3 on close-on-exec.
///
/// # Errors
/// close_range(2) fails.
pub fn close_on_exec_from_3() -> Result<()> {
    close_on_exec_from(3)
}

/// Marks every descriptor from `first` on close-on-exec: close_range(2) (Linux 5.11).
///
/// # Errors
/// close_range(2) fails.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC closes nothing, so no owned descriptor becomes invalid.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    nix::errno::Errno::result(done).map(drop).context(|| format!("close_range({first}, max, CLOEXEC)"))
}

/// Closes every descriptor from 3 on but those in `keep`: close_range(2). For a forked child that ends by [`exit_now`]
/// and uses no other descriptor that it inherited.
///
/// # Errors
/// close_range(2) fails.
pub fn close_all_but(keep: &[std::os::fd::BorrowedFd<'_>]) -> Result<()> {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for end in numbers.into_iter().filter(|n| *n >= 3).chain([u32::MAX]) {
        if first < end {
            // SAFETY: no owner in this process uses or closes a descriptor again that is closed here: the caller is a
            // forked child that ends by `exit_now` and uses none but those in `keep`.
            let done = unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) };
            nix::errno::Errno::result(done).map(drop).context(|| format!("close_range({first}, {})", end - 1))?;
        }
        first = end.saturating_add(1);
    }
    Ok(())
}

/// Makes this process the leader of a new session and process group, without a controlling terminal: setsid(2).
///
/// # Errors
/// This process leads a process group already.
pub fn new_session() -> Result<()> {
    nix::unistd::setsid().map(drop).context(|| "setsid")
}

/// Makes sure that no process of a pod can open this program's file for writing through `/proc/PID/exe`
/// (CVE-2019-5736).
///
/// A file that was executed from a read-only mount can't be. If this program was executed from a writable mount, this
/// executes it again, with the same arguments and environment, from a read-only clone of that mount, which is attached
/// to no mount namespace. Called first in a program.
///
/// # Errors
/// The program can't be opened, mounted read-only, or executed again.
pub fn hold_program_read_only() -> Result<()> {
    const PROGRAM: &str = "/proc/self/exe";
    use std::os::unix::ffi::OsStringExt;
    let read_only = |file: std::os::fd::BorrowedFd<'_>| {
        rustix::fs::fstatvfs(file)
            .map(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
            .context(|| format!("fstatvfs({PROGRAM:?})"))
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let program =
        rustix::fs::open(PROGRAM, flags, rustix::fs::Mode::empty()).context(|| format!("open({PROGRAM:?})"))?;
    if read_only(program.as_fd())? {
        return Ok(());
    }
    let clone = DetachedMount::clone_path(PROGRAM, Scope::One)?;
    clone.set(Attributes { read_only: true, ..Attributes::default() }, Scope::One)?;
    if !read_only(clone.as_fd())? {
        return Err(Error::new(format!("{PROGRAM:?} can't be made read-only")));
    }
    let argv = std::env::args_os().map(|word| super::dir::c_string(&word.into_vec())).collect::<Result<Vec<_>>>()?;
    let variable = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let mut text = name.into_vec();
        text.push(b'=');
        text.extend(value.into_vec());
        super::dir::c_string(&text)
    };
    let environment = std::env::vars_os().map(variable).collect::<Result<Vec<_>>>()?;
    match nix::unistd::execveat(&clone, c"", &argv, &environment, nix::fcntl::AtFlags::AT_EMPTY_PATH) {
        Err(errno) => Err(errno).context(|| format!("execveat({PROGRAM:?}, read-only)")),
    }
}

/// Takes ownership of a descriptor that was inherited under a known number.
///
/// # Errors
/// The descriptor is not open, or is one of the standard three.
pub fn adopt_fd(number: i32) -> Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    if number < 3 {
        return Err(Error::new(format!("descriptor {number} can't be adopted")));
    }
    // SAFETY: only borrowed for this one call, which fails with EBADF when it is not open.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(borrowed).context(|| format!("descriptor {number} is not open"))?;
    // SAFETY: it is open (checked above) and was inherited, so nothing in this program owns it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Kills a child, and the process group that it leads if it has already called [`new_session`]. The caller still has to
/// reap it.
///
/// # Errors
/// This process may not send the child signals.
pub fn kill_session(child: Pid) -> Result<()> {
    for done in [nix::sys::signal::killpg(child, KILL), nix::sys::signal::kill(child, KILL)] {
        match done {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context(|| format!("kill({child})")),
        }
    }
    Ok(())
}

const KILL: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGKILL;

/// Replaces standard descriptor `number` (0, 1 or 2) by a duplicate of `fd`.
///
/// # Errors
/// dup2(2) fails.
///
/// # Panics
/// `number` is not 0, 1 or 2.
pub fn set_standard_fd(fd: impl AsFd, number: i32) -> Result<()> {
    assert!((0..=2).contains(&number), "a standard descriptor");
    // SAFETY: dup2 onto 0-2 replaces the standard streams, which no OwnedFd of ours owns.
    let done = unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) };
    nix::errno::Errno::result(done).map(drop).context(|| format!("dup2(fd, {number})"))
}

/// execve(2); returns only on failure.
///
/// # Errors
/// Always: the reason why the kernel did not execute `path`.
pub fn exec(path: &CString, argv: &[CString], env: &[CString]) -> Result<Infallible> {
    nix::unistd::execve(path, argv, env).context(|| format!("execve({path:?})"))
}

/// Ends this process at once without running exit handlers: _exit(2). A forked child must not run its parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threaded_process_does_not_fork() {
        // The test harness itself has several threads.
        let (tx, rx) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || rx.recv());
        assert!(fork().is_err());
        drop(tx);
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn pidfd_waits_for_the_end() {
        let mut child = std::process::Command::new("sleep").arg("0.05").spawn().unwrap();
        let fd = pidfd_open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!pidfd_wait_end(&fd, Duration::from_millis(1)).unwrap());
        assert!(pidfd_wait_end(&fd, Duration::from_secs(10)).unwrap());
        child.wait().unwrap();
        pidfd_kill(&fd, Signal::TERM).unwrap();
    }

    #[test]
    fn adopting_what_is_not_open_fails() {
        assert!(adopt_fd(1).is_err());
        assert!(adopt_fd(9_999_999).is_err());
    }
}
