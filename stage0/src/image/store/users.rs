//! The pods that use the trees of images.

use std::collections::BTreeMap;
use std::io;

use stage1::error::{Error, Result};
use stage1::layout;

use crate::fsutil::dir::names_in;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::store::Store;

/// The trees that pods use, by tree id, each with the UUIDs of its pods in order.
///
/// # Errors
/// The pods can't be read.
pub fn users(store: &Store) -> Result<BTreeMap<String, Vec<String>>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for mut pod in pods::list(store)? {
        loop {
            for tree in trees_of(&pod)? {
                found.entry(tree).or_default().push(pod.uuid().to_string());
            }
            if pod.dir().exists() {
                break;
            }
            // the pod has moved to another phase meanwhile, or is gone
            match pods::find_whole(store, pod.uuid()) {
                Ok(moved) => pod = moved,
                Err(_) => break,
            }
        }
    }
    for pods in found.values_mut() {
        pods.sort();
        pods.dedup();
    }
    Ok(found)
}

fn trees_of(pod: &Pod) -> Result<Vec<String>> {
    let mut files = vec![pod.dir().join(layout::STAGE1_TREE)];
    let apps = pod.dir().join("appsinfo");
    for app in names_in(&apps)? {
        let info = apps.join(app);
        files.extend([info.join("treeStoreID"), info.join(layout::IMAGE_VOLUMES)]);
    }
    let mut found = Vec::new();
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(trees) => found.extend(trees.lines().map(|tree| tree.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::caused_by(format!("read {file:?}"), error)),
        }
    }
    Ok(found)
}
