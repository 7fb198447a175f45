//! What Kubernetes calls a sandbox or a container, kept in the manifests: its labels are the user's labels, its
//! annotations the user's annotations, and the rest is one more of these, as JSON.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stage1::error::Context;

use crate::fault::{Fault, Result};

/// User annotation with a [`Sandbox`], or a [`Container`].
const KEY: &str = "podctl.io/cri";

/// What is kept of a sandbox besides labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's UID.
    pub uid: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// The runtime class's handler.
    #[serde(default)]
    pub handler: String,
    /// Modes of its network, PID and IPC namespaces, as the API numbers them.
    pub namespaces: [i32; 3],
    /// Where its containers' logs are.
    #[serde(default)]
    pub log_directory: String,
}

/// What is kept of a container besides labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its name in the pod.
    pub name: String,
    /// How many containers of this name there were before.
    pub attempt: u32,
    /// The image as it was asked for.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// Its log, below the sandbox's directory.
    #[serde(default)]
    pub log_path: String,
    /// What of the host it sees.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The signal that asks it to end, as the API numbers it; 0 is the image's.
    #[serde(default)]
    pub stop_signal: i32,
}

/// A path of the host in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where the container sees it.
    pub container_path: String,
    /// Where it is.
    pub host_path: String,
    /// It can only be read.
    pub readonly: bool,
    /// Its propagation, as the API numbers it.
    pub propagation: i32,
}

/// Labels, or annotations.
pub type Texts = HashMap<String, String>;

/// The user's annotations of a manifest: the client's, and the record.
///
/// # Errors
/// One of the client's has the record's name.
pub fn annotations(record: &impl Serialize, given: &Texts) -> Result<BTreeMap<String, String>> {
    if given.contains_key(KEY) {
        return Err(Fault::invalid(format!("the annotation {KEY} is this runtime's own")));
    }
    let text = serde_json::to_string(record).context(|| "write a record")?;
    let mut all = labels(given);
    all.insert(KEY.to_owned(), text);
    Ok(all)
}

/// The user's labels of a manifest.
pub fn labels(given: &Texts) -> BTreeMap<String, String> {
    given.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Either as a manifest has them.
pub fn in_manifest(texts: BTreeMap<String, String>) -> Map<String, Value> {
    texts.into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// The record among the user's annotations of a manifest; `None` if there is none: it is not Kubernetes'.
///
/// # Errors
/// It is damaged.
pub fn read<T: DeserializeOwned>(annotations: &Map<String, Value>) -> Result<Option<T>> {
    match annotations.get(KEY).and_then(Value::as_str) {
        Some(text) => Ok(Some(serde_json::from_str(text).context(|| format!("annotation {KEY}"))?)),
        None => Ok(None),
    }
}

/// The client's labels or annotations of a manifest.
pub fn given(all: &Map<String, Value>) -> Texts {
    let texts = all.iter().filter(|(name, _)| *name != KEY);
    texts.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// Whether `all` has every label of `selector`.
pub fn fits(selector: &Texts, all: &Map<String, Value>) -> bool {
    selector.iter().all(|(name, value)| all.get(name).and_then(Value::as_str) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read() {
        let record = Sandbox { name: "web".into(), attempt: 2, namespaces: [0, 1, 2], ..Sandbox::default() };
        let given_ones: Texts = [("a".to_owned(), "1".to_owned())].into();
        let all = in_manifest(annotations(&record, &given_ones).unwrap());
        assert_eq!(read::<Sandbox>(&all).unwrap(), Some(record.clone()));
        assert_eq!(given(&all), given_ones);
        assert!(fits(&given_ones, &all) && !fits(&[("a".to_owned(), "2".to_owned())].into(), &all));
        assert_eq!(read::<Sandbox>(&in_manifest(labels(&given_ones))).unwrap(), None);
        let taken: Texts = [(KEY.to_owned(), String::new())].into();
        assert!(annotations(&record, &taken).is_err());
        assert!(read::<Sandbox>(&in_manifest(labels(&taken))).is_err());
    }
}
