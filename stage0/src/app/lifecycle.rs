//! Starting, stopping and removing an app. Each operation can be repeated: it does nothing if its result is there.

use std::time::{Duration, Instant};

use stage1::appc::{AcName, PodManifest};
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Error, Result};
use stage1::layout;
use stage1::pod::events::Event;
use stage1::pod::{AppState, State};

use super::files::AppFiles;
use super::host_record::AppRecord;
use super::run_entrypoint::{Inside, ready_pid};
use super::start_lock::{self, AppLock};
use super::undo_add::Adding;
use crate::entrypoint::spawn::Entrypoint;
use crate::entrypoint::supervisor;
use crate::poddir::find::Pod;
use crate::poddir::manifest::{self, Locked, NoApp, must_be_mutable};
use crate::poddir::pause;
use crate::store::Store;
use crate::volume::{content, implicit};

/// The time between two looks at an app that is being stopped.
const POLL: Duration = Duration::from_millis(100);

/// Starts an app; does nothing if it runs. Waits first for the end of an app that is being stopped.
///
/// # Errors
/// The pod is immutable, not ready or paused, has no such app or has not added it completely, or app-start fails. The
/// app does not count as running then. Or an app that is being stopped does not end in time.
pub fn start(store: &Store, pod: &Pod, app: &AcName, debug: bool) -> Result<()> {
    let pid = ready_pid(pod)?;
    listed(pod, app)?;
    // one start at a time: a second one would remove the exit status that the first one's app wrote
    let lock = AppLock::wait(pod.dir(), app)?.with_no_app(pod, app)?;
    // the app may have been removed, and added again, meanwhile
    let manifest = listed(pod, app)?;
    let record = AppRecord::new(pod.dir(), app);
    let is_stopped = record.exists() && !record.is_wanted();
    record.set_wanted(true)?;

    let files = AppFiles::new(pod.dir(), app);
    let mut before = state(pod, &manifest, app)?;
    if before == AppState::Running && is_stopped && supervisor::is_stopping(store, pod, app)? {
        before = await_end(store, pod, &manifest, app)?;
    }
    match before {
        AppState::Running if !lock.was_interrupted() => return Ok(()),
        AppState::Unknown => {
            return Err(Error::new(format!("app {app} was not completely added: remove it with \"podctl app rm\"")));
        }
        _ => lock.begin()?,
    }
    // in this order: otherwise the app would look for a moment as if it were running
    if before == AppState::Exited {
        files.unmark_started()?;
    }
    if before != AppState::Running {
        files.forget_exit()?;
        files.mark_started()?;
    }
    if let Err(error) = (Inside { store, pod, pid, app, lock: Some(lock.file()), debug }).start() {
        // an app that ran and ended has an exit status
        if state(pod, &manifest, app)? == AppState::Running {
            files.unmark_started()?;
        }
        lock.end()?;
        return Err(error);
    }
    lock.end()
}

/// Waits until an app that is being stopped has ended; returns the state that it has then.
fn await_end(store: &Store, pod: &Pod, manifest: &PodManifest, app: &AcName) -> Result<AppState> {
    let limit = stage1::shutdown::time_to_end(pod.dir());
    let deadline = Instant::now() + limit;
    loop {
        if state(pod, manifest, app)? != AppState::Running || !supervisor::is_stopping(store, pod, app)? {
            return Ok(AppState::Exited);
        }
        if Instant::now() >= deadline {
            return Err(Error::new(format!("it is being stopped, and has not ended within {} s", limit.as_secs())));
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until no process starts or removes the app, at most 660 s. From the beginning of its start an app counts as
/// running; its streams and log are there at the end.
///
/// # Errors
/// The app's lock can't be taken.
pub fn wait_for_start(pod: &Pod, app: &AcName) -> Result<()> {
    AppLock::wait(pod.dir(), app).map(drop)
}

/// Stops an app; does nothing if it does not run. After `timeout`, or the app's own stop timeout if `None`, all its
/// processes are killed.
///
/// # Errors
/// The pod is immutable, not ready or paused, or has no such app, or app-stop fails.
pub fn stop(store: &Store, pod: &Pod, app: &AcName, timeout: Option<Duration>, debug: bool) -> Result<()> {
    let manifest = listed(pod, app)?;
    AppRecord::new(pod.dir(), app).set_wanted(false)?;
    if state(pod, &manifest, app)? != AppState::Running && !start_lock::was_interrupted(pod.dir(), app)? {
        return Ok(());
    }
    let pid = ready_pid(pod)?;
    if pause::is_paused(pod, Some(app))? {
        // a frozen process does not handle the stop signal
        pause::unpause(pod, Some(app))?;
    }
    Inside { store, pod, pid, app, lock: None, debug }.stop(timeout)?;
    // another process that holds the lock is starting the app again
    let Some(lock) = AppLock::try_take(pod.dir(), app)? else { return Ok(()) };
    if state(pod, &manifest, app)? == AppState::Running && !start_lock::has_processes(pod.dir(), app)? {
        // an interrupted start left only the marker
        AppFiles::new(pod.dir(), app).unmark_started()?;
    }
    lock.end()
}

/// Stops an app if it runs, then starts it.
///
/// # Errors
/// As [`stop`] and [`start`].
pub fn restart(store: &Store, pod: &Pod, app: &AcName, timeout: Option<Duration>, debug: bool) -> Result<()> {
    stop(store, pod, app, timeout, debug)?;
    start(store, pod, app, debug)
}

/// Stops an app and removes it from its pod; continues an interrupted removal. It also removes the volumes that only
/// the app's image declares, unless `keep_volumes` keeps them for the next app of this name.
///
/// # Errors
/// The pod is immutable, not ready or paused, or has no such app, or something can't be removed: the manifest still
/// lists the app then.
pub fn rm(store: &Store, pod: &Pod, app: &AcName, keep_volumes: bool, debug: bool) -> Result<()> {
    remove_but(store, pod, app, keep_volumes, debug, |_| Ok(()))
}

/// [`rm`], which calls `keep` after app-rm and before it removes the app's files.
pub(super) fn remove_but(
    store: &Store,
    pod: &Pod,
    app: &AcName,
    keep_volumes: bool,
    debug: bool,
    keep: impl FnOnce(&AppFiles<'_>) -> Result<()>,
) -> Result<()> {
    let was_listed = manifest::read(pod.dir())?.app(app).is_some();
    let locked = Locked::new(pod.dir())?;
    let pid = if pod.state() == State::Running { Some(ready_pid(pod)?) } else { None };
    let locked = match pid {
        Some(pid) => {
            let adding = Adding { store, pod, pid, locked, insecure: InsecureOptions::default(), debug };
            let undone = adding.undo_interrupted()?.contains(app);
            if adding.locked.read()?.app(app).is_none() && (undone | adding.clear_leftovers(app)?) {
                return Ok(());
            }
            adding.locked
        }
        None => locked,
    };
    let mut manifest = locked.read()?;
    must_be_mutable(&manifest)?;
    if manifest.app(app).is_none() && was_listed {
        // another process has removed it
        return Ok(());
    }
    manifest.app(app).with_no_app(pod, app)?;
    let mut starts = None;
    if let Some(pid) = pid {
        let inside = Inside { store, pod, pid, app, lock: Some(locked.lock()), debug };
        // app-rm itself refuses an app that runs.
        let is_at_rest = matches!(state(pod, &manifest, app)?, AppState::Created | AppState::Exited);
        if !is_at_rest {
            inside.stop(None)?;
        }
        // no process can start it from here on
        starts = AppLock::wait(pod.dir(), app)?;
        if inside.cross(Entrypoint::AppRm, &[], None)?.success().is_err() {
            // It listens on its sockets, or another process has started it before the lock was taken.
            inside.stop(None)?;
            inside.cross(Entrypoint::AppRm, &[], None)?.success()?;
        }
    }
    let files = AppFiles::new(pod.dir(), app);
    keep(&files)?;
    files.remove()?;
    if !keep_volumes {
        implicit::remove(pod.dir(), &manifest, app)?;
    }
    drop(starts);
    manifest.apps.retain(|other| other.name != *app);
    locked.write(&manifest)?;
    Event::now("removed", Some(app)).note(pod.dir(), layout::EVENTS);
    if keep_volumes { Ok(()) } else { content::sweep(pod.dir(), &manifest) }
}

/// The manifest of the pod. Fails unless the pod is mutable and has the app, completely added.
fn listed(pod: &Pod, app: &AcName) -> Result<PodManifest> {
    let manifest = manifest::read(pod.dir())?;
    must_be_mutable(&manifest)?;
    manifest.app(app).with_no_app(pod, app)?;
    if manifest::is_being_added(pod.dir(), app) {
        return Err(Error::new(format!(
            "app {app} is being added, or adding it was interrupted: \"podctl app rm\" removes it"
        )));
    }
    Ok(manifest)
}

fn state(pod: &Pod, manifest: &PodManifest, app: &AcName) -> Result<AppState> {
    Ok(stage1::pod::app_status(pod.dir(), pod.state(), manifest.is_mutable()?, app)?.state)
}
