//! `podctl stats`

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use stage1::appc::AcName;
use stage1::cgroup::{PodCgroup, Usage};
use stage1::error::{Context, Result};
use stage1::layout;

use super::args::listing::ListFormat;
use super::output;
use super::screen::Tone;
use super::session::Session;
use super::table::{self, Cell};
use crate::app::processes::{self, Member};
use crate::cli::args::candidates::a_pod;
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State};
use crate::poddir::{manifest, pause};

/// The time between two measurements.
const INTERVAL: Duration = Duration::from_secs(1);

/// Prints the resource usage of pods and their apps every second, or once. Where the kernel has no counters for an app,
/// podctl adds up those of its processes. Memory is counted without the page cache that the kernel can drop at once.
#[derive(Args, Debug)]
pub struct Stats {
    /// Pods: their names, their UUIDs, or the start of these (default: all that run)
    #[arg(value_name = "POD", add = a_pod())]
    pods: Vec<String>,
    /// Print once instead of every second
    #[arg(long)]
    no_stream: bool,
    /// Print it as a table (text), as json with one line for each measurement, or only these columns, in lower case:
    /// pod,memory
    #[arg(long, default_value = "text", value_name = "text|json|COLUMN,…", value_parser = ListFormat::parse)]
    format: ListFormat,
}

/// The usage of a pod or an app, for programs: sizes in bytes, processor time in microseconds.
#[derive(Serialize, Clone, Debug)]
struct Shown {
    pod: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
    /// `None` for the pod as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<String>,
    /// Whether it is paused, or its whole pod is.
    paused: bool,
    cpu_us: u64,
    /// Processor time since the last measurement, in percent of one processor.
    cpu_percent: f64,
    memory: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<u64>,
    pids: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids_limit: Option<u64>,
}

/// The processor time in microseconds of each pod and app at the last measurement.
type Before = BTreeMap<(String, Option<String>), u64>;

impl Stats {
    pub fn run(self, session: &Session) -> Result<()> {
        let mut before = self.look(session)?;
        let mut since = Instant::now();
        loop {
            sleep(INTERVAL);
            let mut now = self.look(session)?;
            let passed = since.elapsed().as_secs_f64() * 1e6;
            since = Instant::now();
            let last = times(&before);
            for one in &mut now {
                let spent = last.get(&key(one)).map_or(0, |earlier| one.cpu_us.saturating_sub(*earlier));
                one.cpu_percent = (spent as f64 / passed * 1e4).round() / 100.0;
            }
            self.print(&now)?;
            if self.no_stream {
                return Ok(());
            }
            before = now;
        }
    }

    /// Measures the usage now.
    fn look(&self, session: &Session) -> Result<Vec<Shown>> {
        let store = &session.store;
        let wanted: Vec<Pod> = match self.pods.as_slice() {
            [] => pods::list(store)?.into_iter().filter(|pod| pod.state() == State::Running).collect(),
            some => some.iter().map(|pod| pods::find(store, pod)).collect::<Result<_>>()?,
        };
        let mut found = Vec::new();
        for pod in &wanted {
            match of_pod(pod) {
                Ok(shown) => found.extend(shown),
                // a pod that has ended meanwhile, or is just starting
                Err(error) if self.pods.is_empty() => log::debug!("pod {}: {}", pod.uuid(), error.one_line()),
                Err(error) => return Err(error).context(|| format!("pod {}", pod.short())),
            }
        }
        Ok(found)
    }

    fn print(&self, all: &[Shown]) -> Result<()> {
        if self.format == ListFormat::Json {
            return output::say(serde_json::to_string(all).context(|| "write as JSON")?);
        }
        if !self.no_stream && io::stdout().is_terminal() {
            // to the top of an empty screen
            io::stdout().write_all(b"\x1b[H\x1b[2J").context(|| "write to standard output")?;
        }
        table::show_states(
            ["POD", "APP", "CPU", "MEMORY", "LIMIT", "READ", "WRITTEN", "PIDS"],
            all.iter().map(row).collect(),
            false,
            self.format.columns(),
            &["WRITTEN", "READ"],
        )
    }
}

fn key(one: &Shown) -> (String, Option<String>) {
    (one.pod.clone(), one.app.clone())
}

fn times(all: &[Shown]) -> Before {
    all.iter().map(|one| (key(one), one.cpu_us)).collect()
}

/// A running pod, and each of its apps that has processes.
fn of_pod(pod: &Pod) -> Result<Vec<Shown>> {
    pods::running_pid(pod)?;
    let cgroup = PodCgroup::recorded(pod.dir())?;
    let mut found = vec![of_place(pod, &cgroup, None)?];
    for app in manifest::read(pod.dir())?.apps {
        if cgroup.unit_is_populated(&layout::app_cgroup(&app.name))? {
            found.push(of_place(pod, &cgroup, Some(&app.name))?);
        }
    }
    Ok(found)
}

fn of_place(pod: &Pod, cgroup: &PodCgroup, app: Option<&AcName>) -> Result<Shown> {
    let place = app.map(layout::app_cgroup).unwrap_or_default();
    let Usage { cpu_us, memory, memory_limit, read, written, pids, pids_limit } = cgroup.usage(Path::new(&place));
    let counted = cpu_us.is_some() && memory.is_some() && pids.is_some();
    let members: Vec<Member> = if counted { Vec::new() } else { processes::list(pod, app)? };
    let sum = |of: fn(&Member) -> u64| members.iter().map(of).sum();
    Ok(Shown {
        pod: pod.uuid().to_string(),
        pod_name: pod.name()?.map(|name| name.to_string()),
        app: app.map(ToString::to_string),
        paused: pause::is_paused(pod, None)? || app.is_some() && pause::is_paused(pod, app)?,
        cpu_us: cpu_us.unwrap_or_else(|| sum(|member| member.cpu_us)),
        cpu_percent: 0.0,
        memory: memory.unwrap_or_else(|| sum(|member| member.memory)),
        memory_limit,
        read,
        written,
        pids: pids.unwrap_or_else(|| sum(|member| member.threads)),
        pids_limit,
    })
}

fn row(one: &Shown) -> [Cell; 8] {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), output::size);
    let limit = one.pids_limit.map_or_else(String::new, |limit| format!("/{limit}"));
    [
        one.pod_name.clone().unwrap_or_else(|| one.pod[..8].to_owned()).into(),
        match (one.app.as_deref().unwrap_or("(all)"), one.paused) {
            (app, true) => Cell::toned(format!("{app} (paused)"), Some(Tone::Held)),
            (app, false) => app.into(),
        },
        format!("{:.1}%", one.cpu_percent).into(),
        output::memory(one.memory).into(),
        one.memory_limit.map_or_else(|| "-".to_owned(), output::memory).into(),
        size(one.read).into(),
        size(one.written).into(),
        format!("{}{limit}", one.pids).into(),
    ]
}
