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
/// How long a pod's monitor may go on once the pod's processes have ended: it passes on the last output, removes
/// cgroups and leaves the networks.
const MONITOR: Duration = LEAVE.saturating_add(Duration::from_secs(20));
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

/// Whether a running pod's processes have ended, and only its monitor is left, which leaves the pod's networks.
///
/// # Errors
/// The file with the PID is damaged, or this process has no descriptor left to look with.
pub fn only_monitor_is_left(pod: &Pod) -> Result<bool> {
    // without a PID the pod is only starting
    Ok(stage1::pod::read_pid(pod.dir())?.is_some() && !pods::has_process(pod)?)
}

/// Fails if a pod whose end is waited for since `began` is late: its processes have not ended within `limit`, or its
/// monitor goes on for 80 s more.
///
/// # Errors
/// It is late, or as [`only_monitor_is_left`].
pub fn check_time(pod: &Pod, began: Instant, limit: Duration) -> Result<()> {
    let waited = began.elapsed();
    if waited < limit {
        return Ok(());
    }
    let why = if stage1::pod::read_pid(pod.dir())?.is_none() {
        "it is still starting".to_owned()
    } else if !only_monitor_is_left(pod)? {
        format!("it still runs; \"podctl stop --force {}\" kills it", pod.short())
    } else if waited >= limit + MONITOR {
        "its processes have ended, but its monitor goes on".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::new(format!("timed out after {} s: {why}", waited.as_secs())))
}

/// Waits until a run that is ending has ended, as long as the stop timeouts of the pod's apps allow.
///
/// # Errors
/// It still goes on then, or the pod's directory can't be read.
pub fn wait(store: &Store, pod: &Pod, run: Run) -> Result<()> {
    let (began, limit) = (Instant::now(), time_to_end(pod.dir()));
    while run.goes_on(store, pod)? {
        check_time(pod, began, limit).context(|| "wait for its end")?;
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poddir::phase::HeldPod;
    use stage1::layout;

    /// `stop` and `wait` give a pod its own time, and then that of its networks once no process of it is left.
    #[test]
    fn a_pod_that_leaves_its_networks_has_more_time() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        let held = HeldPod::create(&store).unwrap();
        let pod = pods::find_whole(&store, held.uuid()).unwrap();
        let limit = Duration::from_secs(10);
        let check = |waited: Duration| {
            let began = Instant::now().checked_sub(waited).unwrap();
            check_time(&pod, began, limit).map_err(|error| error.one_line())
        };
        let late = |waited| check(waited).unwrap_err();

        assert_eq!(check(limit / 2), Ok(()));
        assert!(late(limit).contains("after 10 s: it is still starting"));
        std::fs::write(pod.dir().join(layout::PID), std::process::id().to_string()).unwrap();
        assert!(late(limit).contains("after 10 s: it still runs"));

        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        std::fs::write(pod.dir().join(layout::PID), ended.id().to_string()).unwrap();
        assert_eq!(check(limit + LEAVE), Ok(()));
        assert!(late(limit + MONITOR).contains("after 90 s: its processes have ended"));
    }
}
