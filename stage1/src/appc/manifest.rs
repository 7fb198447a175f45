//! Image and pod manifests. Fields that are not known here are kept when a manifest is rewritten.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AcIdentifier, AcName};
use crate::error::{Context, Error, Result};

/// The version of the specification that is written.
pub const AC_VERSION: &str = "0.8.11";

/// Annotation of a pod manifest: the pod takes apps while it runs.
pub const MUTABLE: &str = "coreos.com/rkt/stage1/mutable";
/// Annotation of an image manifest: the image was converted from docker's format.
pub const CONVERTED: &str = "appc.io/docker/repository";
/// Annotation of an image manifest: the app tells systemd when it is ready.
pub const SUPPORTS_NOTIFY: &str = "appc.io/executor/supports-systemd-notify";

macro_rules! data {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty = $key:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(rename = $key)] pub $field: $type,)*
            /// Fields that are not known here.
            #[serde(flatten)]
            pub other: Map<String, Value>,
        }
    };
}

macro_rules! optional_data {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty = $key:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(rename = $key, skip_serializing_if = "is_default", deserialize_with = "null_as_default")] pub $field: $type,)*
            /// Fields that are not known here.
            #[serde(flatten)]
            pub other: Map<String, Value>,
        }
    };
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Go writes an empty list as `null`.
fn null_as_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(de: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(de).map(Option::unwrap_or_default)
}

data!(
    /// A label or an environment variable or an annotation: a name and a value.
    NameValue {
        /// Name.
        name: String = "name",
        /// Value.
        value: String = "value",
    }
);

impl NameValue {
    /// A pair without anything else.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), other: Map::new() }
    }
}

/// The value with the name `name` in a list of annotations, labels or environment variables.
pub fn find<'a>(list: &'a [NameValue], name: &str) -> Option<&'a str> {
    list.iter().find(|item| item.name == name).map(|item| item.value.as_str())
}

/// A boolean as Go's strconv.ParseBool reads it.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

data!(
    /// A limit or a restriction: its kind and its parameters.
    Isolator {
        /// Which one.
        name: String = "name",
        /// Its parameters.
        value: Value = "value",
    }
);

data!(
    /// A command run before an app's start or after its end.
    EventHandler {
        /// `pre-start` or `post-stop`.
        name: String = "name",
        /// Its words.
        exec: Vec<String> = "exec",
    }
);

optional_data!(
    /// A place in an app's root that wants a volume.
    MountPoint {
        /// Name, matched with a volume's.
        name: String = "name",
        /// Absolute path in the app.
        path: String = "path",
        /// The app only reads it.
        read_only: bool = "readOnly",
    }
);

optional_data!(
    /// A port that an app listens on.
    Port {
        /// Name.
        name: String = "name",
        /// `tcp` or `udp`.
        protocol: String = "protocol",
        /// Number.
        port: u32 = "port",
        /// How many ports from that number on.
        count: Option<u32> = "count",
        /// The pod's systemd listens and hands the socket over.
        socket_activated: bool = "socketActivated",
    }
);

optional_data!(
    /// How an image is run.
    App {
        /// The command's words.
        exec: Vec<String> = "exec",
        /// Commands around the app's life.
        event_handlers: Vec<EventHandler> = "eventHandlers",
        /// User: number, name, or path in the image.
        user: String = "user",
        /// Group: number, name, or path in the image.
        group: String = "group",
        /// Further groups.
        supplementary_gids: Vec<u32> = "supplementaryGIDs",
        /// Absolute path in the app.
        working_directory: String = "workingDirectory",
        /// Variables.
        environment: Vec<NameValue> = "environment",
        /// Places for volumes.
        mount_points: Vec<MountPoint> = "mountPoints",
        /// Ports.
        ports: Vec<Port> = "ports",
        /// Limits and restrictions.
        isolators: Vec<Isolator> = "isolators",
        /// The user's annotations.
        user_annotations: Map<String, Value> = "userAnnotations",
        /// The user's labels.
        user_labels: Map<String, Value> = "userLabels",
    }
);

data!(
    /// An image manifest.
    ImageManifest {
        /// `ImageManifest`.
        ac_kind: ImageKind = "acKind",
        /// Version of the specification.
        ac_version: String = "acVersion",
        /// Name.
        name: AcIdentifier = "name",
        /// Version, os, arch and others.
        #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_as_default")]
        labels: Vec<NameValue> = "labels",
        /// How it is run; an image without can only be a dependency, or be given a command.
        #[serde(default, skip_serializing_if = "is_default")]
        app: Option<App> = "app",
        /// Annotations.
        #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_as_default")]
        annotations: Vec<NameValue> = "annotations",
        /// Images below this one.
        #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_as_default")]
        dependencies: Vec<Dependency> = "dependencies",
        /// The only paths that are taken of the whole, if not empty.
        #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_as_default")]
        path_whitelist: Vec<String> = "pathWhitelist",
    }
);

optional_data!(
    /// An image that another one is built upon.
    Dependency {
        /// Name.
        image_name: String = "imageName",
        /// Id.
        image_id: Option<String> = "imageID",
        /// Labels that it must have.
        labels: Vec<NameValue> = "labels",
        /// Size in bytes.
        size: Option<u64> = "size",
    }
);

/// The word `ImageManifest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageKind {
    /// As it is written.
    #[default]
    ImageManifest,
}

/// The word `PodManifest`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodKind {
    /// As it is written.
    #[default]
    PodManifest,
}

optional_data!(
    /// The image of a runtime app.
    RuntimeImage {
        /// Name.
        name: Option<AcIdentifier> = "name",
        /// Id, `sha512-…`.
        id: String = "id",
        /// Labels.
        labels: Vec<NameValue> = "labels",
    }
);

data!(
    /// A volume mounted in an app.
    Mount {
        /// Name of a volume of the pod.
        volume: AcName = "volume",
        /// Absolute path in the app.
        path: String = "path",
        /// A volume of this mount's own, instead of the pod's.
        #[serde(default, skip_serializing_if = "is_default")]
        app_volume: Option<Volume> = "appVolume",
    }
);

/// Where a volume's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// A path on the host.
    Host,
    /// A directory that lives as long as the pod.
    Empty,
}

data!(
    /// A volume.
    Volume {
        /// Name.
        name: AcName = "name",
        /// Host or empty.
        kind: VolumeKind = "kind",
        /// Host: the path.
        #[serde(default, skip_serializing_if = "is_default")]
        source: Option<String> = "source",
        /// Nobody writes to it.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: Option<bool> = "readOnly",
        /// Host: mounts below the path come along (so they do if it is not said).
        #[serde(default, skip_serializing_if = "is_default")]
        recursive: Option<bool> = "recursive",
        /// Empty: permissions, octal.
        #[serde(default, skip_serializing_if = "is_default")]
        mode: Option<String> = "mode",
        /// Empty: owner.
        #[serde(default, skip_serializing_if = "is_default")]
        uid: Option<u32> = "uid",
        /// Empty: group.
        #[serde(default, skip_serializing_if = "is_default")]
        gid: Option<u32> = "gid",
    }
);

data!(
    /// An app of a pod.
    RuntimeApp {
        /// Name.
        name: AcName = "name",
        /// Image.
        image: RuntimeImage = "image",
        /// How it is run, if not as its image says.
        #[serde(default, skip_serializing_if = "is_default")]
        app: Option<App> = "app",
        /// The app can't write to its root file system.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only_root_fs: bool = "readOnlyRootFS",
        /// Volumes.
        #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_as_default")]
        mounts: Vec<Mount> = "mounts",
        /// Annotations.
        #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_as_default")]
        annotations: Vec<NameValue> = "annotations",
    }
);

optional_data!(
    /// A port of an app that is reached from outside of the pod.
    ExposedPort {
        /// Name of the app's port.
        name: String = "name",
        /// Port on the host.
        host_port: u32 = "hostPort",
        /// Address on the host.
        host_ip: Option<String> = "hostIP",
        /// The app's port, instead of a name.
        pod_port: Option<Value> = "podPort",
    }
);

data!(
    /// A pod manifest.
    PodManifest {
        /// `PodManifest`.
        ac_kind: PodKind = "acKind",
        /// Version of the specification.
        ac_version: String = "acVersion",
        /// Apps.
        #[serde(deserialize_with = "null_as_default", default)]
        apps: Vec<RuntimeApp> = "apps",
        /// Volumes.
        #[serde(deserialize_with = "null_as_default", default)]
        volumes: Vec<Volume> = "volumes",
        /// Limits of the whole pod.
        #[serde(deserialize_with = "null_as_default", default)]
        isolators: Vec<Isolator> = "isolators",
        /// Annotations.
        #[serde(deserialize_with = "null_as_default", default)]
        annotations: Vec<NameValue> = "annotations",
        /// Ports reached from outside.
        #[serde(deserialize_with = "null_as_default", default)]
        ports: Vec<ExposedPort> = "ports",
        /// The user's annotations.
        #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_as_default")]
        user_annotations: Map<String, Value> = "userAnnotations",
        /// The user's labels.
        #[serde(default, skip_serializing_if = "is_default", deserialize_with = "null_as_default")]
        user_labels: Map<String, Value> = "userLabels",
    }
);

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

impl ImageManifest {
    /// A manifest with nothing but a name.
    pub fn new(name: AcIdentifier) -> Self {
        Self {
            ac_kind: ImageKind::ImageManifest,
            ac_version: AC_VERSION.to_owned(),
            name,
            labels: Vec::new(),
            app: None,
            annotations: Vec::new(),
            dependencies: Vec::new(),
            path_whitelist: Vec::new(),
            other: Map::new(),
        }
    }

    /// Parses JSON.
    pub fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).context(|| "not a valid image manifest")
    }

    /// Whether the image was converted from another format.
    pub fn is_converted(&self) -> bool {
        find(&self.annotations, CONVERTED).is_some()
    }
}

impl PodManifest {
    /// Parses JSON.
    pub fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).context(|| "not a valid pod manifest")
    }

    /// Whether apps can be added and removed while the pod runs.
    ///
    /// # Errors
    /// When the annotation that says so is no boolean.
    pub fn is_mutable(&self) -> Result<bool> {
        match find(&self.annotations, MUTABLE) {
            None => Ok(false),
            Some(text) => parse_bool(text).ok_or_else(|| {
                Error::new(format!("the pod manifest's annotation {MUTABLE} is {text:?}, not a boolean"))
            }),
        }
    }

    /// The app with this name.
    pub fn app(&self, name: &AcName) -> Option<&RuntimeApp> {
        self.apps.iter().find(|app| app.name == *name)
    }
}

#[cfg(test)]
mod tests {
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
}
