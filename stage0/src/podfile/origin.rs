//! What a pod file says of an app that has no effect on it, so that `generate` can say it again: which variables are
//! those of ConfigMaps and Secrets, all ports, where its volumes are from, when to pull the image, sidecars. It is an annotation of the app; a
//! difference in it does not replace the app.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, PersistentVolumeClaimSpec, Volume};
use serde::{Deserialize, Serialize};
use stage1::appc::{self, NameValue, RuntimeApp};
use stage1::error::{Context, Result};

use super::sources::SourceKind;

/// The annotation.
pub const ORIGIN: &str = "podctl.io/origin";

/// The facts of one app.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct Origin {
    /// The variables that are not what the file says literally, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Variable>,
    /// The container's ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
    /// The types of its volumes of kind hostPath, by volume.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub host_path_types: BTreeMap<String, String>,
    /// What the file says of its claims, by claim.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, PersistentVolumeClaimSpec>,
    /// The ConfigMaps and Secrets that its volumes are of, by the name of the pod's volume.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<String, ContentOrigin>,
    /// When to pull the image (imagePullPolicy), if the file says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<String>,
    /// Whether it is an init container that runs on beside the containers (`restartPolicy: Always`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sidecar: bool,
}

/// The ConfigMap or Secret that a volume is of.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ContentOrigin {
    /// The kind of the object.
    pub kind: SourceKind,
    /// Its name.
    pub name: String,
    /// The keys of the files whose paths are not their keys, by path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, String>,
}

impl ContentOrigin {
    /// That of a volume of the file; `None` if it is of another kind.
    pub fn of(volume: &Volume) -> Option<Self> {
        let (kind, name, items) = match (&volume.config_map, &volume.secret) {
            (Some(map), _) => (SourceKind::Config, map.name.clone(), &map.items),
            (None, Some(secret)) => (SourceKind::Secret, secret.secret_name.clone()?, &secret.items),
            (None, None) => return None,
        };
        let other = items.iter().flatten().filter(|item| item.path != item.key);
        Some(Self { kind, name, keys: other.map(|item| (item.path.clone(), item.key.clone())).collect() })
    }
}

/// Where the value of a variable is from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Variable {
    /// A key of a ConfigMap or Secret.
    Key {
        /// The kind of the object.
        kind: SourceKind,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A text with `$(NAME)` in it, where a variable is from a Secret.
    Text(String),
}

impl Variable {
    /// Whether the value is, or has in it, that of a Secret.
    pub fn is_secret(&self) -> bool {
        !matches!(self, Self::Key { kind: SourceKind::Config, .. })
    }
}

impl Origin {
    /// The facts in an app's annotations.
    ///
    /// # Errors
    /// The annotation is not as [`Self::annotation`] writes it.
    pub fn of(annotations: &[NameValue]) -> Result<Self> {
        let text = appc::find(annotations, ORIGIN);
        text.map_or(Ok(Self::default()), |text| serde_json::from_str(text).context(|| format!("annotation {ORIGIN}")))
    }

    /// The annotation; `None` if there is nothing to say.
    ///
    /// # Errors
    /// None in practice: the facts can be written as JSON.
    pub fn annotation(&self) -> Result<Option<NameValue>> {
        if *self == Self::default() {
            return Ok(None);
        }
        let text = serde_json::to_string(self).context(|| format!("write annotation {ORIGIN}"))?;
        Ok(Some(NameValue::new(ORIGIN, text)))
    }
}

/// Whether the app is an init container that runs on beside the containers, and still does.
///
/// # Errors
/// The annotation of its [`Origin`] is malformed.
pub fn is_sidecar(app: &RuntimeApp) -> Result<bool> {
    Ok(appc::find(&app.annotations, stage1::app::RESTART) == Some("always") && Origin::of(&app.annotations)?.sidecar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_written() {
        assert_eq!(Origin::default().annotation().unwrap(), None);
        assert_eq!(Origin::of(&[]).unwrap(), Origin::default());
        let key = Variable::Key { kind: SourceKind::Secret, name: "s".into(), key: "k".into() };
        let origin = Origin {
            env: BTreeMap::from([("A".into(), key), ("B".into(), Variable::Text("$(A)!".into()))]),
            ports: vec![ContainerPort { container_port: 80, ..ContainerPort::default() }],
            host_path_types: BTreeMap::from([("v".into(), "File".into())]),
            claims: BTreeMap::from([("c".into(), PersistentVolumeClaimSpec::default())]),
            contents: BTreeMap::from([(
                "content-1".into(),
                ContentOrigin { kind: SourceKind::Config, name: "c".into(), keys: BTreeMap::new() },
            )]),
            pull: Some("Always".into()),
            sidecar: true,
        };
        let annotation = origin.annotation().unwrap().unwrap();
        assert_eq!(Origin::of(&[annotation]).unwrap(), origin);
        assert!(Origin::of(&[NameValue::new(ORIGIN, "x")]).is_err());
        // written by a later version
        assert_eq!(Origin::of(&[NameValue::new(ORIGIN, "{\"later\":1}")]).unwrap(), Origin::default());
    }
}
