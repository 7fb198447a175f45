//! Pausing a pod, or one app of it, and letting it go on (cgroup freezer).

use std::time::{Duration, Instant};

use stage1::appc::AcName;
use stage1::cgroup::PodCgroup;
use stage1::error::{Error, Result};
use stage1::layout;

use crate::poddir::find::{Pod, State, running_pid};
use crate::poddir::manifest::{self, must_have};

/// How long the kernel may take to freeze all processes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Freezes all processes of a running pod, or of one app; does nothing if they are frozen already.
///
/// # Errors
/// The pod does not run or has no such app, the app has no process, or its processes are not frozen after 10 s; then all
/// of them go on.
pub fn pause(pod: &Pod, app: Option<&AcName>) -> Result<()> {
    let (cgroup, place) = running(pod, app)?;
    if let Some(app) = app
        && !cgroup.unit_is_populated(&place)?
    {
        return Err(Error::new(format!("app {app} does not run: \"podctl app start\" starts it")));
    }
    cgroup.freeze(&place, Instant::now() + PATIENCE)
}

/// Thaws a paused pod, or one app; does nothing if it is not paused.
///
/// # Errors
/// The pod does not run or has no such app, or its cgroup can't be thawed.
pub fn unpause(pod: &Pod, app: Option<&AcName>) -> Result<()> {
    let (cgroup, place) = running(pod, app)?;
    cgroup.unfreeze(&place)
}

/// Whether [`pause`] paused the whole pod (`app` is `None`), or this one app by itself; `false` for a pod that does not
/// run.
///
/// # Errors
/// The cgroup can't be read.
pub fn is_paused(pod: &Pod, app: Option<&AcName>) -> Result<bool> {
    if pod.state() != State::Running || !pod.dir().join(layout::SUBCGROUP).exists() {
        return Ok(false);
    }
    PodCgroup::recorded(pod.dir())?.is_frozen(&app.map(layout::app_cgroup).unwrap_or_default())
}

/// Fails if the pod, or the app, is paused: an operation on it would wait in vain.
///
/// # Errors
/// The pod or the app is paused, or its cgroup can't be read.
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

/// Thaws a pod and all its apps if any of them is paused, so that their processes take the signals that end them.
///
/// # Errors
/// The manifest or a cgroup can't be read, or a cgroup can't be thawed.
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
