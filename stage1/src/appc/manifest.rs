//! Image manifests, and the types that they share with pod manifests. Unknown fields are kept when a manifest is
//! rewritten.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::AcIdentifier;
use crate::error::{Context, Result};
use crate::json::{self, or_default};

/// The version of the appc specification in manifests that are written.
pub const AC_VERSION: &str = "0.8.11";

/// Maximum length of an app's name, in bytes: with the prefixes and suffixes of its units and status files it still
/// fits in a file name.
pub const MAX_APP_NAME: usize = 220;

/// Annotation of a pod manifest, a boolean: apps can be added and removed while the pod runs.
pub const MUTABLE: &str = "coreos.com/rkt/stage1/mutable";
/// Annotation of an image manifest: the image was converted from Docker's format.
pub const CONVERTED: &str = "appc.io/docker/repository";
/// Annotation of an image manifest, a boolean: the app tells systemd when it is ready, sd_notify(3).
pub const SUPPORTS_NOTIFY: &str = "appc.io/executor/supports-systemd-notify";

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A label, an environment variable or an annotation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameValue {
    /// Name.
    pub name: String,
    /// Value.
    #[serde(default, deserialize_with = "or_default")]
    pub value: String,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl NameValue {
    /// A name and a value, without other fields.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), other: Map::new() }
    }
}

/// The value of the first item with the name `name` in a list of annotations, labels or environment variables.
pub fn find<'a>(list: &'a [NameValue], name: &str) -> Option<&'a str> {
    list.iter().find(|item| item.name == name).map(|item| item.value.as_str())
}

/// Parses a boolean as Go's strconv.ParseBool does.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A limit or a restriction of an app; [`super::Isolators`] interprets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Isolator {
    /// Name, such as `resource/memory`.
    pub name: String,
    /// Parameters.
    #[serde(default, deserialize_with = "or_default")]
    pub value: Value,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A command that is run before an app's start or after its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventHandler {
    /// `pre-start` or `post-stop`.
    pub name: String,
    /// The command and its arguments.
    #[serde(default, deserialize_with = "or_default")]
    pub exec: Vec<String>,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A path in an app's root at which a volume is to be mounted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MountPoint {
    /// Name, matched with that of a volume.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub name: String,
    /// Absolute path in the app.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub path: String,
    /// Whether the mount is read-only.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// Unknown fields, kept when the manifest is rewritten.
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
    /// The first port number.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub port: u32,
    /// Number of consecutive ports; `None` means one.
    #[serde(skip_serializing_if = "is_default")]
    pub count: Option<u32>,
    /// Whether the pod's systemd listens on the port and passes the socket to the app: systemd.socket(5).
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub socket_activated: bool,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// How an app is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The command and its arguments.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub exec: Vec<String>,
    /// Commands that are run before the app's start and after its end.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub event_handlers: Vec<EventHandler>,
    /// User: number, name, or path in the image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub user: String,
    /// Group: number, name, or path in the image.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub group: String,
    /// Supplementary group ids.
    #[serde(
        rename = "supplementaryGIDs",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_default"
    )]
    pub supplementary_gids: Vec<u32>,
    /// Absolute path in the app, or empty.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub working_directory: String,
    /// Environment variables.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub environment: Vec<NameValue>,
    /// Paths at which volumes are to be mounted.
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
    /// Unknown fields, kept when the manifest is rewritten.
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
    /// Labels: `version`, `os`, `arch` and others.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub labels: Vec<NameValue>,
    /// How it is run. An image without this needs an `app` section in the pod manifest, or serves as a dependency.
    #[serde(skip_serializing_if = "is_default")]
    pub app: Option<App>,
    /// Annotations.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub annotations: Vec<NameValue>,
    /// Images that this one is built upon.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub dependencies: Vec<Dependency>,
    /// If not empty, the only paths that the rendered image has.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub path_whitelist: Vec<String>,
    /// Unknown fields, kept when the manifest is rewritten.
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
    /// Image id.
    #[serde(rename = "imageID", skip_serializing_if = "is_default")]
    pub image_id: Option<String>,
    /// Labels that it must have.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub labels: Vec<NameValue>,
    /// Size in bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub size: Option<u64>,
    /// Unknown fields, kept when the manifest is rewritten.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The `acKind` of an image manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageKind {
    /// The only value.
    ImageManifest,
}

impl ImageManifest {
    /// A manifest with a name and nothing else.
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

    /// Parses and validates JSON.
    ///
    /// # Errors
    /// `text` is not JSON, a field has the wrong type, or the `app` section is not valid.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let manifest: Self = json::parse(text).context(|| "not a valid image manifest")?;
        manifest.app.as_ref().map_or(Ok(()), App::validate).context(|| "not a valid image manifest")?;
        Ok(manifest)
    }

    /// Whether the image was converted from Docker's format.
    pub fn is_converted(&self) -> bool {
        find(&self.annotations, CONVERTED).is_some()
    }
}
