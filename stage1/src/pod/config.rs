//! `runtime-config`: what `run` was told, for the entrypoints that come later. CONTRACT section 6.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{read_bounded, write_atomic};
use crate::error::{Context, Result};
use crate::layout;

/// The settings of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RuntimeConfig {
    /// URL of the metadata service.
    #[serde(rename = "MetadataServiceURL", deserialize_with = "null_as_default")]
    pub metadata_service_url: String,
    /// `shift:count` of a user namespace.
    #[serde(deserialize_with = "null_as_default")]
    pub private_users: String,
    /// Token for the metadata service.
    #[serde(rename = "MDSToken", deserialize_with = "null_as_default")]
    pub mds_token: String,
    /// Host name.
    #[serde(deserialize_with = "null_as_default")]
    pub hostname: String,
    /// Debug messages are wanted.
    pub debug: bool,
    /// Apps come and go while the pod runs.
    pub mutable: bool,
    /// Mode of resolv.conf.
    #[serde(deserialize_with = "null_as_default")]
    pub resolv_conf_mode: String,
    /// Mode of the hosts file.
    #[serde(deserialize_with = "null_as_default")]
    pub etc_hosts_mode: String,
    /// Networks.
    #[serde(deserialize_with = "null_as_default")]
    pub net_list: NetList,
    /// The app has the caller's terminal.
    pub interactive: bool,
    /// What is not restricted.
    pub insecure_options: InsecureOptions,
    /// IPC namespace.
    #[serde(rename = "IPCMode", deserialize_with = "null_as_default")]
    pub ipc_mode: String,
}

/// The networks asked for, each with its arguments (`name:K=V;…`) as it was written.
pub type NetList = Vec<String>;

/// Restrictions that are switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InsecureOptions {
    /// Kernel paths stay visible and writable.
    pub disable_paths: bool,
    /// All capabilities.
    pub disable_capabilities: bool,
    /// No system call filter.
    pub disable_seccomp: bool,
}

fn null_as_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(de: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(de).map(Option::unwrap_or_default)
}

impl RuntimeConfig {
    /// Reads it from the pod in `dir`; the defaults if there is none yet.
    pub fn load(dir: &Path) -> Result<Self> {
        let file = dir.join(layout::RUNTIME_CONFIG);
        match read_bounded(&file, super::MAX_MANIFEST) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Self::default()),
            text => serde_json::from_slice(&text?).context(|| format!("{file:?} is not a valid runtime configuration")),
        }
    }

    /// Writes it into the pod in `dir`.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context(|| "write the runtime configuration")?;
        write_atomic(dir, layout::RUNTIME_CONFIG, &text, 0o640)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_contracts() {
        let config = RuntimeConfig { hostname: "h".into(), mutable: true, ..RuntimeConfig::default() };
        let json = serde_json::to_value(&config).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        let mut expected = [
            "MetadataServiceURL",
            "PrivateUsers",
            "MDSToken",
            "Hostname",
            "Debug",
            "Mutable",
            "ResolvConfMode",
            "EtcHostsMode",
            "NetList",
            "Interactive",
            "InsecureOptions",
            "IPCMode",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(json["InsecureOptions"].as_object().unwrap().len(), 3);
    }

    #[test]
    fn absent_partial_and_broken() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(RuntimeConfig::load(tmp.path()).unwrap(), RuntimeConfig::default());
        std::fs::write(tmp.path().join("runtime-config"), r#"{"Hostname":"x","NetList":null,"New":1}"#).unwrap();
        assert_eq!(RuntimeConfig::load(tmp.path()).unwrap().hostname, "x");
        std::fs::write(tmp.path().join("runtime-config"), "{").unwrap();
        assert!(RuntimeConfig::load(tmp.path()).is_err());
    }
}
