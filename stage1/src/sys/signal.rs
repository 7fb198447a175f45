//! Signals as things to poll.

use std::convert::Infallible;
use std::ffi::CString;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Context, Result};

/// Blocks `signals` and returns a descriptor that reports them: signalfd(2).
///
/// # Errors
/// A descriptor or the mask is refused.
pub fn block(signals: &[Signal]) -> Result<SignalFd> {
    let set: SigSet = signals.iter().copied().collect();
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).context(|| "sigprocmask")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context(|| "signalfd")
}

/// Takes the signals that are there, and tells whether one of them asks this process to end.
///
/// # Errors
/// The descriptor can't be read.
pub fn is_asked_to_end(signals: &SignalFd) -> Result<bool> {
    let mut asked = false;
    while let Some(info) = signals.read_signal().context(|| "read(signalfd)")? {
        let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];
        asked |= ends.iter().any(|signal| *signal as u32 == info.ssi_signo);
    }
    Ok(asked)
}

/// SIGRTMIN+3, which orders systemd to halt: systemd(1). Counted from glibc's SIGRTMIN, which is
/// systemd's; musl's, that of our binaries, is one more.
pub fn systemd_halt() -> rustix::process::Signal {
    const GLIBC_SIGRTMIN: i32 = 34;
    // SAFETY: only requires that no signal used by the C library's threads is raised in this
    // process: this one is sent to another.
    unsafe { rustix::process::Signal::from_raw_unchecked(GLIBC_SIGRTMIN + 3) }
}

/// Unblocks every signal and gives each its default disposition, as a program expects to find them at its start.
///
/// By the system call itself: the C library refuses the numbers that it keeps for its own use, and a
/// caller may have left one of those ignored, which an exec hands on.
///
/// # Errors
/// The kernel refuses it.
pub fn reset() -> Result<()> {
    (1..=64).filter(|&n| n != libc::SIGKILL && n != libc::SIGSTOP).try_for_each(set_default)?;
    unblock_all()
}

/// execve(2) with no signal blocked or ignored, as a program expects to be started; returns only on failure.
///
/// # Errors
/// Always: why the kernel did not execute it, or did not change the signals.
pub fn exec_with_defaults(path: &CString, argv: &[CString], env: &[CString]) -> Result<Infallible> {
    reset()?;
    super::process::exec(path, argv, env)
}

/// Size of the kernel's signal set.
const MASK_BYTES: usize = 8;

/// Gives each signal its default disposition. Makes system calls alone: for a child between fork and exec.
pub(super) fn all_default() -> std::io::Result<()> {
    let resettable = (1..=64).filter(|&n| n != libc::SIGKILL && n != libc::SIGSTOP);
    resettable.map(default_action).try_for_each(|done| done.map_err(std::io::Error::from))
}

fn set_default(number: i32) -> Result<()> {
    default_action(number).context(|| format!("rt_sigaction({number}, SIG_DFL)"))
}

fn default_action(number: i32) -> nix::Result<()> {
    /// The kernel's `struct sigaction` of all zeroes: SIG_DFL, no flags, empty mask. Larger than any
    /// architecture's.
    const DEFAULT: [u64; 8] = [0; 8];
    // SAFETY: the kernel reads `DEFAULT` and is given no place to write the old action to;
    // SIG_DFL runs no code of ours.
    let done = unsafe {
        let none = std::ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), none, MASK_BYTES)
    };
    nix::errno::Errno::result(done).map(drop)
}

fn unblock_all() -> Result<()> {
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).context(|| "sigprocmask")
}

/// Unblocks every signal and heeds those that the caller had this process ignore, but for what a caller means by it:
/// that the program is to outlive a terminal (nohup(1), a job in the background) or leave it alone. An ignored SIGCHLD
/// would take every child's status away. SIGPIPE stays ignored, as the language's runtime has it: to find no reader is
/// an error like others.
///
/// # Errors
/// The kernel refuses it.
pub fn heed() -> Result<()> {
    const MEANT: [i32; 7] =
        [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    for number in (1..=64).filter(|n| !MEANT.contains(n) && ![libc::SIGKILL, libc::SIGSTOP].contains(n)) {
        let mut action = [0_u64; 8];
        // SAFETY: the kernel is given no new action, and writes the old one, which is smaller, to `action`.
        let done = unsafe {
            let none = std::ptr::null::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, number, none, action.as_mut_ptr(), MASK_BYTES)
        };
        nix::errno::Errno::result(done).context(|| format!("rt_sigaction({number})"))?;
        if action[0] == libc::SIG_IGN as u64 {
            set_default(number)?;
        }
    }
    unblock_all()
}

/// Ends this process by `signal` with its default action, so that a parent sees the same end as ours.
pub fn die_by(signal: Signal) -> ! {
    let die = || -> Result<()> {
        reset()?;
        // No core dump of ours for a signal that another process died of.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .context(|| "prctl(PR_SET_DUMPABLE, 0)")?;
        nix::sys::signal::raise(signal).context(|| format!("raise({signal})"))
    };
    // A signal whose default is to be ignored, or a failure above, falls through to the shell's convention.
    if let Err(error) = die() {
        log::debug!("{}", error.one_line());
    }
    super::process::exit_now(128 + signal as i32)
}
