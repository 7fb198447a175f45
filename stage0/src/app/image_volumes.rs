//! Volumes that show the files of an image to an app, read-only.
//!
//! The files are mounted (or copied, in a pod without overlays) in the app's directory on the host, where they go with
//! the app. The app's record names their trees, so that they are not removed from the store and can be mounted again.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stage1::appc::{AcName, Mount, RuntimeApp, SUB_PATH};
use stage1::error::{Context, Error, Result};
use stage1::layout;

use super::mounts;
use crate::fsutil::atomic::write;
use crate::fsutil::dir::make_dir;
use crate::image::store::find;
use crate::image::tree as trees;
use crate::rootfs::Roots;
use crate::store::Store;

/// An image that an app has mounted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ImageMount {
    /// The image's name, id, or the start of its id.
    pub image: String,
    /// The absolute mount point in the app.
    pub path: String,
    /// The part of the image that is mounted, as a relative path; `None` for the whole image.
    pub sub_path: Option<String>,
}

/// Adds the mounts to the app of the pod in the directory `pod`. [`note`] and [`mount`] make their sources.
///
/// # Errors
/// A path is not absolute, or not UTF-8, or a part is not a path below the image.
pub(super) fn place(pod: &Path, wanted: &[ImageMount], app: &mut RuntimeApp) -> Result<()> {
    for (number, ImageMount { path, sub_path, .. }) in wanted.iter().enumerate() {
        let source = source(pod, &app.name, number);
        let source = source.to_str().context(|| format!("{source:?} is not UTF-8: no manifest can have it"))?;
        let name = format!("image-{number}").parse()?;
        let mut mount: Mount = mounts::with_host_ids(mounts::host_named(name, path, source, true));
        mount.other.extend(sub_path.clone().map(|part| (SUB_PATH.to_owned(), part.into())));
        mount.sub_path()?;
        app.mounts.push(mount);
    }
    Ok(())
}

/// Writes the trees of the images to the app's record. Each is verified.
///
/// # Errors
/// An image is not in the store, its tree is damaged and can't be rendered again, or the record can't be written.
pub(super) fn note(store: &Store, pod: &Path, app: &AcName, wanted: &[ImageMount]) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    make_dir(&pod.join(layout::app_info(app)), 0o750)?;
    let mut noted = String::new();
    for mount in wanted {
        let image = find::find(store, &mount.image).context(|| format!("volume at {:?}", mount.path))?;
        // held until it is noted
        let tree = trees::ensure(store, &image.id)?;
        noted.push_str(tree.id());
        noted.push('\n');
        write(&pod.join(layout::app_image_volumes(app)), noted.as_bytes(), 0o640)?;
    }
    Ok(())
}

/// Mounts the noted trees where the app's manifest expects them.
///
/// # Errors
/// The record can't be read, a tree is damaged and can't be rendered again, or a mount fails.
pub(super) fn mount(store: &Store, pod: &Path, app: &AcName) -> Result<()> {
    let noted = noted(pod, app)?;
    if noted.is_empty() {
        return Ok(());
    }
    make_dir(&dir(pod, app), 0o750)?;
    let roots = Roots::of(pod)?;
    for (number, tree) in noted.iter().enumerate() {
        let _held = trees::ensure_noted(store, tree)?;
        roots.show(store, tree, &source(pod, app, number))?;
    }
    Ok(())
}

/// The trees in the record of an app.
fn noted(pod: &Path, app: &AcName) -> Result<Vec<String>> {
    let path = pod.join(layout::app_image_volumes(app));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::caused_by(format!("read {path:?}"), error)),
    }
}

fn dir(pod: &Path, app: &AcName) -> PathBuf {
    pod.join(layout::app_dir(app)).join("images")
}

fn source(pod: &Path, app: &AcName, number: usize) -> PathBuf {
    dir(pod, app).join(number.to_string())
}
