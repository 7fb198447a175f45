//! What a program inherits from its caller besides arguments: signals, limits, scheduling, the umask. Our programs
//! reset it at their start ([`settle`]), and once more for a pod ([`leave_caller`]), so that they work alike for any
//! caller. Host side.

use rustix::fs::Mode;

use crate::error::{Context, Result};
use crate::sys::process_attributes::{
    ResourceLimits, hand_on_no_capabilities, ordinary_personality, ordinary_scheduling,
};
use crate::sys::{process, seccomp, signal};

/// Resets what `podctl` and every host-side entrypoint inherit; they call it first.
///
/// Signals are unblocked and no longer ignored ([`signal::heed`] has the exceptions), the umask is 022, the personality
/// and capabilities to inherit are cleared, resource limits are raised to those of a service as far as this process may
/// raise them, and every descriptor from 3 on is close-on-exec. Nice value, CPU affinity and what happens on SIGHUP
/// stay as the caller set them.
///
/// # Errors
/// The kernel refuses a call; a hard limit that this process may not raise is not an error.
pub fn settle() -> Result<()> {
    signal::heed()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    ordinary_personality()?;
    hand_on_no_capabilities()?;
    process::close_on_exec_from_3()?;
    ResourceLimits::standard()?.or_current()?.take()
}

/// Replaces, in a process that becomes part of a pod or whose children do, the caller's limits, scheduling,
/// `oom_score_adj` and session keyring by those of a service. Called after [`settle`]. Returns, for a message, what
/// this process may not change: it stays in force for every process that this one starts.
///
/// # Errors
/// The kernel refuses a call for another reason than a missing privilege.
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

/// Sets `oom_score_adj` to 0: proc_pid_oom_score_adj(5). Returns a value that this process may not change, for a
/// message.
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
