//! The pods of a file as options of the host manager.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};
use stage1::appc::{ExposedPort, Isolator};

use crate::app::options::AddOptions;
use crate::pod::settings::Settings;
use crate::pod::sysctl::Sysctls;
use crate::poddir::name::PodName;
use crate::volume::content::Content;
use crate::volume::name::VolumeName;

/// A pod of the file.
#[derive(Debug)]
pub struct PodPlan {
    /// Its name.
    pub name: PodName,
    /// Its settings.
    pub settings: Settings,
    /// Its published ports.
    pub ports: Vec<ExposedPort>,
    /// The isolators of the whole pod.
    pub isolators: Vec<Isolator>,
    /// Its kernel parameters.
    pub sysctls: Sysctls,
    /// Whether it has its own user namespace.
    pub private_users: bool,
    /// The user's labels.
    pub labels: Map<String, Value>,
    /// The user's annotations.
    pub annotations: Map<String, Value>,
    /// Its apps, in the order in which they are started.
    pub apps: Vec<AppPlan>,
    /// Its volumes with files of ConfigMaps and Secrets.
    pub contents: Vec<Content>,
    /// The GID of the group of its new volumes.
    pub fs_group: Option<u32>,
    /// The named volumes that it claims, with the labels of new ones.
    pub claims: BTreeMap<VolumeName, BTreeMap<String, String>>,
    /// The directories and files of the host that are to be made, because the file says so and they do not exist.
    pub host_paths: Vec<HostPath>,
}

impl PodPlan {
    /// A pod that has a name and nothing else.
    pub fn named(name: PodName) -> Self {
        Self {
            name,
            settings: Settings::default(),
            ports: Vec::new(),
            isolators: Vec::new(),
            sysctls: BTreeMap::new(),
            private_users: false,
            labels: Map::new(),
            annotations: Map::new(),
            apps: Vec::new(),
            contents: Vec::new(),
            fs_group: None,
            claims: BTreeMap::new(),
            host_paths: Vec::new(),
        }
    }
}

/// A directory or file of the host.
#[derive(Debug, PartialEq, Eq)]
pub struct HostPath {
    /// Its absolute path.
    pub path: PathBuf,
    /// Whether it is a directory, not a file.
    pub is_directory: bool,
}

/// When to pull an image (`imagePullPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// If the store does not have it.
    #[default]
    IfNotPresent,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// An app of the file.
#[derive(Debug)]
pub struct AppPlan {
    /// Its options without its command; the image's name is that of the file.
    pub options: AddOptions,
    /// When to pull its image.
    pub pull: Pull,
    /// The words in place of the image's entrypoint.
    pub command: Vec<String>,
    /// The words in place of the image's command.
    pub args: Vec<String>,
    /// Whether it runs to its end before later apps are started.
    pub init: bool,
    /// Whether it is tried again if it fails: an init container, unless the pod's restartPolicy is Never.
    pub retried: bool,
    /// Whether to refuse to run it as root.
    pub non_root: bool,
}
