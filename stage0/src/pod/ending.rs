//! Pods that are ending: podctl stops them, or something else shuts their systemd down. They count as running until
//! their last process has ended.

use std::time::{Duration, Instant};

use stage1::error::{Error, Result};
use stage1::shutdown::time_to_end;

use crate::entrypoint::supervisor;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::pause;
use crate::store::Store;

/// The time between two looks at a pod that is ending.
const POLL: Duration = Duration::from_millis(20);

/// Whether a running pod is ending. `false` for a pod that does not run, is starting, or is paused.
///
/// # Errors
/// The pod's directory, its cgroup or its stage1 can't be read.
pub fn is_ending(store: &Store, pod: &Pod) -> Result<bool> {
    let answers = pod.pid_if_running()?.is_some() && stage1::pod::is_ready(pod.dir())? && !pause::is_paused(pod, None)?;
    Ok(answers && supervisor::is_ending(store, pod)?)
}

/// Waits until a pod that is ending has ended, as long as its apps' stop timeouts allow.
///
/// # Errors
/// It still runs then, or its directory can't be read.
pub fn wait(store: &Store, pod: &Pod) -> Result<()> {
    let limit = time_to_end(pod.dir());
    let deadline = Instant::now() + limit;
    while pods::is_running(store, pod)? {
        if Instant::now() >= deadline {
            let (seconds, name) = (limit.as_secs(), pod.short());
            return Err(Error::new(format!(
                "it is ending and has not ended within {seconds} s: \"podctl stop --force {name}\" kills it"
            )));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
