//! Stopping a pod.

use std::ffi::OsString;
use std::time::{Duration, Instant};

use stage1::error::{Error, Result};
use stage1::shutdown::time_to_end;

use crate::entrypoint::spawn::{Entrypoint, Stage1};
use crate::pod::ending::{self, Run};
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State};
use crate::poddir::pause;
use crate::store::Store;

/// How much longer than its own timeout the entrypoint may take.
const MARGIN: Duration = Duration::from_secs(30);
/// How long a killed pod may take to end.
const FORCED: Duration = Duration::from_secs(20);

/// Options of [`stop`].
#[derive(Clone, Copy, Debug, Default)]
pub struct StopOptions {
    /// Whether to kill the pod at once.
    pub force: bool,
    /// How long an orderly end may take before the pod is killed; as long as the apps' stop timeouts allow if `None`.
    pub timeout: Option<Duration>,
    /// Whether the entrypoint logs debug messages.
    pub debug: bool,
}

/// Stops a running pod and waits until it has ended; does nothing if it has ended already.
///
/// # Errors
/// The pod was never run, the stop entrypoint fails, or the pod still runs after its time.
pub fn stop(store: &Store, pod: &Pod, options: StopOptions) -> Result<()> {
    if pod.state() == State::Running && !options.force {
        pause::let_end(pod)?;
    }
    let Some(timeout) = options.timeout.filter(|_| !options.force) else {
        let limit = if options.force { FORCED } else { time_to_end(pod.dir()) };
        return stop_within(store, pod, options, limit);
    };
    match stop_within(store, pod, options, timeout) {
        // of a pod whose monitor only leaves its networks there is nothing to kill
        Err(error) if pods::is_running(store, pod)? && !ending::only_monitor_is_left(pod)? => {
            log::debug!("{}: killing it", error.one_line());
            stop_within(store, pod, StopOptions { force: true, ..options }, FORCED)
        }
        other => other,
    }
}

fn stop_within(store: &Store, pod: &Pod, options: StopOptions, limit: Duration) -> Result<()> {
    let began = Instant::now();
    match pod.state() {
        State::Running => {}
        State::Exited | State::ExitedGarbage | State::Deleting => return Ok(()),
        other => return Err(Error::new(format!("it is {}, not running", other.word()))),
    }
    let run = Run::of(pod)?;
    if let Some(Err(error)) = run.map(|run| run.note_end(pod)) {
        // on a full disk it has to end, too
        log::debug!("{}", error.one_line());
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
        // the pod may have ended just before, and its monitor is cleaning up
        if pods::is_running(store, pod)? && pods::has_process(pod)? {
            return Err(error);
        }
    }
    wait_for_end(store, pod, run, began, limit)
}

/// How long the entrypoint may run: its own limit and a margin, or the timeout that the caller gave.
fn time_for(options: StopOptions, limit: Duration) -> Duration {
    if options.timeout.is_some() && !options.force { limit } else { limit + MARGIN }
}

fn wait_for_end(store: &Store, pod: &Pod, run: Option<Run>, began: Instant, limit: Duration) -> Result<()> {
    // another process may start it again meanwhile
    while run.map_or_else(|| pods::is_running(store, pod), |run| run.goes_on(store, pod))? {
        ending::check_time(pod, began, limit)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
