//! Image manifests, and what they have in common with those of pods. Fields that are not known here are kept when a manifest is rewritten.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::AcIdentifier;
use crate::error::{Context, Result};
use crate::json::{self, or_default};

/// The version of the specification that is written.
pub const AC_VERSION: &str = "0.8.11";

/// Longest name of an app: with a unit's prefix and suffix, and a marker of a temporary file, it fits a file name.
pub const MAX_APP_NAME: usize = 220;

/// Annotation of a pod manifest: the pod takes apps while it runs.
pub const MUTABLE: &str = "coreos.com/rkt/stage1/mutable";
/// Annotation of an image manifest: the image was converted from docker's format.
pub const CONVERTED: &str = "appc.io/docker/repository";
/// Annotation of an image manifest: the app tells systemd when it is ready.
pub const SUPPORTS_NOTIFY: &str = "appc.io/executor/supports-systemd-notify";

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A label or an environment variable or an annotation: a name and a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameValue {
    /// Name.
    pub name: String,
    /// Value.
    #[serde(default, deserialize_with = "or_default")]
    pub value: String,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

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

/// A limit or a restriction: its kind and its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Isolator {
    /// Which one.
    pub name: String,
    /// Its parameters.
    #[serde(default, deserialize_with = "or_default")]
    pub value: Value,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A command run before an app's start or after its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventHandler {
    /// `pre-start` or `post-stop`.
    pub name: String,
    /// Its words.
    #[serde(default, deserialize_with = "or_default")]
    pub exec: Vec<String>,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A place in an app's root that wants a volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountPoint {
    /// Name, matched with a volume's.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub name: String,
    /// Absolute path in the app.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub path: String,
    /// The app only reads it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A port that an app listens on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub name: String,
    /// `tcp` or `udp`.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub protocol: String,
    /// Number.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub port: u32,
    /// How many ports from that number on.
    #[serde(skip_serializing_if = "is_default")]
    pub count: Option<u32>,
    /// The pod's systemd listens and hands the socket over.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub socket_activated: bool,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How an image is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The command's words.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub exec: Vec<String>,
    /// Commands around the app's life.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub event_handlers: Vec<EventHandler>,
    /// User: number, name, or path in the image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub user: String,
    /// Group: number, name, or path in the image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub group: String,
    /// Further groups.
    #[serde(
        rename = "supplementaryGIDs",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub supplementary_gids: Vec<u32>,
    /// Absolute path in the app.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub working_directory: String,
    /// Variables.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub environment: Vec<NameValue>,
    /// Places for volumes.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub mount_points: Vec<MountPoint>,
    /// Ports.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub ports: Vec<Port>,
    /// Limits and restrictions.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub isolators: Vec<Isolator>,
    /// The user's annotations.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub user_annotations: Map<String, Value>,
    /// The user's labels.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub user_labels: Map<String, Value>,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An image manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// `ImageManifest`.
    pub ac_kind: ImageKind,
    /// Version of the specification.
    pub ac_version: String,
    /// Name.
    pub name: AcIdentifier,
    /// Version, os, arch and others.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub labels: Vec<NameValue>,
    /// How it is run; an image without can only be a dependency, or be given a command.
    #[serde(skip_serializing_if = "is_default")]
    pub app: Option<App>,
    /// Annotations.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub annotations: Vec<NameValue>,
    /// Images below this one.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub dependencies: Vec<Dependency>,
    /// The only paths that are taken of the whole, if not empty.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub path_whitelist: Vec<String>,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An image that another one is built upon.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Name.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub image_name: String,
    /// Id.
    #[serde(rename = "imageID", skip_serializing_if = "is_default")]
    pub image_id: Option<String>,
    /// Labels that it must have.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub labels: Vec<NameValue>,
    /// Size in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub size: Option<u64>,
    /// Fields that are not known here.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What an image manifest calls itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageKind {
    /// As it is written.
    ImageManifest,
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
    ///
    /// # Errors
    /// Not JSON, a field of another type, or an app section that contradicts itself.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let manifest: Self = json::parse(text).context(|| "not a valid image manifest")?;
        manifest.app.as_ref().map_or(Ok(()), App::validate).context(|| "not a valid image manifest")?;
        Ok(manifest)
    }

    /// Whether the image was converted from another format.
    pub fn is_converted(&self) -> bool {
        find(&self.annotations, CONVERTED).is_some()
    }
}
