//! What a program inherits from its caller besides arguments: signals, limits, scheduling, the file creation
//! mask. None of it is to matter, so it is set here, once for every program of the host side and once for a pod.
//! Host side.

use rustix::fs::Mode;

use crate::error::{Context, Result};
use crate::sys::inherited::{ResourceLimits, hand_on_no_capabilities, ordinary_personality, ordinary_scheduling};
use crate::sys::{process, seccomp, signal};

/// Resets what `podctl` and every host-side entrypoint inherit, before all else, so that they work alike for any caller.
///
/// Signals are heeded, files are made with the modes that were asked for, limits are at least a service's, as far as
/// this process may raise them, and no descriptor but the standard three is handed on. What is the caller's business
/// with this program alone stays as it is: its priority, its processors, what it does at the end of a terminal.
///
/// # Errors
/// When the kernel refuses for another reason than that a hard limit can't be raised.
pub fn settle() -> Result<()> {
    signal::heed()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    ordinary_personality()?;
    hand_on_no_capabilities()?;
    process::close_on_exec_from_3()?;
    ResourceLimits::standard()?.or_current()?.take()
}

/// After [`settle`], in a process that becomes part of a pod, or whose children do: limits, scheduling, readiness to be
/// killed for lack of memory, and keys are a service's, not the caller's. Returns in words what this process may not
/// lift, and so holds whatever it starts.
///
/// # Errors
/// When the kernel refuses for another reason than a privilege that this process lacks.
pub fn leave_caller() -> Result<Vec<String>> {
    let standard = ResourceLimits::standard()?;
    standard.take()?;
    let mut kept = standard.shortfall()?;
    kept.extend(ordinary_scheduling()?);
    kept.extend(ordinary_oom_score()?);
    if rustix::thread::no_new_privs().context(|| "prctl(PR_GET_NO_NEW_PRIVS)")? {
        kept.push("no new privileges".to_owned());
    }
    seccomp::new_session_keyring()?;
    Ok(kept)
}

/// Neither likelier nor less likely than others to be killed for lack of memory. What can't be changed, in words.
fn ordinary_oom_score() -> Result<Option<String>> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let now = std::fs::read_to_string(FILE).context(|| format!("read {FILE}"))?;
    match now.trim() {
        "0" => Ok(None),
        now => match std::fs::write(FILE, "0") {
            Ok(()) => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => Ok(Some(format!("oom_score_adj {now}"))),
            Err(error) => Err(error).context(|| format!("write {FILE}")),
        },
    }
}
