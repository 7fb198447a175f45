//! Removing named volumes that no pod uses.

use stage1::error::{Context, Error, Result};

use super::name::VolumeName;
use super::named::{list, lock, must_find, volumes};
use super::users;
use crate::fsutil::dir::names_in;
use crate::fsutil::remove;
use crate::store::Store;

/// The start of the name of a volume that is being removed; no volume's own name begins with a dot.
const REMOVED: &str = ".removed-";

/// Removes a volume and its content.
///
/// # Errors
/// The volume does not exist, a pod uses it (the message names all), or a file of it can't be removed.
pub fn rm(store: &Store, name: &VolumeName) -> Result<()> {
    let volume = must_find(store, name)?;
    let Some(_lock) = lock(&volume)? else { return Ok(()) };
    let users = users::of(store, name)?;
    if !users.is_empty() {
        let shown: Vec<String> = users.iter().map(ToString::to_string).collect();
        return Err(Error::new(format!("volume {name} is in use by {}", shown.join(", "))));
    }
    // rename it first: prune and gc remove the files if this process is killed
    let gone = volumes(store).join(format!("{REMOVED}{}", uuid::Uuid::new_v4()));
    std::fs::rename(volume.dir(), &gone).context(|| format!("rename {:?} to {gone:?}", volume.dir()))?;
    remove::tree(&gone)
}

/// Removes what interrupted removals of volumes have left.
///
/// # Errors
/// A file can't be removed.
pub fn finish_interrupted(store: &Store) -> Result<()> {
    for name in names_in(&volumes(store))? {
        if name.to_str().is_some_and(|name| name.starts_with(REMOVED)) {
            remove::tree(&volumes(store).join(name))?;
        }
    }
    Ok(())
}

/// Removes the volumes that no pod uses, and the remains of interrupted removals; returns the names of the volumes.
///
/// # Errors
/// A volume or a pod can't be read, or volumes can't be removed: the message lists them, and all others are removed.
pub fn prune(store: &Store) -> Result<Vec<VolumeName>> {
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    finish_interrupted(store)?;
    for volume in list(store)? {
        if !users::of(store, &volume.name)?.is_empty() {
            continue;
        }
        match rm(store, &volume.name) {
            Ok(()) => removed.push(volume.name),
            // a pod has begun to use it
            Err(_) if users::of(store, &volume.name).is_ok_and(|users| !users.is_empty()) => {}
            Err(error) => failed.push(format!("volume {}: {}", volume.name, error.one_line())),
        }
    }
    if failed.is_empty() { Ok(removed) } else { Err(Error::new(failed.join("; "))) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::volume::named::ensure;

    #[test]
    fn a_volume_is_removed_whole() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        let [one, other]: [VolumeName; 2] = ["one", "other"].map(|name| name.parse().unwrap());
        for name in [&one, &other] {
            ensure(&store, name, &BTreeMap::new()).unwrap();
            std::fs::write(must_find(&store, name).unwrap().data().join("file"), "kept").unwrap();
        }
        rm(&store, &one).unwrap();
        assert!(rm(&store, &one).unwrap_err().one_line().contains("there is no volume one"));
        // a removal that was interrupted
        std::fs::create_dir_all(volumes(&store).join(".removed-x/data")).unwrap();
        assert_eq!(prune(&store).unwrap(), [other]);
        assert_eq!(volumes(&store).read_dir().unwrap().count(), 0);
    }
}
