//! Volumes that an app mounts by name: a volume of the pod, or else a named volume, which is made if it is missing.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use serde_json::Map;
use stage1::appc::{AcName, HOST_IDS, Mount, PROPAGATION, READ_ONLY_BELOW, RuntimeApp, Volume, VolumeKind};
use stage1::error::{Context, Error, Result};
use stage1::sys::mount::Propagation;

use crate::store::Store;
use crate::volume::name::VolumeName;
use crate::volume::named;

/// A mount of a volume by its name.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The name of a volume of the pod, or of a named volume.
    pub volume: VolumeName,
    /// The absolute mount point in the app.
    pub path: String,
    /// Whether to mount it read-only.
    pub read_only: bool,
}

/// Adds `binds` to the app's mounts; `of_pod` are the pod's volumes.
///
/// # Errors
/// A named volume can't be made, its path is not UTF-8, or a mount point has no ASCII letter or digit.
pub fn place(store: &Store, of_pod: &[Volume], binds: &[Bind], app: &mut RuntimeApp) -> Result<()> {
    for bind in binds {
        let mount = match of_pod.iter().find(|volume| volume.name.as_ref() == bind.volume.as_str()) {
            Some(volume) => {
                let read_only = bind.read_only.then(|| Volume { read_only: Some(true), ..volume.clone() });
                Mount { volume: volume.name.clone(), path: bind.path.clone(), app_volume: read_only, other: Map::new() }
            }
            None => {
                named::ensure(store, &bind.volume, &BTreeMap::new())?;
                let source = named::source(store, &bind.volume);
                let source = source.to_str().context(|| format!("{source:?} is not UTF-8: no manifest can have it"))?;
                host(&bind.path, source, bind.read_only)?
            }
        };
        app.mounts.push(mount);
    }
    Ok(())
}

/// A mount of the host path `source` at `target`, for one app only.
///
/// # Errors
/// `target` gives no valid volume name, see [`name`].
pub fn host(target: &str, source: &str, read_only: bool) -> Result<Mount> {
    Ok(host_named(name("host", target)?, target, source, read_only))
}

/// [`host`] with the name of the volume.
pub fn host_named(name: AcName, target: &str, source: &str, read_only: bool) -> Mount {
    let volume = Volume {
        name: name.clone(),
        kind: VolumeKind::Host,
        source: Some(source.to_owned()),
        read_only: Some(read_only),
        recursive: None,
        mode: None,
        uid: None,
        gid: None,
        other: Map::new(),
    };
    Mount { volume: name, path: target.to_owned(), app_volume: Some(volume), other: Map::new() }
}

/// The mount with this propagation, if given. With `below_as_it_is`, mounts below a read-only path of the host keep
/// their own flags.
pub fn with_ways(mut mount: Mount, propagation: Option<Propagation>, below_as_it_is: bool) -> Mount {
    let other = mount.app_volume.as_mut().map(|volume| &mut volume.other);
    if let Some(other) = other {
        let word = propagation.map(|propagation| match propagation {
            Propagation::Private => "private",
            Propagation::Slave => "slave",
            Propagation::Shared => "shared",
        });
        other.extend(word.map(|word| (PROPAGATION.to_owned(), word.into())));
        other.extend(below_as_it_is.then(|| (READ_ONLY_BELOW.to_owned(), false.into())));
    }
    mount
}

/// The mount whose files keep the owners that they have on the host, also in a pod with ids of its own.
pub fn with_host_ids(mut mount: Mount) -> Mount {
    if let Some(volume) = mount.app_volume.as_mut() {
        volume.other.insert(HOST_IDS.to_owned(), true.into());
    }
    mount
}

/// Whether a path of the host, with links followed, is the node of a character or block device.
///
/// # Errors
/// The path does not exist, or can't be looked at.
pub fn is_device(source: &str) -> Result<bool> {
    let kind = Path::new(source).metadata().context(|| format!("the device {source:?}"))?.file_type();
    Ok(kind.is_char_device() || kind.is_block_device())
}

/// An absolute path without `..` and without line breaks.
///
/// # Errors
/// The text is not such a path.
pub fn absolute(text: &str) -> Result<String> {
    let path = Path::new(text);
    let plain = path.components().all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && !text.contains(['\n', '\0']) {
        Ok(text.to_owned())
    } else {
        Err(Error::new(format!("{text:?} is not an absolute path without \"..\"")))
    }
}

/// The name of an unnamed volume that is mounted at `target`: `host-srv-data` for `host` and `/srv/data`.
///
/// # Errors
/// `prefix` and the ASCII letters and digits of `target` do not make an AC name.
pub fn name(prefix: &str, target: &str) -> Result<AcName> {
    let words: String =
        target.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let words: Vec<&str> = [prefix].into_iter().chain(words.split('-').filter(|word| !word.is_empty())).collect();
    words.join("-").parse().map_err(|_| Error::new(format!("{target:?} can't be mounted on")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_volumes_go_before_named_ones() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        let of_pod: Vec<Volume> = serde_json::from_str(r#"[{"name":"data","kind":"empty"}]"#).unwrap();
        let mut app: RuntimeApp = serde_json::from_str(r#"{"name":"a","image":{"id":"x"}}"#).unwrap();
        let bind = |volume: &str, path: &str, read_only| Bind {
            volume: volume.parse().unwrap(),
            path: path.to_owned(),
            read_only,
        };
        let binds = [bind("data", "/a", false), bind("data", "/b", true), bind("pg_data", "/c", true)];
        place(&store, &of_pod, &binds, &mut app).unwrap();
        assert_eq!(app.mounts[0].app_volume, None);
        let own = app.mounts[1].app_volume.as_ref().unwrap();
        assert_eq!((own.name.as_ref(), own.kind, own.read_only), ("data", VolumeKind::Empty, Some(true)));
        let named_one = app.mounts[2].app_volume.as_ref().unwrap();
        assert_eq!((named_one.name.as_ref(), named_one.read_only), ("host-c", Some(true)));
        let source = named_one.source.as_deref().unwrap();
        assert_eq!(named::of_source(&store, source), Some("pg_data".parse().unwrap()));
        assert!(std::path::Path::new(source).is_dir());
        assert_eq!(named::list(&store).unwrap().len(), 1, "none is made for the pod's");
    }
}
