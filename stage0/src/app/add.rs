//! Adding an app to a running pod, completely or not at all.

use stage1::appc::{AcName, Mount, PodManifest, RuntimeApp, VolumeKind};
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::pod::events::Event;

use super::files::AppFiles;
use super::host_record::AppRecord;
use super::mounts;
use super::options::AddOptions;
use super::run_entrypoint::ready_pid;
use super::undo_add::Adding;
use super::{groups, health, image_volumes};
use crate::fsutil::dir::must_exist;
use crate::image::store::Image;
use crate::image::store::find;
use crate::poddir::find::Pod;
use crate::poddir::manifest::{Locked, must_be_mutable};
use crate::poddir::uid_range;
use crate::store::Store;

/// Adds an app to a running, mutable pod.
///
/// # Errors
/// The image is not in the store, an option is invalid, or [`add_app`] fails. The pod is unchanged then.
pub fn add(store: &Store, pod: &Pod, options: &AddOptions) -> Result<()> {
    let image = find::find(store, &options.image)?;
    let mut app = options.runtime_app(&image)?;
    health::give(store, &image, &options.health, &mut app)?;
    groups::give(store, &image, options.group_request(), &mut app)?;
    add_app(store, pod, &image, app, options)
}

/// Adds `app`, which was made from `options`, to a running, mutable pod.
///
/// # Errors
/// The pod does not run, is not ready, is paused or is immutable, [`check_addition`] fails, or a file or the app's
/// root can't be made, or app-add fails. The pod is unchanged then, unless the message says that undoing failed, too.
pub fn add_app(store: &Store, pod: &Pod, image: &Image, mut app: RuntimeApp, options: &AddOptions) -> Result<()> {
    let locked = Locked::new(pod.dir())?;
    let adding = Adding { store, pod, pid: ready_pid(pod)?, locked, insecure: options.insecure, debug: options.debug };
    adding.undo_interrupted()?;
    let manifest = adding.locked.read()?;
    must_be_mutable(&manifest)?;
    mounts::place(store, &manifest.volumes, &options.binds, &mut app)?;
    check_addition(&manifest, &app)?;
    image_volumes::place(pod.dir(), &options.image_mounts, &mut app)?;
    adding.clear_leftovers(&app.name)?;
    adding.locked.begin_add(&app.name)?;
    match steps(&adding, image, manifest, &app, options).and_then(|()| adding.locked.commit_add(&app.name)) {
        Ok(()) => {
            Event::now("added", Some(&app.name)).note(pod.dir(), layout::EVENTS);
            Ok(())
        }
        Err(error) => Err(match adding.undo(&app.name) {
            Ok(()) => error,
            Err(also) => Error::new(format!("{}; undoing it failed, too: {}", error.one_line(), also.one_line())),
        }),
    }
}

/// Fails if the app conflicts with the pod's manifest.
///
/// # Errors
/// The pod has an app of this name or one whose status files would clash, or a mount's volume is not in the manifest or
/// its source does not exist.
pub fn check_addition(manifest: &PodManifest, app: &RuntimeApp) -> Result<()> {
    if manifest.app(&app.name).is_some() {
        return Err(Error::new(format!("the pod already has an app {}", app.name)));
    }
    for other in &manifest.apps {
        if share_status_files(&other.name, &app.name) {
            return Err(Error::new(format!(
                "apps {} and {} would share a status file: choose another name with --name",
                app.name, other.name
            )));
        }
    }
    app.mounts.iter().try_for_each(|mount| check_mount(manifest, mount))
}

/// Whether a marker of one app (`APP-created`, `APP-started`) has the name of the other's status file.
fn share_status_files(a: &AcName, b: &AcName) -> bool {
    let one_way = |a: &AcName, b: &AcName| {
        ["-created", "-started"].iter().any(|suffix| a.as_ref().strip_suffix(suffix) == Some(b.as_ref()))
    };
    one_way(a, b) || one_way(b, a)
}

fn check_mount(manifest: &PodManifest, mount: &Mount) -> Result<()> {
    let of_pod = || manifest.volumes.iter().find(|volume| volume.name == mount.volume);
    let volume = mount.app_volume.as_ref().or_else(of_pod);
    let volume = volume.context(|| {
        format!("the pod has no volume {}: a pod gets its volumes when it is made, by --volume", mount.volume)
    })?;
    match (volume.kind, &volume.source) {
        (VolumeKind::Host, Some(source)) => must_exist(source).context(|| format!("volume {}", volume.name)),
        _ => Ok(()),
    }
}

/// Adds the app to the manifest and makes its files; app-add, which makes those inside the pod, comes last.
fn steps(
    adding: &Adding<'_>,
    image: &Image,
    mut manifest: PodManifest,
    app: &RuntimeApp,
    options: &AddOptions,
) -> Result<()> {
    let files = AppFiles::new(adding.pod.dir(), &app.name);
    image_volumes::note(adding.store, adding.pod.dir(), &app.name, &options.image_mounts)?;
    let tree = files.write_info(adding.store, image)?;
    AppRecord::new(adding.pod.dir(), &app.name).keep_of(image, options)?;
    // before its volumes are filled: a volume that a manifest names is not removed
    manifest.apps.push(app.clone());
    adding.locked.write(&manifest)?;
    if let Some(secrets) = options.secrets() {
        secrets.put_in_place(adding.pod.dir())?;
    }
    files.put_in_place(adding.store, app, Some(tree))?;
    image_volumes::mount(adding.store, adding.pod.dir(), &app.name)?;
    files.mark_created()?;
    adding.inside(&app.name).add(&arguments(adding.pod, adding.insecure)?)
}

/// The arguments of app-add besides `--app`.
pub(super) fn arguments(pod: &Pod, insecure: InsecureOptions) -> Result<Vec<String>> {
    let mut args = vec![format!("--uuid={}", pod.uuid())];
    args.extend(uid_range::of_pod(pod.dir())?.map(|ids| format!("--private-users={ids}")));
    args.extend(insecure.flags());
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_whose_status_files_would_clash_are_found() {
        let name = |text: &str| text.parse::<AcName>().unwrap();
        assert!(share_status_files(&name("a"), &name("a-started")));
        assert!(share_status_files(&name("a-created"), &name("a")));
        assert!(!share_status_files(&name("a"), &name("b-started")));
        assert!(!share_status_files(&name("started"), &name("a")));
    }
}
