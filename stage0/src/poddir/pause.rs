//! Holding a pod, or one app of it, still; and letting it go on.

use std::time::{Duration, Instant};

use stage1::appc::AcName;
use stage1::cgroup::PodCgroup;
use stage1::error::{Error, Result};
use stage1::layout;

use crate::poddir::find::{Pod, State, running_pid};
use crate::poddir::manifest::{self, must_have};

/// How long all processes may take to hold still.
const PATIENCE: Duration = Duration::from_secs(10);

/// Freezes all of a running pod, or one app; what is frozen stays so.
///
/// # Errors
/// It does not run, or a process of it can't be frozen in time; then all goes on.
pub fn pause(pod: &Pod, app: Option<&AcName>) -> Result<()> {
    let (cgroup, place) = running(pod, app)?;
    cgroup.freeze(&place, Instant::now() + PATIENCE)
}

/// Lets a paused pod, or one app, go on; what is not paused does so anyway.
///
/// # Errors
/// It does not run, or can't be let go.
pub fn unpause(pod: &Pod, app: Option<&AcName>) -> Result<()> {
    let (cgroup, place) = running(pod, app)?;
    cgroup.unfreeze(&place)
}

/// Whether all of a pod, or one app of it, was paused by itself.
///
/// # Errors
/// Its cgroup can't be read.
pub fn is_paused(pod: &Pod, app: Option<&AcName>) -> Result<bool> {
    if pod.state() != State::Running || !pod.dir().join(layout::SUBCGROUP).exists() {
        return Ok(false);
    }
    PodCgroup::recorded(pod.dir())?.is_frozen(&app.map(layout::app_cgroup).unwrap_or_default())
}

/// Fails for a pod, or an app of it, that is paused: whatever is done there would wait in vain.
///
/// # Errors
/// It is, or its cgroup can't be read.
pub fn must_go_on(pod: &Pod, app: Option<&AcName>) -> Result<()> {
    let remedy = "\"podctl unpause\" lets it go on";
    if is_paused(pod, None)? {
        return Err(Error::new(format!("pod {} is paused; {remedy}", pod.short())));
    }
    match app {
        Some(app) if is_paused(pod, Some(app))? => Err(Error::new(format!("app {app} is paused; {remedy}"))),
        _ => Ok(()),
    }
}

/// Lets a pod and all its apps go on, if any of them is paused: what is to end has to take its signals.
///
/// # Errors
/// That can't be seen, or one can't be let go.
pub fn let_end(pod: &Pod) -> Result<()> {
    let apps = manifest::read(pod.dir())?.apps;
    let mut places = std::iter::once(None).chain(apps.iter().map(|app| Some(&app.name)));
    let any = places.try_fold(false, |any, app| Ok::<_, Error>(any || is_paused(pod, app)?))?;
    if any { PodCgroup::recorded(pod.dir())?.thaw() } else { Ok(()) }
}

fn running(pod: &Pod, app: Option<&AcName>) -> Result<(PodCgroup, std::path::PathBuf)> {
    running_pid(pod)?;
    app.map_or(Ok(()), |app| must_have(pod, app))?;
    Ok((PodCgroup::recorded(pod.dir())?, app.map(layout::app_cgroup).unwrap_or_default()))
}
