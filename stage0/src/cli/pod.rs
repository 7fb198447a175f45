//! The verbs on whole pods.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use stage1::appc::AcName;
use stage1::error::{Context, Error, Result};

use super::{Format, Session, app, format, say};
use crate::apps::{self, AppStatus};
use crate::pods::{self, Pod};
use crate::wait::{self, Until};
use crate::{enter, gc, networks, stop};

#[derive(Args, Debug)]
pub struct Enter {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// The app to enter (else the pod around its apps)
    #[arg(long)]
    app: Option<String>,
    #[command(flatten)]
    how: How,
}

/// How a command is run in a pod, and which.
#[derive(Args, Debug)]
pub struct How {
    /// The user it runs as: a name, a number, or a path in the image whose owner is meant; and the group
    #[arg(long, value_name = "USER[:GROUP]", allow_hyphen_values = true)]
    user: Option<String>,
    /// A variable of its environment
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The directory it starts in
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// With all capabilities and without a seccomp filter, to look into what the app can't do
    #[arg(long)]
    privileged: bool,
    /// Whether it gets a terminal; -t alone is for always
    #[arg(
        short, long, value_enum, default_value = "auto", default_missing_value = "always", num_args = 0..=1,
        require_equals = true, value_name = "WHEN"
    )]
    tty: Tty,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// When a command gets a terminal.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Tty {
    /// If podctl has one
    Auto,
    /// In any case
    Always,
    /// In no case
    Never,
}

impl How {
    /// Replaces this process by the command's companion.
    pub fn enter(self, session: &Session, pod: &Pod, app: Option<&AcName>) -> Result<()> {
        let (user, group) = match self.user {
            Some(both) => match both.split_once(':') {
                Some((user, group)) => (Some(user.to_owned()), Some(group.to_owned())),
                None => (Some(both), None),
            },
            None => (None, None),
        };
        let options = enter::Options {
            user,
            group,
            environment: self.env,
            working_directory: self.workdir,
            privileged: self.privileged,
            tty: match self.tty {
                Tty::Auto => None,
                Tty::Always => Some("always"),
                Tty::Never => Some("never"),
            },
        };
        match enter::enter(&session.store, pod, app, &options, &self.command)? {}
    }
}

impl Enter {
    pub fn run(self, session: &Session) -> Result<()> {
        let app = self.app.as_ref().map(|app| app.parse::<AcName>().context(|| "app name")).transpose()?;
        let pod = pods::find(&session.store, &self.uuid)?;
        self.how.enter(session, &pod, app.as_ref())
    }
}

/// A pod as rkt's api describes one.
#[derive(Serialize)]
struct PodStatus {
    name: String,
    state: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    networks: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    app_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    apps: Vec<AppStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gc_marked_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
}

impl PodStatus {
    fn of(pod: &Pod) -> Result<Self> {
        let apps = apps::list(pod)?;
        Ok(Self {
            name: pod.uuid().to_string(),
            state: pod.state().word().to_owned(),
            networks: networks::of(pod)?,
            app_names: apps.iter().map(|app| app.name.clone()).collect(),
            apps,
            created_at: pod.created_at()?,
            started_at: pod.started_at()?,
            gc_marked_at: pod.marked_at()?,
            pid: pod.pid_if_running()?,
        })
    }
}

#[derive(Args, Debug)]
pub struct List {
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl List {
    pub fn run(self, session: &Session) -> Result<()> {
        let mut listed = Vec::new();
        for pod in pods::list(&session.store)? {
            // one pod that can't be read does not hide the others
            match pods::while_others_work(&session.store, &pod, PodStatus::of) {
                // none if another process has just removed it
                Ok(status) => listed.extend(status),
                Err(error) => log::warn!("pod {}: {}", pod.uuid(), error.one_line()),
            }
        }
        listed.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        match self.format {
            Format::Json => format::json(&listed),
            Format::Text => format::table(
                ["UUID", "STATE", "CREATED", "STARTED", "NETWORKS", "APPS"],
                listed.into_iter().map(|pod| {
                    let times = [pod.created_at, pod.started_at].map(format::time);
                    let [created, started] = times;
                    let networks = networks::line(&pod.networks);
                    [pod.name, pod.state, created, started, networks, pod.app_names.join(", ")]
                }),
            ),
        }
    }
}

#[derive(Args, Debug)]
pub struct Status {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Wait before that until the pod has ended, so long at most
    #[arg(
        long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "forever",
        conflicts_with = "wait_ready"
    )]
    wait: Option<Patience>,
    /// Wait before that until the pod takes apps, so long at most
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "forever")]
    wait_ready: Option<Patience>,
}

/// How long somebody waits.
#[derive(Clone, Copy, Debug)]
struct Patience(Option<Duration>);

impl FromStr for Patience {
    type Err = humantime::DurationError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "forever" => Ok(Self(None)),
            text => humantime::parse_duration(text).map(Some).map(Self),
        }
    }
}

impl Patience {
    /// When it ends.
    fn deadline(self) -> Option<Instant> {
        self.0.and_then(|time| Instant::now().checked_add(time))
    }
}

impl Status {
    pub fn run(self, session: &Session) -> Result<()> {
        let mut pod = pods::find(&session.store, &self.uuid)?;
        let waits = [(self.wait, Until::Ended), (self.wait_ready, Until::Ready)];
        for (patience, until) in waits {
            if let Some(patience) = patience {
                wait::wait(&session.store, &pod, until, patience.deadline())
                    .context(|| format!("wait for pod {}", pod.short()))?;
                pod = pods::find_whole(&session.store, pod.uuid())?;
            }
        }
        let mut status = pods::look(&session.store, &pod, PodStatus::of)?;
        networks::check(&pod, &mut status.networks)?;
        if self.format == Format::Json {
            return format::json(&status);
        }
        say(format!("uuid={}\nstate={}\ncreated={}", status.name, status.state, format::time(status.created_at)))?;
        if let Some(started) = status.started_at {
            say(format!("started={}", format::time(Some(started))))?;
        }
        if let Some(pid) = status.pid {
            say(format!("pid={pid}"))?;
        }
        if !status.networks.is_empty() {
            say(format!("networks={}", networks::line(&status.networks)))?;
        }
        for network in &status.networks {
            match &network["check"] {
                Value::String(why) if why != "ok" => {
                    log::warn!("network {}: {why}", network["netName"].as_str().unwrap_or_default());
                }
                _ => {}
            }
        }
        if status.apps.is_empty() { Ok(()) } else { app::print_apps(&status.apps, Format::Text) }
    }
}

#[derive(Args, Debug)]
pub struct Wait {
    /// How long at most (else as long as it takes)
    #[arg(long, value_name = "DURATION")]
    timeout: Option<humantime::Duration>,
    /// UUIDs of pods, or the start of them
    #[arg(required = true, value_name = "UUID")]
    uuids: Vec<String>,
}

impl Wait {
    pub fn run(self, session: &Session) -> Result<()> {
        let deadline = Patience(self.timeout.map(Into::into)).deadline();
        each(&self.uuids, |uuid| {
            let pod = pods::find(&session.store, uuid)?;
            wait::wait(&session.store, &pod, Until::Ended, deadline).context(|| format!("wait for pod {}", pod.short()))
        })
    }
}

#[derive(Args, Debug)]
pub struct Stop {
    /// Kill at once instead of an orderly end
    #[arg(long)]
    force: bool,
    /// UUIDs of pods, or the start of them
    #[arg(required = true, value_name = "UUID")]
    uuids: Vec<String>,
}

impl Stop {
    pub fn run(self, session: &Session) -> Result<()> {
        each(&self.uuids, |uuid| {
            let pod = pods::find(&session.store, uuid)?;
            stop::stop(&session.store, &pod, self.force, session.debug).context(|| format!("stop pod {}", pod.short()))
        })
    }
}

#[derive(Args, Debug)]
pub struct Rm {
    /// UUIDs of pods, or the start of them
    #[arg(required = true, value_name = "UUID")]
    uuids: Vec<String>,
}

impl Rm {
    pub fn run(self, session: &Session) -> Result<()> {
        each(&self.uuids, |uuid| {
            let pod = pods::find(&session.store, uuid)?;
            let short = pod.short();
            gc::rm(&session.store, pod, session.debug).context(|| format!("remove pod {short}"))
        })
    }
}

#[derive(Args, Debug)]
pub struct Gc {
    /// How long ago a pod must have ended to be removed
    #[arg(long, value_name = "DURATION", default_value = "30m")]
    grace_period: humantime::Duration,
    /// How long a pod may stay prepared without being run
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    expire_prepared: humantime::Duration,
    /// Only mark the pods whose time begins to run, and remove none
    #[arg(long)]
    mark_only: bool,
}

impl Gc {
    pub fn run(self, session: &Session) -> Result<()> {
        let (grace, prepared) = (self.grace_period.into(), self.expire_prepared.into());
        gc::all(&session.store, gc::Rules { grace, prepared, mark_only: self.mark_only }, session.debug)
    }
}

/// Does all of them, also after one has failed.
fn each(uuids: &[String], work: impl Fn(&str) -> Result<()>) -> Result<()> {
    let mut failed = Vec::new();
    for uuid in uuids {
        if let Err(error) = work(uuid) {
            failed.push(error);
        }
    }
    match failed.pop() {
        None => Ok(()),
        Some(only) if failed.is_empty() => Err(only),
        Some(last) => {
            failed.push(last);
            let lines: Vec<_> = failed.iter().map(Error::one_line).collect();
            Err(Error::new(lines.join("; ")))
        }
    }
}
