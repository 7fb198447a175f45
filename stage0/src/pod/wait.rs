//! Waiting for what becomes of a pod.

use std::time::{Duration, Instant};

use stage1::error::{Error, Result};
use stage1::sys::process;

use crate::app::status::{self, AppStatus};
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State};
use crate::store::Store;

/// How often a pod that is not known to have a process is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How long its process alone is trusted to tell.
const AT_MOST: Duration = Duration::from_secs(1);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The pod takes app operations.
    Ready,
    /// Apps of the pod run, and all that run and have health checks are well.
    Healthy,
    /// The pod has ended, or is gone.
    Ended,
}

/// Waits for a pod, whatever phases it goes through, until `deadline`. One that was never run is waited for as well.
///
/// # Errors
/// The time is over, or it can't become what is waited for any more.
pub fn wait(store: &Store, pod: &Pod, until: Until, deadline: Option<Instant>) -> Result<()> {
    loop {
        let now = match pods::find_whole(store, pod.uuid()) {
            Ok(now) => now,
            Err(_) if until == Until::Ended => return Ok(()),
            Err(error) => return Err(error),
        };
        match (now.state(), until) {
            (State::Running, Until::Ready) if stage1::pod::is_ready(now.dir())? => return Ok(()),
            (State::Running, Until::Healthy) if are_well(&now)? => return Ok(()),
            (State::Embryo | State::Preparing | State::Prepared | State::Running, _) => {}
            (_, Until::Ended) => return Ok(()),
            (state, Until::Ready | Until::Healthy) => {
                let word = if until == Until::Ready { "ready" } else { "healthy" };
                return Err(Error::new(format!("it is {}, so it cannot become {word}", state.word())));
            }
        }
        let left = deadline.map_or(AT_MOST, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            let state = now.state().word();
            return Err(Error::new(format!("timed out: it is still {state}")));
        }
        pause(&now, until, left)?;
    }
}

/// Whether apps run, and all that do are well.
///
/// # Errors
/// One has failed and is not started again, or a status can't be read.
fn are_well(pod: &Pod) -> Result<bool> {
    let apps = status::list(pod)?;
    if let Some(failed) = apps.iter().find(|app| app.state == "exited" && app.exit_code.is_some_and(|code| code != 0)) {
        let code = failed.exit_code.unwrap_or_default();
        return Err(Error::new(format!("app {} has ended with {code}", failed.name)));
    }
    let mut running = apps.iter().filter(|app| app.state == "running").peekable();
    let is_well =
        |app: &AppStatus| !app.restarting && app.health.as_ref().is_none_or(|health| health.status == "healthy");
    Ok(running.peek().is_some() && running.all(is_well))
}

/// Waits for a moment, which ends early with the pod's process.
fn pause(pod: &Pod, until: Until, left: Duration) -> Result<()> {
    // the process may be gone although the pod is still held: its monitor is just clearing up
    let process = match (until, pod.pid_if_running()?) {
        (Until::Ended, Some(pid)) => process::pidfd_open(pid).ok(),
        _ => None,
    };
    match process {
        Some(process) if !process::pidfd_wait_end(&process, Duration::ZERO)? => {
            process::pidfd_wait_end(&process, left.min(AT_MOST)).map(drop)
        }
        _ => {
            std::thread::sleep(POLL.min(left));
            Ok(())
        }
    }
}
