//! Waiting until a pod is ready, healthy or has ended.

use std::time::{Duration, Instant};

use stage1::error::{Error, Result};
use stage1::sys::process;

use crate::app::status::{self, AppStatus};
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State};
use crate::store::Store;

/// The time between two looks at a pod whose process can't be waited for.
const POLL: Duration = Duration::from_millis(20);
/// The longest wait for the pod's process before looking at the pod again.
const AT_MOST: Duration = Duration::from_secs(1);

/// The condition to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The pod is ready for app operations.
    Ready,
    /// At least one app runs, and all running apps with health checks are healthy.
    Healthy,
    /// The pod has ended, or is gone.
    Ended,
}

/// Waits for a pod in any phase, also one that was not run yet, until `deadline`.
///
/// # Errors
/// The deadline has passed, the pod can't meet the condition any more, an app has failed ([`Until::Healthy`]), or the
/// pod can't be read.
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
            let unwell = if until == Until::Healthy { unwell(&now)? } else { String::new() };
            return Err(Error::new(format!("timed out: it is still {state}{unwell}")));
        }
        pause(&now, until, left)?;
    }
}

/// Whether at least one app runs, and all running apps with health checks are healthy.
///
/// # Errors
/// An app has failed and is not restarted, or a status can't be read.
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

/// What keeps a pod from being healthy, for a message.
fn unwell(pod: &Pod) -> Result<String> {
    let apps = status::list(pod)?;
    let mut parts = Vec::new();
    for app in &apps {
        match &app.health {
            _ if app.restarting => parts.push(format!("app {} is restarting", app.name)),
            Some(health) if health.status != "healthy" => parts.push(format!("app {} is {}", app.name, health.status)),
            _ => {}
        }
    }
    if !apps.iter().any(|app| app.state == "running") {
        parts.push("no app of it runs".to_owned());
    }
    Ok(if parts.is_empty() { String::new() } else { format!(", {}", parts.join(", ")) })
}

/// Waits for the end of the pod's process, or for a short time.
fn pause(pod: &Pod, until: Until, left: Duration) -> Result<()> {
    // the process may be gone while the pod is still held, because its monitor is cleaning up
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
