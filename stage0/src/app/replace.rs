//! Replacing an app of a running pod by one with another image or other options.

use stage1::appc::AcName;
use stage1::error::{Context, Error, Result};

use super::add::add;
use super::files::SetAside;
use super::health;
use super::kept::AppRecord;
use super::lifecycle;
use super::options::AddOptions;
use super::status;
use crate::image::store::find::find;
use crate::image::tree as trees;
use crate::poddir::find::Pod;
use crate::store::Store;

/// Replaces an app by one with the old app's options, changed by `changes`. The new app is started if the old one ran.
/// Volumes stay; the files that the old app wrote to its root are removed.
///
/// # Errors
/// The old app's options were not recorded, an option is invalid or an image is missing: nothing is changed then. Or
/// the new app can't be added or started: then the old one is put back, with the files it had written, and is started
/// if it ran.
pub fn replace(store: &Store, pod: &Pod, app: &AcName, changes: AddOptions, debug: bool) -> Result<()> {
    let before = AppRecord::new(pod.dir(), app).options()?.context(|| {
        format!(
            "how app {app} was added is not known: an older version or another host manager did that; \"podctl app rm\" \
             and \"podctl app add\" replace it"
        )
    })?;
    let old = AddOptions {
        // the image's name may belong to another image by now
        image: before.image_id.clone().unwrap_or_else(|| before.image.clone()),
        name: Some(app.to_string()),
        debug,
        ..before.clone()
    };
    let new = AddOptions { name: Some(app.to_string()), debug, ..before.changed_by(changes) };
    // find all errors that can be found before the old app is stopped
    let image = find(store, &new.image)?;
    health::give(store, &image, &new.health, &mut new.runtime_app(&image)?)?;
    drop(trees::ensure(store, &image.id)?);
    find(store, &old.image).context(|| {
        format!("the old app could not be put back if the new one failed: import the image of app {app} again")
    })?;
    let runs = status::status(pod, app)?.state == "running";
    let wanted = AppRecord::new(pod.dir(), app).is_wanted();

    let mut aside = None;
    lifecycle::remove_but(store, pod, app, true, debug, |files| {
        aside = Some(files.set_aside()?);
        Ok(())
    })?;
    let start = |options: &AddOptions| {
        add(store, pod, options)?;
        if runs { lifecycle::start(store, pod, app, debug) } else { AppRecord::new(pod.dir(), app).set_wanted(wanted) }
    };
    let Err(error) = start(&new) else { return aside.map_or(Ok(()), SetAside::forget) };
    let back = || {
        if status::list(pod)?.iter().any(|listed| listed.name == app.as_ref()) {
            lifecycle::rm(store, pod, app, true, debug)?;
        }
        aside.map_or(Ok(()), SetAside::put_back)?;
        start(&old)
    };
    match back() {
        Ok(()) => Err(Error::new(format!("{}; the old app is back", error.one_line()))),
        Err(also) => {
            Err(Error::new(format!("{}; putting the old app back failed, too: {}", error.one_line(), also.one_line())))
        }
    }
}
