//! The networks of a pod. Plugins of the Container Network Interface (CNI) join them before the pod's supervisor is
//! executed, and leave them when the pod has ended. Host side.

mod answer;
mod config;
mod leaving;
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

/// Timeout for joining all networks of a pod.
pub const JOIN: Duration = Duration::from_secs(40);
/// Timeout for leaving all networks of a pod, which counts as running until then.
pub const LEAVE: Duration = Duration::from_secs(60);

/// The plugins that the built-in networks and published ports need.
const BUILT_IN_NEEDS: [&str; 3] = ["ptp", "host-local", "portmap"];

/// Those plugins of the built-in networks and of published ports that are in none of the plugin directories, and these
/// directories, separated by colons. `local_config` is the host manager's configuration directory.
pub fn missing_plugins(local_config: &Path) -> (Vec<&'static str>, String) {
    let search = SearchPath::of_environment(local_config);
    let is_missing = |name: &&str| search.find(Path::new("/"), name).is_err();
    (BUILT_IN_NEEDS.into_iter().filter(is_missing).collect(), search.to_string())
}

/// Networks to join: their configurations are read and their plugins found, and nothing is changed yet.
pub struct PlannedNetworks {
    networks: Vec<(Network, Member)>,
}

/// The results of joining networks.
#[derive(Clone, Debug, Default)]
pub struct Joined {
    /// DNS settings of all networks.
    pub dns: Dns,
    /// Address by which the pod reaches the host, if a network has a gateway.
    pub host: Option<String>,
}

impl PlannedNetworks {
    /// Plans the networks of a pod. `local_config` is the host manager's configuration directory.
    ///
    /// # Errors
    /// A network is not configured or its configuration is not valid, a plugin is missing, or a port of the pod is not
    /// valid.
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

    /// Joins the networks for the pod in the current directory, whose process `pid` is in the pod's network namespace.
    /// A request to end that `signals` report interrupts it.
    ///
    /// # Errors
    /// A network can't be joined in time, or a signal interrupts it. [`leave`] undoes what was done.
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

/// The index of the network with the pod's default route: the first that masquerades, otherwise the last.
fn main_network<'a>(members: impl Iterator<Item = &'a Member>) -> Option<usize> {
    let members: Vec<&Member> = members.collect();
    members.iter().position(|member| member.masquerades).or_else(|| members.len().checked_sub(1))
}

/// Leaves all networks of the ended pod in the directory `dir`, which frees its addresses and ports. The records stay,
/// so that [`leave`] can leave the networks once more.
///
/// # Errors
/// A plugin fails or is missing, or a record can't be read. The other networks are left. It may be called again.
pub fn release(dir: &Path, uuid: &str, local_config: &Path) -> Result<()> {
    each_left(dir, uuid, local_config, |_| Ok(()))
}

/// Leaves all networks of the ended pod in the directory `dir`, and removes their records and the pin of the pod's
/// network namespace. A network that was already left is not an error.
///
/// # Errors
/// A plugin fails or is missing, or a record can't be read. The other networks are left. It may be called again.
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
            Err((interface, error)) => Err(error).context(|| format!("can't leave the network of {interface}")),
        };
        failed.extend(left.err().map(|error| error.one_line()));
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
}

/// Forwards the ports that the manifest of the running pod in the directory `dir` lists now, in place of those that
/// were forwarded before.
///
/// # Errors
/// The pod has not joined a network, a port in the manifest is not valid, or the plugin that forwards ports is missing
/// or fails; then the earlier ports stay forwarded.
pub fn forward(dir: &Path, uuid: &str, local_config: &Path) -> Result<()> {
    let namespace =
        namespace::pinned(uuid)?.context(|| "the pod has not joined a network: no port can be forwarded to it")?;
    let place = PluginContext { dir, uuid, namespace: &namespace };
    let mappings = ports::of(&Pod::load(dir)?)?;
    let read = |member: Result<Member, (String, Error)>| {
        member.map_err(|(interface, error)| Error::caused_by(format!("network of {interface}"), error))
    };
    let mut members = Member::all_of(dir)?.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    let forwarder = members.iter().position(Member::forwards_ports).or_else(|| main_network(members.iter()));
    let index = forwarder.context(|| "the pod has not joined a network: no port can be forwarded to it")?;
    let search = SearchPath::of_environment(local_config);
    members[index].forward_instead(place, &mappings, &search, Instant::now() + JOIN)
}

/// Checks the networks of the running pod in the directory `dir` by the plugins' CHECK: for each interface the result.
/// Networks whose plugins do not support CHECK are left out.
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

/// The objects in the file `net-info.json` of the pod in the directory `dir`: one for each network. Empty if the file
/// does not exist.
///
/// # Errors
/// The file exists, and can't be read or is not a JSON array.
pub fn info(dir: &Path) -> Result<Vec<Value>> {
    let file: PathBuf = dir.join(layout::NETWORK_INFO);
    match read_bounded(&file, MAX_MANIFEST) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
        text => crate::json::parse(&text?).context(|| format!("{file:?}")),
    }
}
