//! Pod manifests. Unknown fields are kept when a manifest is rewritten.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::manifest::{AC_VERSION, App, Isolator, MUTABLE, NameValue, find, is_default, parse_bool};
use super::{AcIdentifier, AcName};
use crate::error::{Context, Error, Result};
use crate::json::{self, or_default};
use crate::sys::mount::Propagation;

/// The `acKind` of a pod manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodKind {
    /// The only value.
    PodManifest,
}

/// The image of an app in a pod manifest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeImage {
    /// Name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: Option<AcIdentifier>,
    /// Image id, `sha512-…`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub id: String,
    /// Labels.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub labels: Vec<NameValue>,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A volume that is mounted in an app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Name of a volume of the pod.
    pub volume: AcName,
    /// Absolute path in the app.
    pub path: String,
    /// A volume for this mount only, in place of the pod's volume.
    #[serde(skip_serializing_if = "is_default")]
    pub app_volume: Option<Volume>,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The kind of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// A path on the host.
    Host,
    /// A directory that is removed with the pod.
    Empty,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Name.
    pub name: AcName,
    /// Kind.
    pub kind: VolumeKind,
    /// Host volume: absolute path on the host.
    #[serde(skip_serializing_if = "is_default")]
    pub source: Option<String>,
    /// Whether all its mounts are read-only.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: Option<bool>,
    /// Host volume: whether mounts below the path are included; `None` means that they are.
    #[serde(skip_serializing_if = "is_default")]
    pub recursive: Option<bool>,
    /// Empty volume: permissions, an octal number; `None` means 0755.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: Option<String>,
    /// Empty volume: user id of the owner in the pod.
    #[serde(skip_serializing_if = "is_default")]
    pub uid: Option<u32>,
    /// Empty volume: group id in the pod.
    #[serde(skip_serializing_if = "is_default")]
    pub gid: Option<u32>,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An app in a pod manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeApp {
    /// Name.
    pub name: AcName,
    /// Image.
    pub image: RuntimeImage,
    /// How it is run; `None` means as its image manifest says.
    #[serde(skip_serializing_if = "is_default")]
    pub app: Option<App>,
    /// Whether the app's root file system is read-only.
    #[serde(rename = "readOnlyRootFS", default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub read_only_root_fs: bool,
    /// The volumes that are mounted in it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub mounts: Vec<Mount>,
    /// Annotations.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub annotations: Vec<NameValue>,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A port of the host that is forwarded to a port of an app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPort {
    /// Name of the app's port.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub name: String,
    /// Port on the host.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub host_port: u32,
    /// Address on the host.
    #[serde(rename = "hostIP", skip_serializing_if = "is_default")]
    pub host_ip: Option<String>,
    /// The app's port in place of a name.
    #[serde(skip_serializing_if = "is_default")]
    pub pod_port: Option<Value>,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A pod manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodManifest {
    /// `PodManifest`.
    pub ac_kind: PodKind,
    /// Version of the specification.
    pub ac_version: String,
    /// Apps.
    #[serde(default, deserialize_with = "or_default")]
    pub apps: Vec<RuntimeApp>,
    /// Volumes.
    #[serde(default, deserialize_with = "or_default")]
    pub volumes: Vec<Volume>,
    /// Limits of the pod as a whole.
    #[serde(default, deserialize_with = "or_default")]
    pub isolators: Vec<Isolator>,
    /// Annotations.
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: Vec<NameValue>,
    /// Ports of the host that are forwarded to apps.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<ExposedPort>,
    /// The user's annotations.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub user_annotations: Map<String, Value>,
    /// The user's labels.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub user_labels: Map<String, Value>,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for PodManifest {
    fn default() -> Self {
        Self {
            ac_kind: PodKind::PodManifest,
            ac_version: AC_VERSION.to_owned(),
            apps: Vec::new(),
            volumes: Vec::new(),
            isolators: Vec::new(),
            annotations: Vec::new(),
            ports: Vec::new(),
            user_annotations: Map::new(),
            user_labels: Map::new(),
            other: Map::new(),
        }
    }
}

/// Field of an empty volume, in [`Volume::other`], that puts it in memory: `memory` is a tmpfs that all apps of the pod
/// share, `own-memory` one for each app.
pub const MEDIUM: &str = "podctl.io/medium";
/// Field of a volume in memory, in [`Volume::other`]: its maximum size, in bytes.
pub const SIZE: &str = "podctl.io/size";

/// Field of a host volume, in [`Volume::other`]: how mounts that are made later propagate between the host and the app,
/// as [`Propagation`] is written. Without it, mounts of the host propagate to the app unless the volume is not
/// recursive, or read-only with all below it.
pub const PROPAGATION: &str = "podctl.io/propagation";
/// Field of a read-only host volume, in [`Volume::other`]: `false` leaves the mounts below its source as writable as
/// they are on the host.
pub const READ_ONLY_BELOW: &str = "podctl.io/read-only-below";
/// Field of a host volume, in [`Volume::other`]: `true` leaves its files the owners that they have on the host, also in a
/// pod with a user namespace of its own, whose ids the host's ids are mapped to otherwise.
pub const HOST_IDS: &str = "podctl.io/host-ids";
/// Field of a mount, in [`Mount::other`]: the part of the volume that is mounted, as a path relative to the volume.
pub const SUB_PATH: &str = "podctl.io/sub-path";

impl Mount {
    /// The field [`SUB_PATH`]: a relative path without `..`. `None` means the whole volume.
    ///
    /// # Errors
    /// The field is not such a path.
    pub fn sub_path(&self) -> Result<Option<&Path>> {
        let Some(text) = self.other.get(SUB_PATH) else { return Ok(None) };
        let path = Path::new(text.as_str().unwrap_or_default());
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if path.as_os_str().is_empty() || !is_plain || path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(Error::new(format!("{SUB_PATH} of volume {}: {text} is not a path below it", self.volume)));
        }
        Ok(Some(path))
    }
}

/// Which apps share a volume in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// All apps of the pod that mount it.
    Shared,
    /// None: each app that mounts it has its own.
    Own,
}

impl Volume {
    /// Which apps share the volume if it is in memory; `None` if it is not in memory.
    ///
    /// # Errors
    /// The medium is unknown.
    pub fn memory(&self) -> Result<Option<Memory>> {
        match self.other.get(MEDIUM).map(|medium| medium.as_str().unwrap_or_default()) {
            None => Ok(None),
            Some("memory") => Ok(Some(Memory::Shared)),
            Some("own-memory") => Ok(Some(Memory::Own)),
            Some(medium) => Err(Error::new(format!("volume {}: the medium {medium:?} is unknown", self.name))),
        }
    }

    /// The field [`PROPAGATION`]: how mounts that are made later propagate. `None` if it is not set.
    ///
    /// # Errors
    /// Its value is not a propagation.
    pub fn propagation(&self) -> Result<Option<Propagation>> {
        let word = self.other.get(PROPAGATION).map(|word| word.as_str().unwrap_or_default());
        word.map(str::parse).transpose().context(|| format!("volume {}", self.name))
    }

    /// The field [`READ_ONLY_BELOW`]: whether the mounts below the source of a read-only volume are read-only too.
    pub fn is_read_only_below(&self) -> bool {
        self.other.get(READ_ONLY_BELOW).and_then(Value::as_bool).unwrap_or(true)
    }

    /// The field [`HOST_IDS`]: whether its files keep the owners that they have on the host.
    pub fn has_host_ids(&self) -> bool {
        self.other.get(HOST_IDS).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Maximum size of a volume in memory, in bytes; `None` means the default of tmpfs(5).
    pub fn size(&self) -> Option<u64> {
        self.other.get(SIZE).and_then(Value::as_u64)
    }

    /// Permissions of an `empty` volume: the field `mode`, or 0755.
    ///
    /// # Errors
    /// The field is not an octal number up to 7777.
    pub fn mode(&self) -> Result<u32> {
        let Some(text) = &self.mode else { return Ok(0o755) };
        let is_octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o7777);
        mode.context(|| format!("volume {}: the mode {text:?} is not octal, such as 0755", self.name))
    }
}

impl PodManifest {
    /// Parses and validates JSON.
    ///
    /// # Errors
    /// `text` is not JSON, a field has the wrong type, two apps or two volumes have the same name, or a part is not
    /// valid.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let manifest: Self = json::parse(text).context(|| "not a valid pod manifest")?;
        manifest.validate().context(|| "not a valid pod manifest")?;
        Ok(manifest)
    }

    /// Whether apps can be added and removed while the pod runs.
    ///
    /// # Errors
    /// The annotation is not a boolean.
    pub fn is_mutable(&self) -> Result<bool> {
        match find(&self.annotations, MUTABLE) {
            None => Ok(false),
            Some(text) => parse_bool(text).ok_or_else(|| {
                Error::new(format!("the pod manifest's annotation {MUTABLE} is {text:?}, not a boolean"))
            }),
        }
    }

    /// The app with this name, if there is one.
    pub fn app(&self, name: &AcName) -> Option<&RuntimeApp> {
        self.apps.iter().find(|app| app.name == *name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{ImageManifest, MAX_APP_NAME};
    use super::*;

    const POD: &str = r#"{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{"name":"x/y","id":"sha512-0","labels":[{"name":"os","value":"linux"}],"new":1},
        "app":{"exec":["/bin/sh"],"user":"0","group":"0","workingDirectory":"/","isolators":[{"name":"resource/memory","value":{"limit":"1G"}}],"unheard":{"of":[1]}},
        "mounts":[{"volume":"v","path":"/data","appVolume":null}],"annotations":null}],
        "volumes":[{"name":"v","kind":"empty","mode":"0700","uid":1}],"isolators":null,"annotations":[{"name":"coreos.com/rkt/stage1/mutable","value":"true"}],"ports":[],"later":"yes"}"#;

    #[test]
    fn unknown_fields_survive() {
        let pod = PodManifest::parse(POD.as_bytes()).unwrap();
        assert!(pod.is_mutable().unwrap());
        let again: Value = serde_json::from_str(&serde_json::to_string(&pod).unwrap()).unwrap();
        assert_eq!(again["later"], "yes");
        assert_eq!(again["apps"][0]["image"]["new"], 1);
        assert_eq!(again["apps"][0]["app"]["unheard"]["of"][0], 1);
        assert_eq!(PodManifest::parse(again.to_string().as_bytes()).unwrap(), pod);
    }

    #[test]
    fn hostile_manifests_are_refused() {
        for bad in [
            r#"{"acKind":"ImageManifest","acVersion":"0.8.11","apps":[]}"#,
            r#"{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"../x","image":{"id":"x"}}]}"#,
            r#"{"acKind":"PodManifest","acVersion":"0.8.11","volumes":[{"name":"v","kind":"magic"}]}"#,
            "[]",
            "",
        ] {
            assert!(PodManifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let mut pod = PodManifest::parse(POD.as_bytes()).unwrap();
        pod.annotations[0].value = "maybe".into();
        assert!(pod.is_mutable().is_err());
    }

    /// Go writes null for empty lists and objects.
    #[test]
    fn nulls_of_go() {
        let pod = PodManifest::parse(
            br#"{"acVersion":"0.8.11","acKind":"PodManifest","apps":null,"volumes":null,"isolators":null,
            "annotations":null,"ports":null,"userAnnotations":null,"userLabels":null}"#,
        )
        .unwrap();
        assert_eq!(pod, PodManifest::default());
        let image = ImageManifest::parse(
            br#"{"acVersion":"0.8.11","acKind":"ImageManifest","name":"x","labels":null,"annotations":null,
            "dependencies":null,"pathWhitelist":null,"app":{"exec":null,"user":"0","group":"0","environment":null,
            "eventHandlers":[{"name":"pre-start","exec":null}],"isolators":[{"name":"a/b"},{"name":"c","value":null}],
            "ports":[{"name":"p","protocol":"tcp","port":1,"count":null,"socketActivated":null}],
            "mountPoints":[{"name":"m","path":"/m","readOnly":null}]}}"#,
        )
        .unwrap();
        assert_eq!(image.app.unwrap().isolators[0].value, Value::Null);
        let app = br#"{"name":"a","image":{"id":"sha512-0","name":null,"labels":null},"app":null,"readOnlyRootFS":null,
            "mounts":null,"annotations":[{"name":"n","value":null}]}"#;
        let app: RuntimeApp = json::parse(app).unwrap();
        assert_eq!((app.read_only_root_fs, find(&app.annotations, "n")), (false, Some("")));
    }

    #[test]
    fn nothing_is_written_of_what_is_not_there() {
        let json = r#"{"name":"a","image":{"id":"sha512-0"}}"#;
        let app: RuntimeApp = json::parse(json.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&app).unwrap(), json);
        let json = r#"{"name":"v","kind":"empty"}"#;
        let volume: Volume = json::parse(json.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&volume).unwrap(), json);
    }

    #[test]
    fn contradictions_are_refused_and_named() {
        let image = r#""image":{"id":"sha512-0"}"#;
        let long = "x".repeat(MAX_APP_NAME + 1);
        let app = |app: &str| {
            let app = format!(r#"{{"user":"0","group":"0",{app}}}"#);
            let text = format!(r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"x","app":{app}}}"#);
            let in_image = ImageManifest::parse(text.as_bytes()).unwrap_err().one_line();
            let text = format!(
                r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{{"name":"a",{image},"app":{app}}}]}}"#
            );
            (in_image, PodManifest::parse(text.as_bytes()).unwrap_err().one_line())
        };
        for (json, why) in [
            (r#""workingDirectory":"tmp""#, "\"tmp\" is not an absolute path"),
            (r#""eventHandlers":[{"name":"on-fire","exec":[]}]"#, "unknown event \"on-fire\""),
            (
                r#""eventHandlers":[{"name":"post-stop"},{"name":"post-stop"}]"#,
                "two event handlers are called post-stop",
            ),
            (r#""ports":[{"name":"p","protocol":"tcp","port":0}]"#, "port \"p\""),
            (
                r#""ports":[{"name":"p","protocol":"tcp","port":65535,"count":2}]"#,
                "65535 to 65536 are not port numbers",
            ),
            (r#""ports":[{"name":"p","protocol":"tcp","port":4294967295,"count":4294967295}]"#, "not port numbers"),
        ] {
            let (in_image, in_pod) = app(json);
            assert!(in_image.contains(why), "{in_image}");
            assert!(in_pod.contains(why) && in_pod.contains("app a"), "{in_pod}");
        }
        for (json, why) in [
            (format!(r#""apps":[{{"name":"a",{image}}},{{"name":"a",{image}}}]"#), "two apps are called a"),
            (format!(r#""apps":[{{"name":"{long}",{image}}}]"#), "longer than 220 characters"),
            (
                r#""volumes":[{"name":"v","kind":"empty"},{"name":"v","kind":"empty"}]"#.into(),
                "two volumes are called v",
            ),
            (r#""volumes":[{"name":"v","kind":"host"}]"#.into(), "volume v: a host volume needs a source"),
            (r#""volumes":[{"name":"v","kind":"host","source":"srv"}]"#.into(), "not an absolute path"),
            (r#""volumes":[{"name":"v","kind":"empty","source":"/srv"}]"#.into(), "has no source"),
            (r#""volumes":[{"name":"v","kind":"empty","mode":"rwx"}]"#.into(), "\"rwx\" is not octal"),
            (
                format!(
                    r#""apps":[{{"name":"a",{image},"mounts":[{{"volume":"v","path":"/","appVolume":{{"name":"v","kind":"host"}}}}]}}]"#
                ),
                "app a: volume v: a host volume",
            ),
        ] {
            let text = format!(r#"{{"acKind":"PodManifest","acVersion":"0.8.11",{json}}}"#);
            let error = PodManifest::parse(text.as_bytes()).unwrap_err().one_line();
            assert!(error.starts_with("not a valid pod manifest: ") && error.contains(why), "{error}");
        }
        let fits =
            format!(r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{{"name":"{}",{image}}}]}}"#, &long[1..]);
        PodManifest::parse(fits.as_bytes()).unwrap();
    }

    #[test]
    fn modes_of_volumes() {
        let mode = |mode: Option<&str>| {
            let mut volume: Volume = json::parse(br#"{"name":"v","kind":"empty"}"#).unwrap();
            volume.mode = mode.map(str::to_owned);
            volume.mode().ok()
        };
        assert_eq!(mode(None), Some(0o755));
        assert_eq!(mode(Some("0755")), Some(0o755));
        assert_eq!(mode(Some("1777")), Some(0o1777));
        for bad in ["", "8", "10000", "+755", "-1", "0o755", " 755", "rwx"] {
            assert_eq!(mode(Some(bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn booleans_are_those_of_go() {
        for yes in ["1", "t", "T", "true", "TRUE", "True"] {
            assert_eq!(parse_bool(yes), Some(true));
        }
        for no in ["0", "f", "F", "false", "FALSE", "False"] {
            assert_eq!(parse_bool(no), Some(false));
        }
        for bad in ["", "yes", "tRUE", " true", "2", "on"] {
            assert_eq!(parse_bool(bad), None, "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_it_panic(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64), cut in 0..POD.len()) {
            drop(PodManifest::parse(&text));
            let mut broken = POD.as_bytes().to_vec();
            broken.splice(cut..cut, text);
            drop(PodManifest::parse(&broken));
            drop(ImageManifest::parse(&broken));
        }
    }
}
