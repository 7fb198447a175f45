//! Signals: signalfd(2), dispositions and masks, ending by a signal.

use std::convert::Infallible;
use std::ffi::CString;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Context, Error, Result};

/// Blocks `signals` and returns a descriptor that reports them: signalfd(2).
///
/// # Errors
/// sigprocmask(2) or signalfd(2) fails.
pub fn block(signals: &[Signal]) -> Result<SignalFd> {
    block_set(&signals.iter().copied().collect())
}

/// The signals that this thread blocks: pthread_sigmask(3).
///
/// # Errors
/// sigprocmask(2) fails.
pub fn mask() -> Result<SigSet> {
    SigSet::thread_get_mask().context(|| "sigprocmask")
}

/// Blocks these signals and no others in this thread. What has come meanwhile of the others takes effect at once.
///
/// # Errors
/// sigprocmask(2) fails.
pub fn set_mask(mask: &SigSet) -> Result<()> {
    mask.thread_set_mask().context(|| "sigprocmask")
}

/// Blocks every signal that can be blocked but `others`, real-time signals too, and returns a descriptor that reports
/// them: signalfd(2).
///
/// # Errors
/// sigprocmask(2) or signalfd(2) fails.
pub fn block_all_but(others: &[Signal]) -> Result<SignalFd> {
    let mut set = SigSet::all();
    others.iter().for_each(|other| set.remove(*other));
    block_set(&set)
}

fn block_set(set: &SigSet) -> Result<SignalFd> {
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(set), None).context(|| "sigprocmask")?;
    SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context(|| "signalfd")
}

/// Reads all pending signals; whether one of them is SIGTERM, SIGINT, SIGQUIT or SIGHUP.
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

/// SIGRTMIN+3, by which systemd halts: systemd(1). Counted from glibc's SIGRTMIN, as systemd does; the SIGRTMIN of
/// musl, which our binaries use, is one higher.
pub fn systemd_halt() -> rustix::process::Signal {
    const GLIBC_SIGRTMIN: i32 = 34;
    // SAFETY: only requires that no signal used by the C library's threads is raised in this
    // process: this one is sent to another.
    unsafe { rustix::process::Signal::from_raw_unchecked(GLIBC_SIGRTMIN + 3) }
}

/// The signal with this number, for sending it to another process.
///
/// # Errors
/// The number is not in the range 1 to 64.
pub fn by_number(number: i32) -> Result<rustix::process::Signal> {
    if !(1..=64).contains(&number) {
        return Err(Error::new(format!("there is no signal {number}")));
    }
    // SAFETY: the number is a signal's, and only requires that no signal used by the C library's threads is raised in
    // this process: this one is sent to another.
    Ok(unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}

/// Unblocks every signal and gives each its default disposition, as a program expects at its start.
///
/// It makes the system call itself, because the C library refuses the signals that it reserves: a caller may have left
/// one of those ignored, and ignored signals stay ignored across execve(2).
///
/// # Errors
/// rt_sigaction(2) or sigprocmask(2) fails.
pub fn reset() -> Result<()> {
    (1..=64).filter(|&n| n != libc::SIGKILL && n != libc::SIGSTOP).try_for_each(set_default)?;
    unblock_all()
}

/// execve(2) with no signal blocked or ignored; returns only on failure.
///
/// # Errors
/// Always: the reason of execve(2), or that of [`reset`].
pub fn exec_with_defaults(path: &CString, argv: &[CString], env: &[CString]) -> Result<Infallible> {
    reset()?;
    super::process::exec(path, argv, env)
}

/// Size of the kernel's signal set, in bytes.
const MASK_BYTES: usize = 8;

/// Gives each signal its default disposition. It only makes system calls, so a child may call it between fork and exec.
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

/// Unblocks every signal and gives each that the caller left ignored its default disposition: with SIGCHLD ignored, the
/// status of a child would be lost.
///
/// Those by which a caller has a program outlive a terminal or leave it alone (nohup(1), jobs in the background) stay
/// ignored. So does SIGPIPE, which Rust's runtime ignores: writing to a pipe without a reader is then an error.
///
/// # Errors
/// rt_sigaction(2) or sigprocmask(2) fails.
pub fn heed() -> Result<()> {
    const KEPT: [i32; 7] =
        [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGPIPE, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    for number in (1..=64).filter(|n| !KEPT.contains(n) && ![libc::SIGKILL, libc::SIGSTOP].contains(n)) {
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

/// Ends this process by `signal`, so that its parent sees that it was ended by that signal. If the default action does
/// not end a process, it exits with 128 + the signal's number, as a shell does.
pub fn die_by(signal: Signal) -> ! {
    die_by_number(signal as i32)
}

/// [`die_by`] for a signal's number, which may be that of a real-time signal.
pub fn die_by_number(number: i32) -> ! {
    let die = || -> Result<()> {
        let signal = by_number(number)?;
        reset()?;
        // This process passes on how another one ended: a core dump of it would mislead.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .context(|| "prctl(PR_SET_DUMPABLE, 0)")?;
        rustix::process::kill_process(rustix::process::getpid(), signal).context(|| format!("raise({number})"))
    };
    // Reached if the default action ignores the signal, or if a call above failed.
    if let Err(error) = die() {
        log::debug!("{}", error.one_line());
    }
    super::process::exit_now(128 + number)
}
