//! Pods that are ending: podctl stops them, or something else shuts their systemd down. They count as running until
//! their last process has ended.

use std::time::{Duration, Instant};

use stage1::error::{Context, Error, Result};
use stage1::net::LEAVE;
use stage1::pod::remove_if_there;
use stage1::shutdown::time_to_end;

use crate::entrypoint::supervisor;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::pause;
use crate::store::Store;

/// The time between two looks at a pod that is ending.
const POLL: Duration = Duration::from_millis(20);
/// How long a pod's systemd may take to begin its end after podctl has asked for it.
const BEGINS: Duration = Duration::from_secs(2);
/// The file in the pod's directory with the PID 1 that podctl has asked to end.
const MARK: &str = "end-asked";

/// One run of a pod, told from later ones by its PID 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run(i32);

impl Run {
    /// The present run of the pod; `None` if it does not run, or has no PID yet.
    ///
    /// # Errors
    /// The file with the PID is damaged.
    pub fn of(pod: &Pod) -> Result<Option<Self>> {
        Ok(pod.pid_if_running()?.map(Self))
    }

    /// Whether this run has not ended.
    ///
    /// # Errors
    /// The pod's directory can't be opened or locked, or the file with the PID is damaged.
    pub fn goes_on(self, store: &Store, pod: &Pod) -> Result<bool> {
        Ok(pods::is_running(store, pod)? && stage1::pod::read_pid(pod.dir())? == Some(self.0))
    }

    /// Notes that podctl is about to ask the pod to end.
    ///
    /// # Errors
    /// The note can't be written.
    pub fn note_end(self, pod: &Pod) -> Result<()> {
        let path = pod.dir().join(MARK);
        std::fs::write(&path, self.0.to_string()).context(|| format!("write {path:?}"))
    }

    fn is_asked_to_end(self, pod: &Pod) -> bool {
        std::fs::read_to_string(pod.dir().join(MARK)).is_ok_and(|text| text == self.0.to_string())
    }
}

/// The present run of a pod if it is ending. `None` for a pod that does not run, is starting, or is paused.
///
/// # Errors
/// The pod's directory, its cgroup or its stage1 can't be read.
pub fn of(store: &Store, pod: &Pod) -> Result<Option<Run>> {
    let Some(run) = Run::of(pod)? else { return Ok(None) };
    let deadline = Instant::now() + BEGINS;
    loop {
        if !stage1::pod::is_ready(pod.dir())? || pause::is_paused(pod, None)? {
            return Ok(None);
        }
        if supervisor::is_ending(store, pod)? {
            return Ok(Some(run));
        }
        if !run.is_asked_to_end(pod) {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            // a podctl that was killed has left the note, and not asked
            remove_if_there(&pod.dir().join(MARK))?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Whether a pod whose end is waited for is late. The deadline is that of its processes: once they have ended, its monitor
/// may take [`LEAVE`] longer to leave the pod's networks.
///
/// # Errors
/// The file with the PID is damaged.
pub fn is_late(pod: &Pod, deadline: Instant) -> Result<bool> {
    let now = Instant::now();
    // without a PID the pod is only starting
    let leaves_networks = || Ok::<_, Error>(stage1::pod::read_pid(pod.dir())?.is_some() && !pods::has_process(pod)?);
    Ok(now >= deadline && (now >= deadline + LEAVE || !leaves_networks()?))
}

/// Waits until a run that is ending has ended, as long as the stop timeouts of the pod's apps allow.
///
/// # Errors
/// It still goes on then, or the pod's directory can't be read.
pub fn wait(store: &Store, pod: &Pod, run: Run) -> Result<()> {
    let limit = time_to_end(pod.dir());
    let deadline = Instant::now() + limit;
    while run.goes_on(store, pod)? {
        if is_late(pod, deadline)? {
            let (seconds, name) = (limit.as_secs(), pod.short());
            return Err(Error::new(format!(
                "it is ending and has not ended within {seconds} s: \"podctl stop --force {name}\" kills it"
            )));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
