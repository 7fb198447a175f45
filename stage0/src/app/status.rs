//! The status of the apps of a pod.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};
use stage1::appc::{AcName, Mount, PodManifest, RuntimeApp, VolumeKind};
use stage1::error::Result;
use stage1::layout;
use stage1::pod::{AppState, ExitDetails, Health, State};

use super::host_record::AppRecord;
use super::restart_times::{self, Past};
use super::{oom, start_lock};
use crate::fsutil::time::rfc3339;
use crate::poddir::find::Pod;
use crate::poddir::manifest::{self, NoApp};
use crate::poddir::pause;

/// The times of a pod or an app as RFC 3339, for programs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Times {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<String>,
}

impl Times {
    /// From nanoseconds since 1970: when it was made, last started, and ended.
    pub fn of([created, started, finished]: [Option<i64>; 3]) -> Self {
        Self { created: created.map(rfc3339), started: started.map(rfc3339), finished: finished.map(rfc3339) }
    }
}

/// The status of an app, with the fields of rkt's `lib.App`, whose times are nanoseconds since 1970; and further ones.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AppStatus {
    /// The app's name.
    pub name: String,
    /// `unknown`, `created`, `running` or `exited`.
    pub state: String,
    /// Whether its removal was interrupted, or is going on.
    #[serde(skip_serializing_if = "is_default")]
    pub half_removed: bool,
    /// When it was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<i64>,
    /// When it was last started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<i64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<i64>,
    /// The same times as RFC 3339.
    #[serde(flatten)]
    pub times: Times,
    /// Its exit status, or 128 plus the number of the signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The name of the signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<String>,
    /// Whether it dumped core.
    #[serde(skip_serializing_if = "is_default")]
    pub core_dumped: bool,
    /// Whether the kernel's OOM killer killed one of its processes because of its memory limit.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_killed: bool,
    /// How many processes of the running app the kernel has killed for lack of memory since it was started.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_kills: u64,
    /// Whether its health check ended it, because it was unhealthy.
    #[serde(skip_serializing_if = "is_default")]
    pub unhealthy: bool,
    /// Why it could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_failure: Option<String>,
    /// Whether the user stopped it; not set if it had run out of memory, or its restart policy had given up on it.
    #[serde(skip_serializing_if = "is_default")]
    pub stopped: bool,
    /// Whether it runs, and it or its whole pod is paused.
    pub paused: bool,
    /// How often its restart policy has started it again since `app start` or the pod's start.
    #[serde(skip_serializing_if = "is_default")]
    pub restarts: u32,
    /// Whether its restart policy is about to start it again; it counts as running meanwhile.
    #[serde(skip_serializing_if = "is_default")]
    pub restarting: bool,
    /// Whether its restart policy has given up on it.
    #[serde(skip_serializing_if = "is_default")]
    pub gave_up: bool,
    /// The state of its health check; `None` if it has none or does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthStatus>,
    /// How its last run ended, if it was started again since, or is about to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_end: Option<LastEnd>,
    /// The id of its image.
    pub image_id: String,
    /// Its mounted volumes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountStatus>,
    /// The user's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_annotations: BTreeMap<String, String>,
    /// The user's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub user_labels: BTreeMap<String, String>,
}

/// The state of an app's health check.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HealthStatus {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// How many checks have failed in a row.
    pub failures: u32,
    /// The exit status of the last check; `None` if it timed out, or before the first check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// The end of the last check's output.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// Whether the last check timed out.
    #[serde(skip_serializing_if = "is_default")]
    pub timed_out: bool,
}

impl From<Health> for HealthStatus {
    fn from(health: Health) -> Self {
        let timed_out = health.last.as_ref().is_some_and(|last| last.exit_code.is_none());
        let last = health.last.unwrap_or_default();
        Self {
            status: health.status.word().to_owned(),
            failures: health.failures,
            exit_code: last.exit_code,
            output: last.output,
            timed_out,
        }
    }
}

/// How the run of an app before the present one ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LastEnd {
    /// Its exit status, or 128 plus the number of the signal that killed it.
    pub exit_code: u8,
    /// The name of the signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_signal: Option<String>,
    /// Whether the kernel's OOM killer killed one of its processes because of its memory limit.
    #[serde(skip_serializing_if = "is_default")]
    pub oom_killed: bool,
    /// Whether its health check ended it, because it was unhealthy.
    #[serde(skip_serializing_if = "is_default")]
    pub unhealthy: bool,
    /// Why it could not be started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_failure: Option<String>,
    /// When it ended, in nanoseconds since 1970.
    pub at: i64,
    /// The same as RFC 3339.
    pub finished: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A mounted volume, with the fields of rkt's `lib.Mount`.
#[derive(Clone, Debug, Serialize)]
pub struct MountStatus {
    /// The name of the volume.
    pub name: String,
    /// Its mount point in the app.
    pub container_path: String,
    /// Its path on the host; empty if the pod has no such volume.
    pub host_path: String,
    /// Whether it is mounted read-only.
    pub read_only: bool,
}

/// The status of all apps of a pod, in the manifest's order.
///
/// # Errors
/// The manifest or a status can't be read.
pub fn list(pod: &Pod) -> Result<Vec<AppStatus>> {
    // a pod that failed to be prepared may have no manifest
    if !pod.dir().join(layout::MANIFEST).exists() {
        return Ok(Vec::new());
    }
    let manifest = manifest::read(pod.dir())?;
    manifest.apps.iter().map(|app| describe(pod, &manifest, app)).collect()
}

/// Labels or annotations: names and values.
type Texts = BTreeMap<String, String>;

/// The user's labels and annotations of a pod itself.
///
/// # Errors
/// The manifest can't be read.
pub fn labels(pod: &Pod) -> Result<(Texts, Texts)> {
    if !pod.dir().join(layout::MANIFEST).exists() {
        return Ok((Texts::new(), Texts::new()));
    }
    let manifest = manifest::read(pod.dir())?;
    Ok((texts(&manifest.user_labels), texts(&manifest.user_annotations)))
}

/// The status of one app of a pod.
///
/// # Errors
/// The pod has no such app, or its status can't be read.
pub fn status(pod: &Pod, name: &AcName) -> Result<AppStatus> {
    let manifest = manifest::read(pod.dir())?;
    let app = manifest.app(name).with_no_app(pod, name)?;
    describe(pod, &manifest, app)
}

fn describe(pod: &Pod, manifest: &PodManifest, app: &RuntimeApp) -> Result<AppStatus> {
    let mut status = start_lock::status(pod, manifest, &app.name)?;
    let own = app.app.as_ref();
    let details = status.details.unwrap_or_default();
    let (restarts, restarting, gave_up) = (details.restarts, details.restarting, details.gave_up);
    let past = if restarts > 0 { restart_times::of_app(pod, &app.name) } else { Past::default() };
    // the marker has the time of the first start
    let is_starting = status.state == AppState::Running && !restarting && past.started < past.ended;
    // a start that is not recorded yet has rewritten the details
    let last = if is_starting { status.details_at } else { past.started };
    status.started_at = status.started_at.map(|first| last.unwrap_or(first).max(first));
    let (end, last_end) = match (status.state, status.details_at) {
        (AppState::Running, Some(at)) => {
            let ExitDetails { exit_code, signal, oom_killed, unhealthy, start_failure, .. } = details;
            let at = past.ended.unwrap_or(at);
            let exit_signal = signal;
            let finished = rfc3339(at);
            let last = LastEnd { exit_code, exit_signal, oom_killed, unhealthy, start_failure, at, finished };
            (ExitDetails::default(), Some(last))
        }
        _ => (details, None),
    };
    let is_failure = end.is_end_by_oom() || end.unhealthy || end.start_failure.is_some() || gave_up;
    Ok(AppStatus {
        name: app.name.to_string(),
        state: status.state.word().to_owned(),
        half_removed: is_half_removed(pod, manifest, &app.name, status.created_at)?,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        times: Times::of([status.created_at, status.started_at, status.finished_at]),
        exit_code: status.exit_code,
        exit_signal: end.signal,
        core_dumped: end.core_dumped,
        oom_killed: end.oom_killed,
        oom_kills: if status.state == AppState::Running && !restarting { oom::kills(pod, &app.name) } else { 0 },
        unhealthy: end.unhealthy,
        stopped: status.state == AppState::Exited && !is_failure && was_stopped(pod, manifest, &app.name)?,
        paused: status.state == AppState::Running && is_paused(pod, &app.name)?,
        start_failure: end.start_failure,
        restarts,
        restarting,
        gave_up,
        health: status.health.filter(|_| !restarting).map(HealthStatus::from),
        last_end,
        image_id: app.image.id.clone(),
        mounts: app.mounts.iter().map(|mount| describe_mount(pod, manifest, mount)).collect(),
        user_annotations: own.map(|app| texts(&app.user_annotations)).unwrap_or_default(),
        user_labels: own.map(|app| texts(&app.user_labels)).unwrap_or_default(),
    })
}

/// Whether `app stop`, or what calls it, was the last to change whether the app runs. Not known of immutable pods, and
/// of apps that another host manager added.
fn was_stopped(pod: &Pod, manifest: &PodManifest, app: &AcName) -> Result<bool> {
    let record = AppRecord::new(pod.dir(), app);
    Ok(manifest.is_mutable()? && record.exists() && !record.is_wanted())
}

fn is_paused(pod: &Pod, app: &AcName) -> Result<bool> {
    Ok(pause::is_paused(pod, None)? || pause::is_paused(pod, Some(app))?)
}

/// Whether a listed app lacks the marker `APP-created`: a removal deletes that first, and the manifest's entry last.
fn is_half_removed(pod: &Pod, manifest: &PodManifest, app: &AcName, created_at: Option<i64>) -> Result<bool> {
    let may_have = matches!(pod.state(), State::Running | State::Exited) && manifest.is_mutable()?;
    Ok(may_have && created_at.is_none() && !manifest::is_being_added(pod.dir(), app))
}

fn describe_mount(pod: &Pod, manifest: &PodManifest, mount: &Mount) -> MountStatus {
    let of_pod = || manifest.volumes.iter().find(|volume| volume.name == mount.volume);
    let volume = mount.app_volume.as_ref().or_else(of_pod);
    let host_path = match volume.map(|volume| (volume.kind, &volume.source)) {
        Some((VolumeKind::Host, source)) => source.clone().map(PathBuf::from).unwrap_or_default(),
        Some((VolumeKind::Empty, _)) => pod.dir().join(layout::shared_volume(&mount.volume)),
        None => PathBuf::new(),
    };
    // mounting refuses an invalid path
    let host_path = match mount.sub_path() {
        Ok(Some(part)) => host_path.join(part),
        _ => host_path,
    };
    MountStatus {
        name: mount.volume.to_string(),
        container_path: mount.path.clone(),
        host_path: host_path.to_string_lossy().into_owned(),
        read_only: volume.and_then(|volume| volume.read_only).unwrap_or(false),
    }
}

/// The entries whose values are strings.
fn texts(map: &Map<String, Value>) -> BTreeMap<String, String> {
    map.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/apps.md has a table of all fields.
    #[test]
    fn every_field_is_documented() {
        let page = include_str!("../../../docs/apps.md");
        let table: Vec<&str> = page.lines().skip_while(|line| !line.starts_with("| field |")).collect();
        let all = AppStatus {
            name: String::new(),
            state: String::new(),
            paused: true,
            image_id: String::new(),
            half_removed: true,
            created_at: Some(1),
            started_at: Some(1),
            finished_at: Some(1),
            times: Times::of([Some(1); 3]),
            exit_code: Some(1),
            exit_signal: Some(String::new()),
            core_dumped: true,
            oom_killed: true,
            oom_kills: 1,
            unhealthy: true,
            start_failure: Some(String::new()),
            stopped: true,
            restarts: 1,
            restarting: true,
            gave_up: true,
            health: Some(HealthStatus::default()),
            last_end: Some(LastEnd::default()),
            mounts: vec![MountStatus {
                name: String::new(),
                container_path: String::new(),
                host_path: String::new(),
                read_only: false,
            }],
            user_annotations: BTreeMap::from([(String::new(), String::new())]),
            user_labels: BTreeMap::from([(String::new(), String::new())]),
        };
        let serde_json::Value::Object(fields) = serde_json::to_value(all).unwrap() else { panic!() };
        for name in fields.keys().filter(|name| !name.ends_with("_at")) {
            let is_there = table
                .iter()
                .take_while(|line| line.starts_with('|'))
                .any(|line| line.split('|').nth(1).is_some_and(|names| names.contains(&format!("`{name}`"))));
            assert!(is_there, "{name} is not in the table");
        }
    }
}
