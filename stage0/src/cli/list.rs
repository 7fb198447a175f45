//! `podctl list`

use clap::Args;
use stage1::error::Result;

use super::output::{self, Format};
use super::session::Session;
use super::status::PodStatus;
use crate::pod::network;
use crate::poddir::find as pods;

#[derive(Args, Debug)]
pub struct List {
    /// Print it as
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
            Format::Json => output::json(&listed),
            Format::Text => output::table(
                ["UUID", "STATE", "CREATED", "STARTED", "NETWORKS", "APPS"],
                listed.into_iter().map(|pod| {
                    let times = [pod.created_at, pod.started_at].map(output::time);
                    let [created, started] = times;
                    let networks = network::line(&pod.networks);
                    [pod.name, pod.state, created, started, networks, pod.app_names.join(", ")]
                }),
            ),
        }
    }
}
