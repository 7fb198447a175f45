//! The first content of a named volume: what the image of the first app has in its place, with its owner and mode.

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

/// Fills the named volumes that an app is the first to mount, from its root file system at `root`; makes those that
/// are missing. `ids` are those of the pod.
///
/// # Errors
/// A volume can't be made or filled. It is filled anew by the next app then.
pub fn first_content(
    store: &Store,
    manifest: &PodManifest,
    app: &RuntimeApp,
    root: &Path,
    ids: Option<UidRange>,
) -> Result<()> {
    let is_named = |source: &Option<String>| source.as_deref().and_then(|source| named::of_source(store, source));
    // most apps have none: then the root is not even opened
    let mut all = app.mounts.iter().filter_map(|mount| mount.app_volume.as_ref()).chain(&manifest.volumes);
    if !all.any(|volume| is_named(&volume.source).is_some()) {
        return Ok(());
    }
    let root = dir::open_dir(root)?;
    let none = App::default();
    let own = app.app.as_ref().unwrap_or(&none);
    let place = |path: &Path| dir::canonical_in(&root, path);
    for mapping in volumes::resolve(app, own, &manifest.volumes, place)? {
        if let Some(name) = is_named(&mapping.volume.source) {
            fill(store, &name, &root, &mapping.target, ids).context(|| format!("volume {name}"))?;
        }
    }
    Ok(())
}

fn fill(store: &Store, name: &VolumeName, root: &OwnedFd, target: &Path, ids: Option<UidRange>) -> Result<()> {
    loop {
        named::ensure(store, name, &BTreeMap::new())?;
        let Some(volume) = named::find(store, name)? else { continue };
        // it may be removed while this waits
        let Some(_lock) = named::lock(&volume)? else { continue };
        let Some(volume) = named::find(store, name)? else { continue };
        return fill_locked(volume, root, target, ids);
    }
}

fn fill_locked(mut volume: NamedVolume, root: &OwnedFd, target: &Path, ids: Option<UidRange>) -> Result<()> {
    let data = volume.data();
    match volume.info.content {
        Content::Used => return Ok(()),
        // somebody has put something in before: that is its content
        Content::Fresh if !names_in(&data)?.is_empty() => return volume.note(Content::Used),
        Content::Fresh => {}
        // no app has seen it yet
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

/// Copies a directory of an app's root, which has shifted owners in a pod with ids of its own; the volume has none.
fn copy_to(content: &OwnedFd, data: &Path, ids: Option<UidRange>) -> Result<()> {
    let data = dir::open_dir_for_reading(data)?;
    match ids {
        Some(ids) => copy::tree_from(content, &data, ids),
        None => copy::tree(content, &data, None),
    }
}
