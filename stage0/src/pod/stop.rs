//! Ending a pod.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use stage1::error::{Error, Result};
use stage1::shutdown::time_to_end;

use crate::entrypoint::spawn::{Entrypoint, Stage1};
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State};
use crate::poddir::pause;
use crate::store::Store;

/// What the entrypoint may take longer than it waits itself.
const MARGIN: Duration = Duration::from_secs(30);
/// How long the end of a killed pod may take.
const FORCED: Duration = Duration::from_secs(20);

/// How a pod is ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopOptions {
    /// At once instead of in order.
    pub force: bool,
    /// In order, but at once when that takes longer. Without it an orderly end may take as long as the apps say.
    pub timeout: Option<Duration>,
    /// The entrypoint says more.
    pub debug: bool,
}

/// Ends a running pod and waits until it has ended. One that has ended before is fine.
///
/// # Errors
/// The pod has never run, the stop entrypoint fails, or the pod is still there after the time it may take.
pub fn stop(store: &Store, pod: &Pod, options: StopOptions) -> Result<()> {
    if pod.state() == State::Running && !options.force {
        pause::let_end(pod)?;
    }
    let Some(timeout) = options.timeout.filter(|_| !options.force) else {
        let limit = if options.force { FORCED } else { time_to_end(pod.dir()) };
        return stop_within(store, pod, options, limit);
    };
    match stop_within(store, pod, options, timeout) {
        Err(error) if pods::is_running(store, pod)? => {
            log::debug!("{}: killing it", error.one_line());
            stop_within(store, pod, StopOptions { force: true, ..options }, FORCED)
        }
        other => other,
    }
}

fn stop_within(store: &Store, pod: &Pod, options: StopOptions, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    match pod.state() {
        State::Running => {}
        State::Exited | State::ExitedGarbage | State::Deleting => return Ok(()),
        other => return Err(Error::new(format!("it is {}, not running", other.word()))),
    }
    let mut args: Vec<OsString> = Vec::new();
    if options.debug {
        args.push("--debug".into());
    }
    if options.force {
        args.push("--force".into());
    }
    args.push(pod.uuid().to_string().into());
    let stopped = Stage1::of(store, pod.dir())?.run_for(Entrypoint::Stop, &args, time_for(options, limit));
    if let Err(error) = stopped {
        // it may have ended by itself, or by another's doing, just before; then its monitor is just clearing up
        if pods::is_running(store, pod)? && pods::has_process(pod)? {
            return Err(error);
        }
    }
    wait_for_end(store, pod, deadline, limit)
}

/// How long the entrypoint may take: it knows its own time, unless somebody wants less.
fn time_for(options: StopOptions, limit: Duration) -> Duration {
    if options.timeout.is_some() && !options.force { limit } else { limit + MARGIN }
}

fn wait_for_end(store: &Store, pod: &Pod, deadline: Instant, limit: Duration) -> Result<()> {
    while pods::is_running(store, pod)? {
        if Instant::now() >= deadline {
            return Err(Error::new(format!("timed out after {} s: it still runs; --force kills it", limit.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
