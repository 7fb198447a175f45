//! Changing the limits of an app of a running pod, at once and for its later starts.

use stage1::appc::{AcName, Isolator, Isolators};
use stage1::error::{Context, Error, Result};

use super::host_record::AppRecord;
use super::options;
use super::run_entrypoint::{Inside, ready_pid};
use crate::entrypoint::spawn::{Entrypoint, Stage1};
use crate::poddir::find::Pod;
use crate::poddir::manifest::{Locked, NoApp};
use crate::store::Store;

/// Changes the limits of an app to `limits`; its other limits stay.
///
/// # Errors
/// `limits` is empty, the pod is not ready, has another stage1 or has no such app, a limit is invalid, or app-add can't
/// apply it: the old limits stay then.
pub fn update(store: &Store, pod: &Pod, app: &AcName, limits: &[Isolator], debug: bool) -> Result<()> {
    if limits.is_empty() {
        return Err(Error::new("nothing is to be changed: give a limit, such as --memory 64m"));
    }
    let pid = ready_pid(pod)?;
    if !Stage1::of(store, pod.dir())?.is_ours() {
        return Err(Error::new("the pod is run by another stage1, which knows no other limits for an app that runs"));
    }
    let locked = Locked::new(pod.dir())?;
    let before = locked.read()?;
    before.app(app).with_no_app(pod, app)?;
    let mut manifest = before.clone();
    let listed = manifest.apps.iter_mut().find(|other| other.name == *app);
    let declared =
        listed.and_then(|listed| listed.app.as_mut()).context(|| format!("app {app} is as its image says"))?;
    options::replace_isolators(&mut declared.isolators, limits);
    Isolators::parse(&declared.isolators)?;
    locked.write(&manifest)?;
    let inside = Inside { store, pod, pid, app, lock: Some(locked.lock()), debug };
    let args = [format!("--uuid={}", pod.uuid()), "--update".to_owned()];
    let updated = inside.cross(Entrypoint::AppAdd, &args, None).and_then(|outcome| outcome.success());
    if let Err(error) = updated {
        locked.write(&before)?;
        return Err(error);
    }
    let record = AppRecord::new(pod.dir(), app);
    if let Some(mut options) = record.options()? {
        options::replace_isolators(&mut options.isolators, limits);
        record.keep(&options)?;
    }
    Ok(())
}
