//! The apps of a pod that is run again: mounting their roots, and starting those that are to run.

use stage1::appc::{self, AFTER, AcName, After, PodManifest, RuntimeApp, find};
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Error, Result};
use stage1::pod::AppState;

use super::add::arguments;
use super::files::AppFiles;
use super::host_record::AppRecord;
use super::image_volumes;
use super::lifecycle;
use super::run_entrypoint::{Inside, ready_pid};
use super::start_lock::AppLock;
use crate::poddir::find::Pod;
use crate::poddir::manifest::{self, Locked};
use crate::store::Store;

/// Undoes the interrupted adds of a pod that has ended.
///
/// # Errors
/// The pod's lock can't be taken, its directory can't be read, or a file can't be removed.
pub fn undo_interrupted(pod: &Pod) -> Result<()> {
    let locked = Locked::new(pod.dir())?;
    for app in locked.interrupted_adds()? {
        AppFiles::new(pod.dir(), &app).remove()?;
        locked.undo_add(&app)?;
    }
    Ok(())
}

/// Records which apps of an ended mutable pod to start when it runs again: those that were started and were not stopped
/// with `app stop` since, or have the restart policy `always`.
///
/// # Errors
/// A status can't be read, an app's lock can't be taken, or the record can't be written.
pub fn note_wanted(pod: &Pod, manifest: &PodManifest) -> Result<()> {
    for app in &manifest.apps {
        let status = stage1::pod::app_status(pod.dir(), pod.state(), true, &app.name)?;
        let record = AppRecord::new(pod.dir(), &app.name);
        // an app that an older version added has no records: treat it as wanted
        let wanted = record.is_wanted() || record.options()?.is_none();
        let always = find(&app.annotations, stage1::app::RESTART) == Some("always");
        let Some(lock) = AppLock::wait(pod.dir(), &app.name)? else { continue };
        if (status.started_at.is_some() || lock.was_interrupted()) && (wanted || always) {
            // recorded like an interrupted start, which `go_on` continues
            lock.begin()?;
        } else {
            lock.end()?;
        }
    }
    Ok(())
}

/// Mounts the roots of all apps of a pod that does not run, with the files written to them.
///
/// # Errors
/// A status can't be read, or a root can't be mounted; it stops there.
pub fn mount(store: &Store, pod: &Pod, manifest: &PodManifest) -> Result<()> {
    whole(pod, manifest)?.iter().try_for_each(|app| {
        AppFiles::new(pod.dir(), app).mount_again(store)?;
        image_volumes::mount(store, pod.dir(), app)
    })
}

/// Removes the exit statuses of all apps of an immutable pod, before it runs again.
///
/// # Errors
/// A file can't be removed.
pub fn forget_exits(pod: &Pod, manifest: &PodManifest) -> Result<()> {
    manifest.apps.iter().try_for_each(|app| AppFiles::new(pod.dir(), &app.name).forget_exit())
}

/// Adds the apps of a mutable pod that runs again, and starts those that [`note_wanted`] recorded. It can be repeated.
///
/// # Errors
/// The pod is not ready, its files can't be read, or apps could not be added or started: the message lists them, and
/// all others are started.
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
            // so that it gets the time of this start
            AppFiles::new(pod.dir(), &app).unmark_started()?;
            lifecycle::start(store, pod, &app, debug)
        };
        if noted && let Err(error) = start() {
            failed.push(format!("app {app}: {}", error.one_line()));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
}

/// The apps of a pod, each after the apps it waits for.
///
/// # Errors
/// An annotation is invalid, or apps wait for each other.
pub fn in_order(manifest: &PodManifest) -> Result<Vec<AcName>> {
    let after = |app: &RuntimeApp| {
        let after = find(&app.annotations, AFTER).map(After::parse_all).transpose();
        after.map(|after| (app.name.clone(), after.unwrap_or_default()))
    };
    appc::in_order(&manifest.apps.iter().map(after).collect::<Result<Vec<_>>>()?)
}

/// The apps that were added completely and are not half removed; warns of the others.
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
