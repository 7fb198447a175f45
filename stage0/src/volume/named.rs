//! Making, finding and listing named volumes.
//!
//! A volume is the directory `volumes/NAME` of the data directory, with `data`, which apps see, and the record
//! `volume.json`. It appears by one rename. A process that fills or removes a volume holds the lock of its directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use stage1::error::{Context, Error, Result};

use super::name::VolumeName;
use crate::fsutil::atomic::write;
use crate::fsutil::dir::{PRIVATE, make_dir, names_in, sync_dir};
use crate::fsutil::lock::{self, Taken};
use crate::fsutil::time::nanoseconds;
use crate::store::Store;

/// The directory that apps see, in a volume's directory.
const DATA: &str = "data";
/// The record, in a volume's directory.
const INFO: &str = "volume.json";

/// The state of a volume's first content.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// No app has mounted it yet.
    Fresh,
    /// An app's start is copying the image's content into it, or was interrupted.
    Filling,
    /// It was filled: apps own the content.
    #[default]
    Used,
}

/// The record of a volume.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// When it was made, in nanoseconds since 1970.
    pub created_at: i64,
    /// The user's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The state of its first content.
    #[serde(default)]
    pub content: Content,
}

/// A volume.
#[derive(Clone, Debug)]
pub struct NamedVolume {
    /// Its name.
    pub name: VolumeName,
    /// Its record.
    pub info: VolumeRecord,
    dir: PathBuf,
}

impl NamedVolume {
    /// The path on the host of the directory that apps see.
    pub fn data(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// Its directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Records the state of its content, and syncs the record to disk.
    pub(super) fn note(&mut self, content: Content) -> Result<()> {
        self.info.content = content;
        write_info(&self.dir, &self.info)?;
        sync_dir(&self.dir)
    }
}

fn write_info(dir: &Path, info: &VolumeRecord) -> Result<()> {
    write(&dir.join(INFO), &serde_json::to_vec(info).context(|| "write what is known of a volume")?, 0o640)
}

/// The directory of all volumes.
pub(super) fn volumes(store: &Store) -> PathBuf {
    store.dir().join("volumes")
}

/// The `source` of a named volume in pod manifests: the path of its data on the host.
pub fn source(store: &Store, name: &VolumeName) -> PathBuf {
    volumes(store).join(name.as_str()).join(DATA)
}

/// The name of the volume with this `source`; `None` for another path of the host.
pub fn of_source(store: &Store, source: &str) -> Option<VolumeName> {
    let rest = Path::new(source).strip_prefix(volumes(store)).ok()?;
    rest.to_str()?.strip_suffix(DATA)?.strip_suffix('/')?.parse().ok()
}

/// The volume with this name; `None` if it does not exist.
///
/// # Errors
/// Its record can't be read or is damaged.
pub fn find(store: &Store, name: &VolumeName) -> Result<Option<NamedVolume>> {
    let dir = volumes(store).join(name.as_str());
    let path = dir.join(INFO);
    let json = match std::fs::read(&path) {
        Ok(json) => json,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::caused_by(format!("read {path:?}"), error)),
    };
    let info = serde_json::from_slice(&json).context(|| format!("{path:?}"))?;
    Ok(Some(NamedVolume { name: name.clone(), info, dir }))
}

/// The volume with this name, which must exist.
///
/// # Errors
/// No volume has the name, or its record can't be read or is damaged.
pub fn must_find(store: &Store, name: &VolumeName) -> Result<NamedVolume> {
    find(store, name)?.context(|| format!("there is no volume {name}: \"podctl volume list\" shows all"))
}

/// All volumes, in the order of their names.
///
/// # Errors
/// The directory or a record can't be read, or a record is damaged.
pub fn list(store: &Store) -> Result<Vec<NamedVolume>> {
    let names = names_in(&volumes(store))?;
    let mut names: Vec<VolumeName> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    names.sort();
    names.iter().filter_map(|name| find(store, name).transpose()).collect()
}

/// Makes a volume if it does not exist; returns whether it made it.
///
/// # Errors
/// The volume can't be made.
pub fn ensure(store: &Store, name: &VolumeName, labels: &BTreeMap<String, String>) -> Result<bool> {
    if find(store, name)?.is_some() {
        return Ok(false);
    }
    let make = || {
        let dir = volumes(store).join(name.as_str());
        let new = store.temporary_dir()?;
        let whole = new.path().join(name.as_str());
        make_dir(&whole, PRIVATE)?;
        let data = whole.join(DATA);
        std::fs::DirBuilder::new().mode(0o755).create(&data).context(|| format!("make directory {data:?}"))?;
        let created_at = nanoseconds(SystemTime::now());
        write_info(&whole, &VolumeRecord { created_at, labels: labels.clone(), content: Content::Fresh })?;
        sync_dir(&whole)?;
        make_dir(&volumes(store), PRIVATE)?;
        match std::fs::rename(&whole, &dir) {
            Ok(()) => sync_dir(&volumes(store)).map(|()| true),
            // another process has made it
            Err(_) if find(store, name)?.is_some() => Ok(false),
            Err(error) => Err(Error::caused_by(format!("rename {whole:?} to {dir:?}"), error)),
        }
    };
    make().context(|| format!("make volume {name}"))
}

/// Takes the lock of a volume, held until the file is dropped; `None` if the volume is gone.
pub(super) fn lock(volume: &NamedVolume) -> Result<Option<File>> {
    let dir = volume.dir();
    let taken =
        lock::directory(dir, |file| lock::wait(file, dir, lock::Kind::Exclusive, lock::ENTRYPOINTS).map(|()| true))?;
    Ok(match taken {
        Taken::Now(lock) => Some(lock),
        Taken::ByOthers | Taken::Gone => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_once() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        let name: VolumeName = "data".parse().unwrap();
        assert!(list(&store).unwrap().is_empty() && must_find(&store, &name).is_err());
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        assert!(ensure(&store, &name, &labels).unwrap());
        assert!(!ensure(&store, &name, &BTreeMap::new()).unwrap());
        let volume = must_find(&store, &name).unwrap();
        assert_eq!((volume.info.content, &volume.info.labels), (Content::Fresh, &labels));
        assert_eq!(volume.data(), source(&store, &name));
        assert_eq!(of_source(&store, volume.data().to_str().unwrap()), Some(name.clone()));
        for other in ["/srv/data", "volumes/data/data", base.path().join("volumes/data").to_str().unwrap()] {
            assert_eq!(of_source(&store, other), None, "{other}");
        }
    }
}
