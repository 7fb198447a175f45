//! The ConfigMaps and Secrets of a file, as values by key; and what it says of claims.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaimSpec, Secret};
use serde::{Deserialize, Serialize};
use stage1::error::{Context, Error, Result};

/// Values by key.
pub type Values = BTreeMap<String, Vec<u8>>;

/// The kind of an object that holds values.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// A ConfigMap.
    Config,
    /// A Secret.
    Secret,
}

impl SourceKind {
    /// The word of Kubernetes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Config => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

/// The ConfigMaps, Secrets and claims of one file.
#[derive(Debug, Default)]
pub struct Sources {
    configs: BTreeMap<String, Values>,
    secrets: BTreeMap<String, Values>,
    /// The claims' specs, by name. Nothing of them has an effect.
    pub claims: BTreeMap<String, PersistentVolumeClaimSpec>,
}

impl Sources {
    /// Adds a ConfigMap.
    ///
    /// # Errors
    /// It has no name, or another one has the same.
    pub fn add_config(&mut self, map: ConfigMap) -> Result<()> {
        let name = map.metadata.name.context(|| "a ConfigMap without metadata.name")?;
        let mut values: Values = map.binary_data.unwrap_or_default().into_iter().map(|(key, v)| (key, v.0)).collect();
        values.extend(map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes())));
        insert(&mut self.configs, SourceKind::Config, name, values)
    }

    /// Adds a Secret.
    ///
    /// # Errors
    /// It has no name, or another one has the same.
    pub fn add_secret(&mut self, secret: Secret) -> Result<()> {
        let name = secret.metadata.name.context(|| "a Secret without metadata.name")?;
        let mut values: Values = secret.data.unwrap_or_default().into_iter().map(|(key, v)| (key, v.0)).collect();
        values.extend(secret.string_data.unwrap_or_default().into_iter().map(|(key, v)| (key, v.into_bytes())));
        insert(&mut self.secrets, SourceKind::Secret, name, values)
    }

    /// The values of a ConfigMap or Secret; `None` if the file does not have it and it is optional.
    ///
    /// # Errors
    /// The file does not have it, and it is not optional.
    pub fn all(&self, kind: SourceKind, name: &str, optional: bool) -> Result<Option<&Values>> {
        let all = match kind {
            SourceKind::Config => &self.configs,
            SourceKind::Secret => &self.secrets,
        };
        match all.get(name) {
            None if !optional => Err(Error::new(format!("the file has no {} {name:?}", kind.word()))),
            found => Ok(found),
        }
    }

    /// One value as text; `None` if the file does not have it and it is optional.
    ///
    /// # Errors
    /// The file does not have the object or the key, and they are not optional; or the value is not UTF-8.
    pub fn text(&self, kind: SourceKind, name: &str, key: &str, optional: bool) -> Result<Option<String>> {
        let Some(values) = self.all(kind, name, optional)? else { return Ok(None) };
        match values.get(key) {
            None if optional => Ok(None),
            None => Err(Error::new(format!("{} {name:?} has no key {key:?}", kind.word()))),
            Some(value) => as_text(kind, name, key, value).map(Some),
        }
    }
}

/// A value as text.
///
/// # Errors
/// The value is not UTF-8.
pub fn as_text(kind: SourceKind, name: &str, key: &str, value: &[u8]) -> Result<String> {
    String::from_utf8(value.to_vec())
        .context(|| format!("{} {name:?}, key {key:?}: a variable's value must be UTF-8", kind.word()))
}

fn insert(all: &mut BTreeMap<String, Values>, kind: SourceKind, name: String, values: Values) -> Result<()> {
    if all.contains_key(&name) {
        return Err(Error::new(format!("two {}s are called {name:?}", kind.word())));
    }
    all.insert(name, values);
    Ok(())
}
