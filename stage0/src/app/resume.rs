//! The apps of a pod that runs again: which of them, and each as it was.

use stage1::appc::{self, AFTER, AcName, After, PodManifest, RuntimeApp, find};
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Error, Result};
use stage1::pod::AppState;

use super::add::arguments;
use super::crossing::{Inside, ready_pid};
use super::files::AppFiles;
use super::kept::AppRecord;
use super::lifecycle;
use super::start_lock::AppLock;
use crate::poddir::find::Pod;
use crate::poddir::manifest::{self, Locked};
use crate::store::Store;

/// Undoes what was not finished in a pod that has ended: adds that were interrupted.
///
/// # Errors
/// The pod's lock or its manifest can't be had, or something can't be removed.
pub fn undo_interrupted(pod: &Pod) -> Result<()> {
    let locked = Locked::new(pod.dir())?;
    for app in locked.interrupted_adds()? {
        AppFiles::new(pod.dir(), &app).remove()?;
        locked.undo_add(&app)?;
    }
    Ok(())
}

/// Notes which apps of an ended mutable pod are to be started with it: those that were started and that nobody has
/// stopped by hand since; and those of them that are always to run.
///
/// # Errors
/// A status can't be read, or a note not be made.
pub fn note_wanted(pod: &Pod, manifest: &PodManifest) -> Result<()> {
    for app in &manifest.apps {
        let status = stage1::pod::app_status(pod.dir(), pod.state(), true, &app.name)?;
        let record = AppRecord::new(pod.dir(), &app.name);
        // of an app that an older version has added nothing is known
        let wanted = record.is_wanted() || record.options()?.is_none();
        let always = find(&app.annotations, stage1::app::RESTART) == Some("always");
        let Some(lock) = AppLock::wait(pod.dir(), &app.name)? else { continue };
        if (status.started_at.is_some() || lock.was_interrupted()) && (wanted || always) {
            // as a start that was interrupted, which it is from here on
            lock.begin()?;
        } else {
            lock.end()?;
        }
    }
    Ok(())
}

/// Mounts the apps' roots of a pod that does not run, with all that was written to them.
///
/// # Errors
/// The first that can't be mounted.
pub fn mount(store: &Store, pod: &Pod, manifest: &PodManifest) -> Result<()> {
    whole(pod, manifest)?.iter().try_for_each(|app| AppFiles::new(pod.dir(), app).mount_again(store))
}

/// Forgets how the apps of an immutable pod ended, which are all about to be started.
///
/// # Errors
/// A file can't be removed.
pub fn forget_exits(pod: &Pod, manifest: &PodManifest) -> Result<()> {
    manifest.apps.iter().try_for_each(|app| AppFiles::new(pod.dir(), &app.name).forget_exit())
}

/// Adds the apps of a mutable pod that runs again, and starts those that are noted for it. May be repeated.
///
/// # Errors
/// Some could not be added or started; all others are.
pub fn go_on(store: &Store, pod: &Pod, debug: bool) -> Result<()> {
    let manifest = manifest::read(pod.dir())?;
    let pid = ready_pid(pod)?;
    let mut failed = Vec::new();
    let apps = whole(pod, &manifest)?;
    {
        let locked = Locked::new(pod.dir())?;
        for app in &apps {
            let insecure = AppRecord::new(pod.dir(), app).options()?.map_or(InsecureOptions::default(), |o| o.insecure);
            let inside = Inside { store, pod, pid, app, lock: Some(locked.lock()), debug };
            if let Err(error) = inside.add(&arguments(pod, insecure)?) {
                failed.push(format!("app {app}: {}", error.one_line()));
            }
        }
    }
    let wanted = in_order(&manifest)?.into_iter().filter(|app| apps.contains(app));
    for app in wanted {
        let noted = AppLock::wait(pod.dir(), &app)?.is_some_and(|lock| lock.was_interrupted());
        let start = || {
            // it counts from now
            AppFiles::new(pod.dir(), &app).unmark_started()?;
            lifecycle::start(store, pod, &app, debug)
        };
        if noted && let Err(error) = start() {
            failed.push(format!("app {app}: {}", error.one_line()));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
}

/// The apps of a pod, each after those it waits for.
///
/// # Errors
/// Some wait for each other.
pub fn in_order(manifest: &PodManifest) -> Result<Vec<AcName>> {
    let after = |app: &RuntimeApp| {
        let after = find(&app.annotations, AFTER).map(After::parse_all).transpose();
        after.map(|after| (app.name.clone(), after.unwrap_or_default()))
    };
    appc::in_order(&manifest.apps.iter().map(after).collect::<Result<Vec<_>>>()?)
}

/// The apps that were added completely and are not half removed.
fn whole(pod: &Pod, manifest: &PodManifest) -> Result<Vec<AcName>> {
    let mutable = manifest.is_mutable()?;
    let mut apps = Vec::new();
    for app in &manifest.apps {
        let status = stage1::pod::app_status(pod.dir(), pod.state(), mutable, &app.name)?;
        if mutable && (status.state == AppState::Unknown || status.created_at.is_none()) {
            log::warn!("app {} was not completely added, or its removal was interrupted: it is left out", app.name);
        } else {
            apps.push(app.name.clone());
        }
    }
    Ok(apps)
}
