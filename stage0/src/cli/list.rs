//! `podctl list`

use std::collections::BTreeSet;

use clap::Args;
use stage1::error::Result;

use super::args::listing::{ListFormat, Listing};
use super::condition;
use super::output;
use super::pod_filter::Filter;
use super::screen::Tone;
use super::session::Session;
use super::status::PodStatus;
use super::table::{self, Cell};
use crate::fsutil::time::age;
use crate::poddir::find as pods;

/// The number of digits of a short id.
const DIGITS: usize = 12;

#[derive(Args, Debug)]
pub struct List {
    /// Accepted for compatibility: all pods are listed in any case
    #[arg(short, long, hide = true)]
    all: bool,
    /// List only pods that match: name=PART, id=START, state=STATE, app=NAME, or label=NAME[=VALUE]; a pod must match
    /// all filters
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<Filter>,
    #[command(flatten)]
    how: Listing,
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
        listed.retain(|pod| self.filters.iter().all(|filter| filter.fits(pod)));
        listed.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        match self.how {
            Listing { quiet: true, .. } => listed.iter().try_for_each(|pod| output::say(&pod.name)),
            Listing { format: ListFormat::Json, .. } => output::json(&listed),
            Listing { no_trunc, format, .. } => table::show_states(
                ["NAME", "ID", "STATE", "AGE", "APPS", "IP", "PORTS"],
                listed.iter().map(|pod| row(pod, no_trunc)).collect(),
                no_trunc,
                format.columns(),
                &["AGE", "IP"],
            ),
        }
    }
}

fn row(pod: &PodStatus, whole: bool) -> [Cell; 7] {
    let tone = match pod.state.as_str() {
        "running" if pod.paused => Some(Tone::Held),
        "running" if pod.apps.iter().any(condition::is_bad) => Some(Tone::Bad),
        "running" => Some(Tone::Good),
        "exited" if pod.apps.iter().any(condition::is_bad) => Some(Tone::Bad),
        "prepared" | "preparing" => None,
        _ => Some(Tone::Faint),
    };
    let id = if whole { pod.name.clone() } else { short_id(&pod.name) };
    let running = pod.apps.iter().filter(|app| app.state == "running" && !app.restarting).count();
    let restarting = pod.apps.iter().filter(|app| app.restarting).count();
    let unhealthy = pod.apps.iter().filter(|app| app.health.as_ref().is_some_and(|h| h.status == "unhealthy")).count();
    let paused = pod.apps.iter().filter(|app| app.paused).count();
    let failed = pod.apps.iter().filter(|app| app.state == "exited" && condition::is_bad(app)).count();
    let short = pod.apps.iter().filter(|app| app.oom_kills > 0).count();
    let troubles = [
        (failed, "failed"),
        (restarting, "restarting"),
        (unhealthy, "unhealthy"),
        (short, "out of memory"),
        (paused, "paused"),
    ];
    let troubles: Vec<String> =
        troubles.iter().filter(|(some, _)| *some > 0).map(|(some, what)| format!("{some} {what}")).collect();
    let state = match troubles.join(", ") {
        _ if pod.paused => "paused".to_owned(),
        none if none.is_empty() => pod.state.clone(),
        troubles => format!("{} ({troubles})", pod.state),
    };
    let apps = match pod.apps.len() {
        0 => "-".to_owned(),
        all if pod.state == "running" => format!("{running}/{all} {}", pod.app_names.join(",")),
        all => format!("{all} {}", pod.app_names.join(",")),
    };
    let ips: BTreeSet<&str> = pod.networks.iter().filter_map(|network| network["ip"].as_str()).collect();
    let ports: Vec<String> = pod.ports.iter().map(ToString::to_string).collect();
    [
        pod.pod_name.as_deref().unwrap_or("-").into(),
        id.into(),
        Cell::toned(state, tone),
        pod.created_at.map_or_else(|| "-".into(), age).into(),
        apps.into(),
        or_dash(ips.into_iter().collect::<Vec<_>>().join(",")),
        or_dash(ports.join(",")),
    ]
}

fn or_dash(text: String) -> Cell {
    if text.is_empty() { "-".into() } else { text.into() }
}

/// The first digits of a UUID, without dashes.
fn short_id(uuid: &str) -> String {
    uuid.chars().filter(|c| *c != '-').take(DIGITS).collect()
}
