//! `runtime-config`: the settings that `run` was given, kept for later entrypoints. CONTRACT section 6.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{Directory, read_bounded, write_atomic};
use crate::confine::insecure::InsecureOptions;
use crate::error::{Context, Result};
use crate::layout;

/// The settings of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RuntimeConfig {
    /// URL of the metadata service.
    #[serde(rename = "MetadataServiceURL", deserialize_with = "null_as_default")]
    pub metadata_service_url: String,
    /// `SHIFT:COUNT` of the pod's user namespace; empty if it has none.
    #[serde(deserialize_with = "null_as_default")]
    pub private_users: String,
    /// Token for the metadata service.
    #[serde(rename = "MDSToken", deserialize_with = "null_as_default")]
    pub mds_token: String,
    /// Host name.
    #[serde(deserialize_with = "null_as_default")]
    pub hostname: String,
    /// Whether entrypoints log debug messages.
    #[serde(deserialize_with = "null_as_default")]
    pub debug: bool,
    /// Whether apps can be added and removed while the pod runs.
    #[serde(deserialize_with = "null_as_default")]
    pub mutable: bool,
    /// Mode of /etc/resolv.conf: `host`, `stage0`, `none`, `default`, or empty for `default`.
    #[serde(deserialize_with = "null_as_default")]
    pub resolv_conf_mode: String,
    /// Mode of /etc/hosts: `host`, `stage0`, `default`, or empty for `default`.
    #[serde(deserialize_with = "null_as_default")]
    pub etc_hosts_mode: String,
    /// Networks.
    #[serde(with = "net_list")]
    pub net_list: NetList,
    /// Whether the pod's only app is attached to the caller's standard input or terminal.
    #[serde(deserialize_with = "null_as_default")]
    pub interactive: bool,
    /// Which restrictions of apps are lifted.
    #[serde(deserialize_with = "null_as_default")]
    pub insecure_options: InsecureOptions,
    /// IPC namespace: `private`, `parent` (the host's), `auto`, or empty for `auto`.
    #[serde(rename = "IPCMode", deserialize_with = "null_as_default")]
    pub ipc_mode: String,
}

/// The requested networks, each as it was written: `NAME` or `NAME:KEY=VALUE;…`.
pub type NetList = Vec<String>;

fn null_as_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(de: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(de).map(Option::unwrap_or_default)
}

/// [`NetList`] in JSON: an object with a member for each network, whose value is the network's arguments.
///
/// In rkt the type is a structure without exported fields: Go writes it as `{}`, accepts any object and refuses a list.
mod net_list {
    use std::fmt;

    use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
    use serde::ser::{SerializeMap, Serializer};

    use super::NetList;

    pub(super) fn serialize<S: Serializer>(list: &NetList, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(list.len()))?;
        for net in list {
            let (name, arguments) = net.split_once(':').unwrap_or((net, ""));
            map.serialize_entry(name, arguments)?;
        }
        map.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<NetList, D::Error> {
        from.deserialize_any(Networks)
    }

    struct Networks;

    impl<'de> Visitor<'de> for Networks {
        type Value = NetList;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("networks and their arguments")
        }

        fn visit_unit<E>(self) -> Result<NetList, E> {
            Ok(NetList::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NetList, A::Error> {
            let mut list = NetList::new();
            while let Some(net) = seq.next_element()? {
                list.push(net);
            }
            Ok(list)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NetList, A::Error> {
            let mut list = NetList::new();
            while let Some((name, arguments)) = map.next_entry::<String, String>()? {
                list.push(if arguments.is_empty() { name } else { format!("{name}:{arguments}") });
            }
            Ok(list)
        }
    }
}

impl RuntimeConfig {
    /// Reads it from the pod directory `dir`; the defaults if the file does not exist.
    ///
    /// # Errors
    /// The file exists, and can't be read or is not valid.
    pub fn load(dir: &Path) -> Result<Self> {
        let file = dir.join(layout::RUNTIME_CONFIG);
        match read_bounded(&file, super::MAX_MANIFEST) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Self::default()),
            text => serde_json::from_slice(&text?).context(|| format!("{file:?} is not a valid runtime configuration")),
        }
    }

    /// Writes it to the pod directory `dir`, replacing the file atomically.
    ///
    /// # Errors
    /// The file can't be written; then the old one stays.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context(|| "write the runtime configuration")?;
        write_atomic(Directory::Trusted(dir), layout::RUNTIME_CONFIG, &text, 0o640)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// rkt's structure as Go's encoding/json writes it.
    const GO: &str = concat!(
        r#"{"MetadataServiceURL":"","PrivateUsers":"","MDSToken":"tok","Hostname":"h","Debug":true,"Mutable":true,"#,
        r#""ResolvConfMode":"default","EtcHostsMode":"default","NetList":{},"Interactive":false,"#,
        r#""InsecureOptions":{"DisablePaths":false,"DisableCapabilities":true,"DisableSeccomp":false},"IPCMode":"auto"}"#
    );

    #[test]
    fn same_bytes_as_go() {
        let config: RuntimeConfig = serde_json::from_str(GO).unwrap();
        assert!(config.debug && config.mutable && config.insecure_options.disable_capabilities);
        assert_eq!(serde_json::to_string(&config).unwrap(), GO);
    }

    #[test]
    fn networks_keep_their_arguments_and_order() {
        let nets = ["default", "a:IP=10.0.0.1;X=y:z", "b"].map(str::to_owned).to_vec();
        let config = RuntimeConfig { net_list: nets.clone(), ..RuntimeConfig::default() };
        let json = serde_json::to_string(&config).unwrap();
        assert!(json.contains(r#""NetList":{"default":"","a":"IP=10.0.0.1;X=y:z","b":""}"#), "{json}");
        assert_eq!(serde_json::from_str::<RuntimeConfig>(&json).unwrap(), config);
        let list = r#"{"NetList":["default","a:IP=10.0.0.1;X=y:z","b"]}"#;
        assert_eq!(serde_json::from_str::<RuntimeConfig>(list).unwrap().net_list, nets);
        assert!(serde_json::from_str::<RuntimeConfig>(r#"{"NetList":"a"}"#).is_err());
    }

    #[test]
    fn null_is_the_default() {
        let json = GO.replace("true", "null").replace("false", "null").replace("{}", "null");
        assert!(!serde_json::from_str::<RuntimeConfig>(&json).unwrap().mutable);
        let json = r#"{"InsecureOptions":null,"IPCMode":null}"#;
        assert_eq!(serde_json::from_str::<RuntimeConfig>(json).unwrap(), RuntimeConfig::default());
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
