//! The first content of a named volume: a copy of the image's directory where the first app mounts the volume, with its
//! owner and mode.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::OFlags;
use stage1::appc::{App, PodManifest, RuntimeApp};
use stage1::error::{Context, Result};
use stage1::rootfs::{copy, volumes};
use stage1::sys::dir;
use stage1::uid_range::UidRange;

use super::name::VolumeName;
use super::named::{self, Content, NamedVolume};
use crate::fsutil::dir::{names_in, sync_file_system};
use crate::fsutil::remove;
use crate::store::Store;

/// Fills the named volumes that an app is the first to mount, from its root file system at `root`; makes those that do
/// not exist. `ids` are the user ids of the pod.
///
/// # Errors
/// A volume can't be made or filled; the next app that mounts it fills it anew then.
pub fn first_content(
    store: &Store,
    manifest: &PodManifest,
    app: &RuntimeApp,
    root: &Path,
    ids: Option<UidRange>,
) -> Result<()> {
    let is_named = |source: &Option<String>| source.as_deref().and_then(|source| named::of_source(store, source));
    // most apps have no named volume
    let mut all = app.mounts.iter().filter_map(|mount| mount.app_volume.as_ref()).chain(&manifest.volumes);
    if !all.any(|volume| is_named(&volume.source).is_some()) {
        return Ok(());
    }
    let root = dir::open_dir(root)?;
    let none = App::default();
    let own = app.app.as_ref().unwrap_or(&none);
    let place = |path: &Path| dir::canonical_in(&root, path);
    for mapping in volumes::resolve(app, own, &manifest.volumes, place)? {
        let Some(name) = is_named(&mapping.volume.source) else { continue };
        if mapping.part.is_some() {
            // the image's directory there is not the content of the whole volume
            named::ensure(store, &name, &BTreeMap::new())?;
        } else {
            fill(store, &name, &root, &mapping.target, ids).context(|| format!("volume {name}"))?;
        }
    }
    Ok(())
}

fn fill(store: &Store, name: &VolumeName, root: &OwnedFd, target: &Path, ids: Option<UidRange>) -> Result<()> {
    loop {
        named::ensure(store, name, &BTreeMap::new())?;
        let Some(volume) = named::find(store, name)? else { continue };
        // another process may remove the volume while this one waits for the lock
        let Some(_lock) = named::lock(&volume)? else { continue };
        let Some(volume) = named::find(store, name)? else { continue };
        return fill_locked(volume, root, target, ids);
    }
}

fn fill_locked(mut volume: NamedVolume, root: &OwnedFd, target: &Path, ids: Option<UidRange>) -> Result<()> {
    let data = volume.data();
    match volume.info.content {
        Content::Used => return Ok(()),
        // files that the administrator put into the volume stay its content
        Content::Fresh if !names_in(&data)?.is_empty() => return volume.note(Content::Used),
        Content::Fresh => {}
        // filling was interrupted before any app saw the content
        Content::Filling => {
            remove::tree(&data)?;
            std::fs::DirBuilder::new().mode(0o755).create(&data).context(|| format!("make directory {data:?}"))?;
        }
    }
    if let Some(content) = dir::try_open_in(root, target, OFlags::RDONLY)?
        && is_directory(&content)?
    {
        volume.note(Content::Filling)?;
        copy_to(&content, &data, ids).context(|| format!("copy {target:?} of the image"))?;
        sync_file_system(&data)?;
    }
    volume.note(Content::Used)
}

fn is_directory(file: &OwnedFd) -> Result<bool> {
    let stat = rustix::fs::fstat(file).context(|| "fstat")?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Copies a directory of an app's root. In a pod with user ids of its own the root's owners are shifted; the copies
/// have the owners of the image.
fn copy_to(content: &OwnedFd, data: &Path, ids: Option<UidRange>) -> Result<()> {
    let data = dir::open_dir_for_reading(data)?;
    match ids {
        Some(ids) => copy::tree_from(content, &data, ids),
        None => copy::tree(content, &data, None),
    }
}
