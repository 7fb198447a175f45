//! `podctl info`

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;
use serde::Serialize;
use stage1::cgroup::{self, Version};
use stage1::error::{Context, Result};
use stage1::net;

use super::output::{self, Format};
use super::session::Session;
use crate::fsutil::dir::names_in;
use crate::image::store as images;
use crate::poddir::find as pods;

/// The file with the kernel's version: proc_sys_kernel(5).
const RELEASE: &str = "/proc/sys/kernel/osrelease";

/// Prints podctl's data directory, the number of pods and images in it, and the kernel and its cgroups.
#[derive(Args, Debug)]
pub struct Info {
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// The output for programs; sizes in bytes.
#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    directory: &'a Path,
    free: u64,
    /// By state.
    pods: BTreeMap<&'static str, usize>,
    images: usize,
    layers: usize,
    kernel: String,
    architecture: &'static str,
    /// Versions of the cgroup hierarchies that are mounted.
    cgroups: Vec<&'static str>,
    network_config: &'static str,
}

impl Info {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let mut by_state = BTreeMap::new();
        for pod in pods::list(store)? {
            *by_state.entry(pod.state().word()).or_default() += 1;
        }
        let mut cgroups: Vec<&str> =
            cgroup::hierarchies()?.iter().map(|one| if one.version == Version::V2 { "v2" } else { "v1" }).collect();
        cgroups.sort_unstable();
        cgroups.dedup();
        let shown = Shown {
            version: env!("CARGO_PKG_VERSION"),
            directory: store.dir(),
            free: free_space(store.dir())?,
            pods: by_state,
            images: images::ids(store)?.len(),
            layers: names_in(&store.layers())?.len(),
            kernel: std::fs::read_to_string(RELEASE).context(|| format!("read {RELEASE}"))?.trim().to_owned(),
            architecture: std::env::consts::ARCH,
            cgroups,
            network_config: net::LOCAL_CONFIG,
        };
        match self.format {
            Format::Json => output::json(&shown),
            Format::Text => print(&shown),
        }
    }
}

fn free_space(dir: &Path) -> Result<u64> {
    let dir = dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let stat = rustix::fs::statvfs(dir).context(|| format!("statvfs({dir:?})"))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn print(shown: &Shown<'_>) -> Result<()> {
    let pods: Vec<String> = shown.pods.iter().map(|(state, number)| format!("{number} {state}")).collect();
    let lines = [
        ("version", shown.version.to_owned()),
        ("data directory", format!("{} ({} free)", shown.directory.display(), output::size(shown.free))),
        ("pods", if pods.is_empty() { "none".to_owned() } else { pods.join(", ") }),
        ("images", format!("{} in {} layers", shown.images, shown.layers)),
        ("kernel", format!("Linux {} on {}", shown.kernel, shown.architecture)),
        ("cgroups", shown.cgroups.join(" and ")),
        ("network configuration", shown.network_config.to_owned()),
    ];
    lines.iter().try_for_each(|(what, value)| output::say(format_args!("{:<23}{value}", format!("{what}:"))))
}
