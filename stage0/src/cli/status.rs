//! `podctl status`

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use stage1::error::{Context, Result};

use super::args::listing::Listing;
use super::args::patience::Patience;
use super::args::pod::OnePod;
use super::output::{self, Format};
use super::session::Session;
use crate::app::status::{AppStatus, Times, labels, list};
use crate::fsutil::time::nanoseconds;
use crate::pod::network;
use crate::pod::published_port::{self, Published};
use crate::pod::wait::{self, Until};
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::pause;

/// The status of a pod, with the fields of rkt's `lib.Pod`, whose times are nanoseconds since 1970; and further ones.
#[derive(Serialize)]
pub(super) struct PodStatus {
    pub(super) name: String,
    /// The name that the user gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pod_name: Option<String>,
    pub(super) state: String,
    /// Whether the whole pod is paused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) paused: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) networks: Vec<Value>,
    /// Its published ports, with the field names of the pod manifest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ports: Vec<Published>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) app_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) apps: Vec<AppStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<i64>,
    #[serde(flatten)]
    pub(super) times: Times,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gc_marked_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pid: Option<i32>,
    /// The user's labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) user_labels: BTreeMap<String, String>,
    /// The user's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) user_annotations: BTreeMap<String, String>,
}

impl PodStatus {
    pub(super) fn of(pod: &Pod) -> Result<Self> {
        let apps = list(pod)?;
        let (user_labels, user_annotations) = labels(pod)?;
        let [created_at, started_at] = [pod.created_at()?, pod.started_at()?].map(|time| time.map(nanoseconds));
        Ok(Self {
            name: pod.uuid().to_string(),
            pod_name: pod.name()?.map(|name| name.to_string()),
            state: pod.state().word().to_owned(),
            paused: pause::is_paused(pod, None)?,
            networks: network::of(pod)?,
            ports: published_port::of(pod)?,
            app_names: apps.iter().map(|app| app.name.clone()).collect(),
            apps,
            created_at,
            started_at,
            times: Times::of([created_at, started_at, None]),
            gc_marked_at: pod.marked_at()?.map(nanoseconds),
            pid: pod.pid_if_running()?,
            user_labels,
            user_annotations,
        })
    }
}

#[derive(Args, Debug)]
pub struct Status {
    #[command(flatten)]
    pod: OnePod,
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// First wait until the pod has ended, at most this long
    #[arg(
        long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "forever",
        conflicts_with = "wait_ready"
    )]
    wait: Option<Patience>,
    /// First wait until the pod takes app operations, at most this long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "forever")]
    wait_ready: Option<Patience>,
}

impl Status {
    pub fn run(self, session: &Session) -> Result<()> {
        let mut pod = self.pod.find(session)?;
        let waits = [(self.wait, Until::Ended), (self.wait_ready, Until::Ready)];
        for (patience, until) in waits {
            if let Some(patience) = patience {
                wait::wait(&session.store, &pod, until, patience.deadline())
                    .context(|| format!("wait for pod {}", pod.short()))?;
                pod = pods::find_whole(&session.store, pod.uuid())?;
            }
        }
        let mut status = pods::look(&session.store, &pod, PodStatus::of)?;
        network::check(&pod, &mut status.networks)?;
        if self.format == Format::Json {
            return output::json(&status);
        }
        output::say(format!("uuid={}", status.name))?;
        if let Some(name) = &status.pod_name {
            output::say(format!("name={name}"))?;
        }
        let state = if status.paused { "paused" } else { &status.state };
        output::say(format!("state={state}\ncreated={}", output::time(status.created_at)))?;
        if let Some(started) = status.started_at {
            output::say(format!("started={}", output::time(Some(started))))?;
        }
        if let Some(pid) = status.pid {
            output::say(format!("pid={pid}"))?;
        }
        if !status.networks.is_empty() {
            output::say(format!("networks={}", network::line(&status.networks)))?;
        }
        if !status.ports.is_empty() {
            let ports: Vec<String> = status.ports.iter().map(ToString::to_string).collect();
            output::say(format!("ports={}", ports.join(", ")))?;
        }
        for network in &status.networks {
            match &network["check"] {
                Value::String(why) if why != "ok" => {
                    log::warn!("network {}: {why}", network["netName"].as_str().unwrap_or_default());
                }
                _ => {}
            }
        }
        if status.apps.is_empty() { Ok(()) } else { output::print_apps(&status.apps, &Listing::table()) }
    }
}
