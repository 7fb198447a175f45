//! Adding an app to a running pod: wholly, or not at all.

use stage1::appc::{AcName, Mount, PodManifest, RuntimeApp, VolumeKind};
use stage1::error::{Context, Error, Result};

use super::files::AppFiles;
use super::lifecycle::Inside;
use super::manifest::Locked;
use super::options::AddOptions;
use crate::images::{self, Image};
use crate::pods::{Pod, running_pid};
use crate::store::Store;
use crate::{spec, users};

/// Adds an app to a pod.
///
/// # Errors
/// The options make no sense, the pod does not take the app, or a step failed. The pod is then as it was.
pub fn add(store: &Store, pod: &Pod, options: &AddOptions) -> Result<()> {
    let image = images::find(store, &options.image)?;
    let app = options.runtime_app(&image)?;
    let locked = Locked::new(pod.dir())?;
    let adding = Adding { store, pod, pid: ready_pid(pod)?, locked, insecure: options.insecure, debug: options.debug };
    adding.undo_interrupted()?;
    let manifest = adding.locked.read()?;
    must_be_mutable(&manifest)?;
    check_addition(&manifest, &app)?;
    adding.clear_leftovers(&app.name)?;
    adding.locked.begin_add(&app.name)?;
    match adding.steps(&image, manifest, &app).and_then(|()| adding.locked.commit_add(&app.name)) {
        Ok(()) => Ok(()),
        Err(error) => Err(match adding.undo(&app.name) {
            Ok(()) => error,
            Err(also) => Error::new(format!("{}; and undoing it: {}", error.one_line(), also.one_line())),
        }),
    }
}

/// The PID of a pod that takes app operations.
///
/// # Errors
/// The pod does not run, or is not ready.
pub fn ready_pid(pod: &Pod) -> Result<i32> {
    let pid = running_pid(pod)?;
    if !stage1::pod::is_ready(pod.dir())? {
        return Err(Error::new(format!("pod {} is not ready yet", pod.short())));
    }
    Ok(pid)
}

/// Fails for a pod that has the same apps all its life.
pub(super) fn must_be_mutable(manifest: &PodManifest) -> Result<()> {
    match manifest.is_mutable()? {
        true => Ok(()),
        false => Err(Error::new("the pod is immutable: it was not made as a sandbox")),
    }
}

/// Whether the app goes together with what the pod's manifest has.
///
/// # Errors
/// Why it does not.
pub fn check_addition(manifest: &PodManifest, app: &RuntimeApp) -> Result<()> {
    if manifest.app(&app.name).is_some() {
        return Err(Error::new(format!("the pod has an app {} already", app.name)));
    }
    for other in &manifest.apps {
        if share_status_files(&other.name, &app.name) {
            return Err(Error::new(format!("the status files of {} and {} have the same name", app.name, other.name)));
        }
    }
    app.mounts.iter().try_for_each(|mount| check_mount(manifest, mount))
}

/// A marker of one app can be what the other's status file is called.
fn share_status_files(a: &AcName, b: &AcName) -> bool {
    let one_way = |a: &AcName, b: &AcName| {
        ["-created", "-started"].iter().any(|suffix| a.as_ref().strip_suffix(suffix) == Some(b.as_ref()))
    };
    one_way(a, b) || one_way(b, a)
}

fn check_mount(manifest: &PodManifest, mount: &Mount) -> Result<()> {
    let volume = manifest.volumes.iter().find(|volume| volume.name == mount.volume);
    let volume = volume.context(|| format!("the pod has no volume {}", mount.volume))?;
    match (volume.kind, &volume.source) {
        (VolumeKind::Host, Some(source)) => spec::source_exists(source).context(|| format!("volume {}", volume.name)),
        _ => Ok(()),
    }
}

/// A pod that is being added to, its lock held.
pub(super) struct Adding<'a> {
    pub(super) store: &'a Store,
    pub(super) pod: &'a Pod,
    pub(super) pid: i32,
    pub(super) locked: Locked,
    pub(super) insecure: spec::Insecure,
    pub(super) debug: bool,
}

impl Adding<'_> {
    fn steps(&self, image: &Image, mut manifest: PodManifest, app: &RuntimeApp) -> Result<()> {
        let files = AppFiles::new(self.pod.dir(), &app.name);
        files.write_info(self.store, image)?;
        files.put_in_place(self.store, app)?;
        manifest.apps.push(app.clone());
        self.locked.write(&manifest)?;
        files.mark_created()?;
        self.inside(&app.name).add(&self.arguments()?)
    }

    fn inside<'b>(&'b self, app: &'b AcName) -> Inside<'b> {
        Inside {
            store: self.store,
            pod: self.pod,
            pid: self.pid,
            app,
            lock: Some(self.locked.lock()),
            debug: self.debug,
        }
    }

    fn arguments(&self) -> Result<Vec<String>> {
        let mut args = vec![format!("--uuid={}", self.pod.uuid())];
        args.extend(users::of_pod(self.pod.dir())?.map(|ids| format!("--private-users={ids}")));
        args.extend(self.insecure.flags());
        Ok(args)
    }

    /// Undoes what an add has done so far, whether it failed or was interrupted.
    fn undo(&self, app: &AcName) -> Result<()> {
        self.clear(app)?;
        self.locked.undo_add(app)
    }

    /// Undoes the adds that did not come to their end, and tells of which apps.
    pub(super) fn undo_interrupted(&self) -> Result<Vec<AcName>> {
        let interrupted = self.locked.interrupted_adds()?;
        for app in &interrupted {
            self.undo(app).context(|| format!("undo the interrupted adding of app {app}"))?;
        }
        Ok(interrupted)
    }

    /// Removes what is left of an app that the manifest does not list any more.
    pub(super) fn clear_leftovers(&self, app: &AcName) -> Result<bool> {
        let there = AppFiles::new(self.pod.dir(), app).exist();
        if there {
            self.clear(app).context(|| format!("remove what was left of an earlier app {app}"))?;
        }
        Ok(there)
    }

    fn clear(&self, app: &AcName) -> Result<()> {
        let files = AppFiles::new(self.pod.dir(), app);
        // app-rm knows what app-add has made; before app-add there is nothing that it would have to remove
        if files.exist() {
            self.inside(app).remove()?;
        }
        files.remove()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_whose_files_would_clash_are_told_apart() {
        let name = |text: &str| text.parse::<AcName>().unwrap();
        assert!(share_status_files(&name("a"), &name("a-started")));
        assert!(share_status_files(&name("a-created"), &name("a")));
        assert!(!share_status_files(&name("a"), &name("b-started")));
        assert!(!share_status_files(&name("started"), &name("a")));
    }
}
