//! What a file asks for, in the words of the host manager.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use stage1::appc::{ExposedPort, Isolator};

use crate::app::options::AddOptions;
use crate::pod::settings::Settings;
use crate::pod::sysctl::Sysctls;
use crate::poddir::name::PodName;
use crate::volume::content::Content;
use crate::volume::name::VolumeName;

/// A pod as the file describes it.
#[derive(Debug)]
pub struct PodPlan {
    /// Its name.
    pub name: PodName,
    /// How it is run.
    pub settings: Settings,
    /// Published ports of the host.
    pub ports: Vec<ExposedPort>,
    /// Limits of the whole pod.
    pub isolators: Vec<Isolator>,
    /// Its kernel parameters.
    pub sysctls: Sysctls,
    /// Whether it has user ids of its own.
    pub private_users: bool,
    /// The user's labels.
    pub labels: Map<String, Value>,
    /// The user's annotations.
    pub annotations: Map<String, Value>,
    /// Its apps, in the order in which they are started.
    pub apps: Vec<AppPlan>,
    /// Files that its apps find in volumes.
    pub contents: Vec<Content>,
    /// The group that its new volumes belong to.
    pub fs_group: Option<u32>,
    /// Named volumes, with the labels that they get when they are made.
    pub claims: BTreeMap<VolumeName, BTreeMap<String, String>>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// If it is missing.
    #[default]
    IfNotPresent,
    /// Always: the registry may have a newer one.
    Always,
    /// Never.
    Never,
}

/// An app that is to be.
#[derive(Debug)]
pub struct AppPlan {
    /// All but its command; its image as the file names it.
    pub options: AddOptions,
    /// When its image is pulled.
    pub pull: Pull,
    /// Instead of the image's entrypoint.
    pub command: Vec<String>,
    /// Instead of the image's command.
    pub args: Vec<String>,
    /// It runs to its end before those after it are started.
    pub init: bool,
    /// It must not run as root.
    pub non_root: bool,
}
