//! What Kubernetes says of a sandbox or a container, kept in manifests: labels as user labels, annotations as user
//! annotations, and the rest as JSON in one more user annotation.

use std::collections::{BTreeMap, HashMap};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stage1::error::Context;

use crate::fault::{Fault, Result};

/// The user annotation with a [`Sandbox`] or a [`Container`] as JSON.
const KEY: &str = "podctl.io/cri";

/// The record of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The name of Kubernetes' pod.
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
    /// The directory of the containers' logs; empty without logs.
    #[serde(default)]
    pub log_directory: String,
}

/// The record of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The container's name in its pod.
    pub name: String,
    /// How many containers of this name there were before.
    pub attempt: u32,
    /// The image by the user's name for it.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// The path of the log below the sandbox's log directory; empty without a log.
    #[serde(default)]
    pub log_path: String,
    /// Whether the container has a terminal.
    #[serde(default)]
    pub tty: bool,
    /// Whether standard input ends when the first client that attaches to it detaches.
    #[serde(default)]
    pub stdin_once: bool,
    /// Its mounts of paths of the host and of images.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// The stop signal, by the API's numbers; 0 is the image's.
    #[serde(default)]
    pub stop_signal: i32,
}

/// A mount of a path of the host, or of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The path in the container.
    pub container_path: String,
    /// The path on the host.
    pub host_path: String,
    /// Whether it is read-only.
    pub readonly: bool,
    /// The mount propagation, by the API's numbers.
    pub propagation: i32,
    /// The image that is mounted, by its name in the request and its id; `None` for a path of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<(String, String)>,
    /// The part of the image that is mounted; empty for the whole image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image_sub_path: String,
}

/// Labels or annotations of a request.
pub type Texts = HashMap<String, String>;

/// The user annotations for a manifest: the client's, and the record.
///
/// # Errors
/// One of the client's has the name of the record's.
pub fn annotations(record: &impl Serialize, given: &Texts) -> Result<BTreeMap<String, String>> {
    if given.contains_key(KEY) {
        return Err(Fault::invalid(format!("the annotation {KEY} is reserved for this runtime")));
    }
    let text = serde_json::to_string(record).context(|| "write a record")?;
    let mut all = labels(given);
    all.insert(KEY.to_owned(), text);
    Ok(all)
}

/// The user labels for a manifest.
pub fn labels(given: &Texts) -> BTreeMap<String, String> {
    given.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Converts user labels or annotations to the manifest's type.
pub fn in_manifest(texts: BTreeMap<String, String>) -> Map<String, Value> {
    texts.into_iter().map(|(name, value)| (name, value.into())).collect()
}

/// The record in the user annotations of a manifest; `None` if the pod or app was not made for Kubernetes.
///
/// # Errors
/// The record is malformed.
pub fn read<T: DeserializeOwned>(annotations: &Map<String, Value>) -> Result<Option<T>> {
    match annotations.get(KEY).and_then(Value::as_str) {
        Some(text) => Ok(Some(serde_json::from_str(text).context(|| format!("annotation {KEY}"))?)),
        None => Ok(None),
    }
}

/// The client's labels or annotations, from the user labels or annotations of a manifest.
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
