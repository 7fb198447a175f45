//! Ending a pod.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use stage1::error::{Error, Result};

use crate::entrypoint::spawn::{Entrypoint, Stage1};
use crate::pod::directory as pods;
use crate::pod::directory::{Pod, State};
use crate::store::Store;

/// How long an orderly end may take: apps get systemd's time to stop, 90 seconds, and then are killed.
const ORDERLY: Duration = Duration::from_secs(120);
/// How long the end of a killed pod may take.
const FORCED: Duration = Duration::from_secs(20);

/// Ends a running pod and waits until it has ended. One that has ended before is fine.
///
/// # Errors
/// The pod has never run, the stop entrypoint fails, or the pod is still there after the time it may take.
pub fn stop(store: &Store, pod: &Pod, force: bool, debug: bool) -> Result<()> {
    match pod.state() {
        State::Running => {}
        State::Exited | State::ExitedGarbage | State::Deleting => return Ok(()),
        other => return Err(Error::new(format!("it is {}, not running", other.word()))),
    }
    let mut args: Vec<OsString> = Vec::new();
    if debug {
        args.push("--debug".into());
    }
    if force {
        args.push("--force".into());
    }
    args.push(pod.uuid().to_string().into());
    let stopped = Stage1::of(store, pod.dir())?.run(Entrypoint::Stop, &args);
    if let Err(error) = stopped {
        // it may have ended by itself, or by another's doing, just before; then its monitor is just clearing up
        if pods::is_running(store, pod)? && pods::has_process(pod)? {
            return Err(error);
        }
    }
    wait_for_end(store, pod, if force { FORCED } else { ORDERLY })
}

fn wait_for_end(store: &Store, pod: &Pod, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    while pods::is_running(store, pod)? {
        if Instant::now() >= deadline {
            return Err(Error::new(format!("it still runs after {} s; try --force", limit.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
