//! Ports of the host that lead to pods: while these run, too; and none to two of them.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

use stage1::appc::{ExposedPort, PodManifest};
use stage1::error::{Context, Error, Result};
use stage1::net;
use uuid::Uuid;

use super::published::{self, Published};
use super::settings::Settings;
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State, running_pid};
use crate::poddir::manifest::{self, Locked};
use crate::store::Store;

/// Has more ports of the host lead to a running pod.
///
/// # Errors
/// One is taken, the pod has no network, or a plugin fails: all is as before then.
pub fn add(store: &Store, pod: &Pod, ports: &[ExposedPort]) -> Result<()> {
    let _lock = store.lock_ports()?;
    change(pod, |manifest| {
        let new = PodManifest { ports: ports.to_vec(), apps: manifest.apps.clone(), ..PodManifest::default() };
        must_be_free(store, None, &new)?;
        manifest.ports.extend_from_slice(ports);
        Ok(())
    })
}

/// Has exactly these ports of the host lead to a running pod.
///
/// # Errors
/// As those of [`add`].
pub fn set(store: &Store, pod: &Pod, ports: &[ExposedPort]) -> Result<()> {
    let _lock = store.lock_ports()?;
    change(pod, |manifest| {
        let new = ports.iter().filter(|port| !manifest.ports.contains(port)).cloned().collect();
        let new = PodManifest { ports: new, apps: manifest.apps.clone(), ..PodManifest::default() };
        must_be_free(store, Some(pod.uuid()), &new)?;
        manifest.ports = ports.to_vec();
        Ok(())
    })
}

/// A port of the host, and its protocol if that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// Its number.
    pub port: u32,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: Option<String>,
}

/// Has ports of the host not lead to a running pod any more.
///
/// # Errors
/// One does not, or a plugin fails: all is as before then.
pub fn remove(pod: &Pod, ports: &[HostPort]) -> Result<()> {
    change(pod, |manifest| {
        for HostPort { port, protocol } in ports {
            let is_it = |published: &Published| {
                published.host_port() == *port
                    && protocol.as_ref().is_none_or(|protocol| published.protocol() == protocol)
            };
            let kept: Vec<bool> = published::in_manifest(manifest).iter().map(|published| !is_it(published)).collect();
            if kept.iter().all(|keep| *keep) {
                return Err(Error::new(format!(
                    "port {port} of the host does not lead to it: \"podctl port list\" shows all"
                )));
            }
            let mut kept = kept.into_iter();
            manifest.ports.retain(|_| kept.next().unwrap_or(true));
        }
        Ok(())
    })
}

fn change(pod: &Pod, change: impl FnOnce(&mut PodManifest) -> Result<()>) -> Result<()> {
    running_pid(pod)?;
    let locked = Locked::new(pod.dir())?;
    let before = locked.read()?;
    let mut manifest = before.clone();
    change(&mut manifest)?;
    locked.write(&manifest)?;
    let settings = Settings::load(pod.dir())?;
    let local_config = settings.local_config.unwrap_or_else(|| net::LOCAL_CONFIG.to_owned());
    let dir = pod.dir().canonicalize().context(|| format!("{:?}", pod.dir()))?;
    if let Err(error) = net::forward(&dir, &pod.uuid().to_string(), Path::new(&local_config)) {
        locked.write(&before)?;
        return Err(error);
    }
    Ok(())
}

/// Takes the lock under which ports of the host become those of a pod, if a pod with this manifest asks for some: held
/// until the pod is among those that run.
///
/// # Errors
/// Others hold it for too long.
pub fn lock(store: &Store, manifest: &PodManifest) -> Result<Option<File>> {
    if manifest.ports.is_empty() { Ok(None) } else { store.lock_ports().map(Some) }
}

/// Fails if a port that a pod with this manifest asks for leads to another running pod, or a program of the host listens
/// on it.
///
/// # Errors
/// Which port is taken, and by whom.
pub fn must_be_free(store: &Store, own: Option<Uuid>, manifest: &PodManifest) -> Result<()> {
    let wanted = published::in_manifest(manifest);
    if wanted.is_empty() {
        return Ok(());
    }
    for pod in pods::list(store)? {
        if pod.state() != State::Running || Some(pod.uuid()) == own {
            continue;
        }
        // one that is just going has none
        let Ok(other) = manifest::read(pod.dir()) else { continue };
        for taken in published::in_manifest(&other) {
            if let Some(port) = wanted.iter().find(|port| port.clashes_with(&taken)) {
                let name = pod.name()?.map_or_else(|| pod.short(), |name| name.to_string());
                return Err(Error::new(format!(
                    "port {}/{} of the host leads to pod {name}: choose another one, or \"podctl port rm {name} {}\"",
                    port.host_port(),
                    port.protocol(),
                    port.host_port()
                )));
            }
        }
    }
    wanted.iter().try_for_each(nobody_listens)
}

/// Whether a program of the host listens: asked by listening there oneself, for a moment.
fn nobody_listens(port: &Published) -> Result<()> {
    let ip = port.host_ip().and_then(|ip| ip.parse().ok()).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let Ok(number) = u16::try_from(port.host_port()) else { return Ok(()) };
    let listened = match port.protocol() {
        "tcp" => TcpListener::bind((ip, number)).map(drop),
        "udp" => UdpSocket::bind((ip, number)).map(drop),
        _ => Ok(()),
    };
    match listened {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(Error::new(format!(
            "port {number}/{} of the host is in use: a program listens there; choose another one",
            port.protocol()
        ))),
        // an address that the host does not have is the plugin's to judge
        _ => Ok(()),
    }
}
