//! The networks of a pod: joined, by plugins of the Container Network Interface (CNI), before its PID 1 is executed,
//! and left when it has ended. Host side.

mod answer;
mod config;
mod member;
mod namespace;
mod plugin;
mod ports;
mod refusal;
mod request;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use serde_json::Value;

pub use answer::Dns;
pub use config::{LOCAL_CONFIG, first_configured};
pub use request::{NetworkRequest, Selection};

use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::{Directory, MAX_MANIFEST, Pod, read_bounded, write_atomic};
use config::Network;
use member::{Member, PluginContext};
use plugin::SearchPath;

/// How long all networks together may take to be joined.
const JOIN: Duration = Duration::from_secs(40);
/// How long all together may take to be left.
const LEAVE: Duration = Duration::from_secs(15);

/// The plugins that the built-in networks and published ports need.
const BUILT_IN_NEEDS: [&str; 3] = ["ptp", "host-local", "portmap"];

/// The plugins that the built-in networks and published ports need and that are in none of the usual directories, with
/// these directories as one text. `local_config` is the host manager's configuration directory.
pub fn missing_plugins(local_config: &Path) -> (Vec<&'static str>, String) {
    let search = SearchPath::of_environment(local_config);
    let is_missing = |name: &&str| search.find(Path::new("/"), name).is_err();
    (BUILT_IN_NEEDS.into_iter().filter(is_missing).collect(), search.to_string())
}

/// What is to be joined: everything is known and in place, and nothing is done yet.
pub struct PlannedNetworks {
    networks: Vec<(Network, Member)>,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    /// What the networks say of names.
    pub dns: Dns,
    /// The host's address as the pod sees it.
    pub host: Option<String>,
}

impl PlannedNetworks {
    /// For a pod that is to join these networks. `local_config` is the host manager's configuration directory.
    ///
    /// # Errors
    /// A network, plugin or port is missing or broken.
    pub fn new(selection: &Selection, pod: &Pod, local_config: &Path) -> Result<Self> {
        let search = SearchPath::of_environment(local_config);
        let mappings = ports::of(pod)?;
        let mut networks = Vec::new();
        for (number, network) in config::load(local_config, selection)?.into_iter().enumerate() {
            let arguments = selection.arguments(&network.name).unwrap_or_default();
            let member =
                Member::new(&network, number, arguments, &search).context(|| format!("network {}", network.name))?;
            networks.push((network, member));
        }
        if !mappings.is_empty() {
            let forwarder = networks.iter().position(|(_, member)| member.forwards_ports());
            let members = || networks.iter().map(|(_, member)| member);
            if let Some(index) = forwarder.or_else(|| main_network(members())) {
                let (network, member) = &mut networks[index];
                member.forward(Path::new("."), &mappings, &search).context(|| format!("network {}", network.name))?;
            }
        }
        Ok(Self { networks })
    }

    /// Joins the networks, for a pod whose process `pid` is in a new network namespace, from the pod's directory.
    ///
    /// # Errors
    /// One could not be joined, or was interrupted. [`leave`] undoes what was done.
    pub fn join(mut self, uuid: &str, pid: i32, signals: &SignalFd) -> Result<Joined> {
        let dir = Path::new(".");
        let records = layout::network_dir();
        std::fs::create_dir_all(&records).context(|| format!("mkdir {records:?}"))?;
        let namespace = namespace::pin(uuid, pid)?;
        let place = PluginContext { dir, uuid, namespace: &namespace };
        let deadline = Instant::now() + JOIN;
        let mut joined = Joined::default();
        let mut hosts = Vec::new();
        for (network, member) in &mut self.networks {
            write_atomic(Directory::InPod { pod: dir, below: &records }, &network.file, &network.text, 0o640)?;
            let answer = member.join(place, deadline, Some(signals))?;
            joined.dns.merge(&answer.dns);
            hosts.push(answer.addresses.into_iter().find_map(|address| address.gateway));
        }
        let members: Vec<&Member> = self.networks.iter().map(|(_, member)| member).collect();
        let main = main_network(members.iter().copied()).and_then(|index| hosts[index].clone());
        joined.host = main.or_else(|| hosts.into_iter().flatten().next());
        let info = members.into_iter().map(Member::info).collect::<Result<Vec<Value>>>()?;
        write_atomic(Directory::Trusted(dir), layout::NETWORK_INFO, Value::from(info).to_string().as_bytes(), 0o644)?;
        Ok(joined)
    }
}

/// The network that leads to the world: the first that masquerades, or else the last.
fn main_network<'a>(members: impl Iterator<Item = &'a Member>) -> Option<usize> {
    let members: Vec<&Member> = members.collect();
    members.iter().position(|member| member.masquerades).or_else(|| members.len().checked_sub(1))
}

/// Has the pod in `dir`, whose processes have ended, leave all its networks, so that others can have what it had there.
/// What is needed to leave them stays: [`leave`] does it once more.
///
/// # Errors
/// A plugin fails or is missing, or a record can't be read. The rest is left; this can be tried again.
pub fn release(dir: &Path, uuid: &str, local_config: &Path) -> Result<()> {
    each_left(dir, uuid, local_config, |_| Ok(()))
}

/// Has the pod in `dir`, whose processes have ended, leave all its networks, and removes its network namespace.
/// A network that was left before is not an error.
///
/// # Errors
/// A plugin fails or is missing, or a record can't be read. The rest is left; this can be tried again.
pub fn leave(dir: &Path, uuid: &str, local_config: &Path) -> Result<()> {
    each_left(dir, uuid, local_config, |member| member.forget(dir))?;
    namespace::unpin(uuid)
}

fn each_left(dir: &Path, uuid: &str, local_config: &Path, then: impl Fn(&Member) -> Result<()>) -> Result<()> {
    let namespace = namespace::pinned(uuid)?.unwrap_or_default();
    let place = PluginContext { dir, uuid, namespace: &namespace };
    let deadline = Instant::now() + LEAVE;
    let search = SearchPath::of_environment(local_config);
    let mut failed = Vec::new();
    for member in Member::all_of(dir)?.into_iter().rev() {
        let left = match member {
            Ok(member) => member.leave(place, &search, deadline).and_then(|()| then(&member)),
            Err((interface, error)) => Err(error).context(|| format!("{interface} is left in its network")),
        };
        failed.extend(left.err().map(|error| error.one_line()));
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
}

/// Has the ports of the host that the running pod's manifest names by now lead to the pod, and no others.
///
/// # Errors
/// The pod has joined no network, or no port of that name, or the plugin fails: then all is as before.
pub fn forward(dir: &Path, uuid: &str, local_config: &Path) -> Result<()> {
    let namespace =
        namespace::pinned(uuid)?.context(|| "the pod has joined no network: nothing can be forwarded to it")?;
    let place = PluginContext { dir, uuid, namespace: &namespace };
    let mappings = ports::of(&Pod::load(dir)?)?;
    let read = |member: Result<Member, (String, Error)>| {
        member.map_err(|(interface, error)| Error::caused_by(format!("network of {interface}"), error))
    };
    let mut members = Member::all_of(dir)?.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    let forwarder = members.iter().position(Member::forwards_ports).or_else(|| main_network(members.iter()));
    let index = forwarder.context(|| "the pod has joined no network: nothing can be forwarded to it")?;
    let search = SearchPath::of_environment(local_config);
    members[index].forward_instead(place, &mappings, &search, Instant::now() + JOIN)
}

/// Asks, for each network of the running pod in `dir` by its interface, whether all is as it was made. Some can't be
/// asked.
///
/// # Errors
/// The directory of the pod's records can't be read.
pub fn check(dir: &Path, uuid: &str) -> Result<Vec<(String, Result<()>)>> {
    let namespace = namespace::pinned(uuid)?.unwrap_or_default();
    let place = PluginContext { dir, uuid, namespace: &namespace };
    let check = |member: Result<Member, (String, Error)>| match member {
        Ok(member) if !member.can_check() => None,
        Ok(member) if namespace.is_empty() => {
            Some((member.interface, Err(Error::new("the pod's network namespace is gone"))))
        }
        Ok(member) => {
            let checked = member.check(place, Instant::now() + JOIN);
            Some((member.interface, checked))
        }
        Err((interface, error)) => Some((interface, Err(error))),
    };
    Ok(Member::all_of(dir)?.into_iter().filter_map(check).collect())
}

/// What is known of the networks of the pod in `dir`: the objects of its `net-info.json`.
///
/// # Errors
/// The file is there and is not a list.
pub fn info(dir: &Path) -> Result<Vec<Value>> {
    let file: PathBuf = dir.join(layout::NETWORK_INFO);
    match read_bounded(&file, MAX_MANIFEST) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        text => crate::json::parse(&text?).context(|| format!("{file:?}")),
    }
}
