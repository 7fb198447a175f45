//! `podctl inspect`

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use stage1::appc::{AcName, Isolator, NameValue, PodManifest, VolumeKind};
use stage1::cgroup::{PodCgroup, Version};
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::pod::RuntimeConfig;
use stage1::rootfs::volumes;

use super::args::one_app::OneApp;
use super::output::{self, Format};
use super::session::Session;
use super::status::PodStatus;
use crate::app::mountinfo::{self, Mounted};
use crate::app::processes;
use crate::app::record::record;
use crate::app::status::AppStatus;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::manifest::must_have;
use crate::poddir::uid_range;

#[derive(Args, Debug)]
pub struct Inspect {
    #[command(flatten)]
    one: OneApp,
    /// Print it as json, or as text with one line for each value: limits.memory=67108864
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

impl Inspect {
    /// Prints the configuration and state of a pod, or of one of its apps.
    pub fn run(&self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find_named(session)?;
        app.as_ref().map_or(Ok(()), |app| must_have(&pod, app))?;
        let status = pods::look(&session.store, &pod, PodStatus::of)?;
        // a pod whose preparation did not finish has a status only
        if !pod.dir().join(layout::MANIFEST).exists() {
            return output::values(&status, self.format);
        }
        let loaded = stage1::pod::Pod::load(pod.dir())?;
        match app {
            Some(app) => output::values(&of_app(&pod, &loaded, &status, &app)?, self.format),
            None => output::values(&of_pod(&pod, &loaded, &status)?, self.format),
        }
    }
}

/// A pod with its configuration.
#[derive(Serialize)]
struct Inspected<'a> {
    #[serde(flatten)]
    status: &'a PodStatus,
    directory: &'a Path,
    /// The pod's cgroup in each hierarchy.
    cgroups: BTreeMap<String, String>,
    /// `shift:count` of the pod's user namespace; `None` if it uses the host's.
    private_users: Option<String>,
    /// The options that the pod was run with; `None` if it was never run.
    runtime: Option<RuntimeConfig>,
    volumes: Value,
    annotations: BTreeMap<String, String>,
    isolators: &'a [Isolator],
    limits: Limits,
    inspected_apps: Vec<App>,
}

/// An app with its configuration.
#[derive(Serialize)]
struct App {
    #[serde(flatten)]
    status: AppStatus,
    image: Value,
    /// The PID on the host of the app's first process.
    pid: Option<i32>,
    cgroups: BTreeMap<String, String>,
    exec: Vec<String>,
    environment: BTreeMap<String, String>,
    working_directory: String,
    user: u32,
    group: u32,
    supplementary_groups: Vec<u32>,
    capabilities: Value,
    no_new_privileges: bool,
    /// `filtered` or `unconfined`.
    seccomp: &'static str,
    read_only_rootfs: bool,
    streams: Value,
    isolators: Vec<Isolator>,
    limits: Limits,
    /// The app's volumes, with those that only the image declares.
    volumes: Vec<Volume>,
    /// All mounts that the running app sees.
    mounts: Vec<Mounted>,
    annotations: BTreeMap<String, String>,
}

/// The limits that the kernel enforces; empty if none were set, or if nothing runs.
#[derive(Serialize)]
struct Limits {
    memory: Option<u64>,
    pids: Option<u64>,
    /// Millionths of one processor.
    cpu: Option<u64>,
}

#[derive(Serialize)]
struct Volume {
    name: String,
    target: String,
    source: String,
    read_only: bool,
    /// Whether only the image declares the volume.
    implicit: bool,
}

fn of_pod<'a>(pod: &'a Pod, loaded: &'a stage1::pod::Pod, status: &'a PodStatus) -> Result<Inspected<'a>> {
    let manifest: &PodManifest = &loaded.manifest;
    let ran = pod.dir().join(layout::RUNTIME_CONFIG).exists();
    let apps = manifest.apps.iter().map(|app| of_app(pod, loaded, status, &app.name));
    Ok(Inspected {
        status,
        directory: pod.dir(),
        cgroups: cgroups(pod, Path::new(""))?,
        private_users: uid_range::of_pod(pod.dir())?.map(|ids| ids.to_string()),
        runtime: ran.then(|| RuntimeConfig::load(pod.dir())).transpose()?,
        volumes: serde_json::to_value(&manifest.volumes).context(|| "volumes as JSON")?,
        annotations: pairs(&manifest.annotations),
        isolators: &manifest.isolators,
        limits: limits(pod, Path::new("")),
        inspected_apps: apps.collect::<Result<_>>()?,
    })
}

fn of_app(pod: &Pod, loaded: &stage1::pod::Pod, status: &PodStatus, name: &AcName) -> Result<App> {
    let listed = loaded.app(name)?;
    let app = listed.app()?;
    let status = status.apps.iter().find(|app| app.name == name.as_ref()).cloned();
    let record = record(pod, name)?;
    let place = layout::app_cgroup(name);
    let pid = match pod.pid_if_running()? {
        Some(_) => processes::list(pod, Some(name))?.first().map(|member| member.pid),
        None => None,
    };
    let ids = record.as_ref().map(|record| &record.confinement);
    let own = || app.environment.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect();
    Ok(App {
        status: status.context(|| format!("app {name} was just removed"))?,
        image: serde_json::to_value(&listed.runtime.image).context(|| "the image as JSON")?,
        pid,
        cgroups: cgroups(pod, &place)?,
        exec: record.as_ref().map_or_else(|| app.exec.clone(), |record| record.exec.clone()),
        environment: record.as_ref().map_or_else(own, |record| record.environment.iter().cloned().collect()),
        working_directory: record
            .as_ref()
            .map_or_else(|| app.working_directory.clone(), |record| record.working_directory.clone()),
        user: ids.map_or(0, |ids| ids.uid),
        group: ids.map_or(0, |ids| ids.gid),
        supplementary_groups: ids.map(|ids| ids.groups.clone()).unwrap_or_default(),
        capabilities: json!(ids.map(|ids| ids.capabilities)),
        no_new_privileges: ids.is_some_and(|ids| ids.no_new_privileges),
        seccomp: if ids.is_some_and(|ids| ids.seccomp.is_some()) { "filtered" } else { "unconfined" },
        read_only_rootfs: listed.runtime.read_only_root_fs,
        streams: json!(record.as_ref().map(|record| record.streams)),
        isolators: app.isolators.clone(),
        limits: limits(pod, &place),
        volumes: volumes_of(pod, loaded, &listed)?,
        mounts: pid.map_or(Ok(Vec::new()), mountinfo::of_process)?,
        annotations: pairs(&listed.runtime.annotations),
    })
}

fn volumes_of(pod: &Pod, loaded: &stage1::pod::Pod, app: &stage1::pod::PodApp) -> Result<Vec<Volume>> {
    let mapped = volumes::resolve(&app.runtime, app.app()?, &loaded.manifest.volumes, |path| Ok(path.to_owned()))?;
    let shown = mapped.into_iter().map(|mapping| {
        let source = match mapping.volume.kind {
            VolumeKind::Host => mapping.volume.source.clone().unwrap_or_default(),
            VolumeKind::Empty => pod.dir().join(layout::shared_volume(&mapping.volume.name)).display().to_string(),
        };
        let source = match &mapping.part {
            Some(part) => Path::new(&source).join(part).display().to_string(),
            None => source,
        };
        Volume {
            name: mapping.volume.name.to_string(),
            target: mapping.target.display().to_string(),
            source,
            read_only: mapping.read_only,
            implicit: mapping.implicit,
        }
    });
    Ok(shown.collect())
}

/// The directories of the cgroup `place` of the pod, by hierarchy.
fn cgroups(pod: &Pod, place: &Path) -> Result<BTreeMap<String, String>> {
    if !pod.dir().join(layout::SUBCGROUP).exists() {
        return Ok(BTreeMap::new());
    }
    let cgroup = PodCgroup::recorded(pod.dir())?;
    let found = cgroup.directories().filter(|(_, dir)| dir.join(place).is_dir()).map(|(hierarchy, _)| {
        let name = match hierarchy.version {
            Version::V2 => "unified".to_owned(),
            Version::V1 => hierarchy.controllers.join(","),
        };
        (name, Path::new("/").join(cgroup.path()).join(place).display().to_string())
    });
    Ok(found.collect())
}

fn limits(pod: &Pod, place: &Path) -> Limits {
    let cgroup = PodCgroup::recorded(pod.dir()).ok();
    let usage = cgroup.as_ref().map(|cgroup| cgroup.usage(place)).unwrap_or_default();
    let cpu = cgroup.and_then(|cgroup| cgroup.cpu_limit(place));
    Limits { memory: usage.memory_limit, pids: usage.pids_limit, cpu }
}

fn pairs(annotations: &[NameValue]) -> BTreeMap<String, String> {
    annotations.iter().map(|pair| (pair.name.clone(), pair.value.clone())).collect()
}
