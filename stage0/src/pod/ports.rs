//! Published ports: adding and removing those of running pods, and keeping two pods from publishing the same port.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

use stage1::appc::{ExposedPort, PodManifest};
use stage1::error::{Context, Error, Result};
use stage1::net;
use uuid::Uuid;

use super::published_port::{self, Published};
use super::settings::Settings;
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State, running_pid};
use crate::poddir::manifest::{self, Locked};
use crate::store::Store;

/// Publishes more ports of a running pod.
///
/// # Errors
/// The pod does not run or has no network, a port is taken, or a CNI plugin fails. The published ports are unchanged
/// then.
pub fn add(store: &Store, pod: &Pod, ports: &[ExposedPort]) -> Result<()> {
    let _lock = store.lock_ports()?;
    change(pod, |manifest| {
        let new = PodManifest { ports: ports.to_vec(), apps: manifest.apps.clone(), ..PodManifest::default() };
        must_be_free(store, None, &new)?;
        manifest.ports.extend_from_slice(ports);
        Ok(())
    })
}

/// Publishes exactly these ports of a running pod, instead of those before.
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

/// A port of the host, with or without a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The port number.
    pub port: u32,
    /// `tcp`, `udp` or `sctp`; any of them if `None`.
    pub protocol: Option<String>,
}

/// Unpublishes ports of a running pod.
///
/// # Errors
/// The pod does not run or does not publish one of the ports, or a CNI plugin fails. The published ports are unchanged
/// then.
pub fn remove(pod: &Pod, ports: &[HostPort]) -> Result<()> {
    change(pod, |manifest| {
        for HostPort { port, protocol } in ports {
            let is_it = |published: &Published| {
                published.host_port() == *port
                    && protocol.as_ref().is_none_or(|protocol| published.protocol() == protocol)
            };
            let kept: Vec<bool> =
                published_port::in_manifest(manifest).iter().map(|published| !is_it(published)).collect();
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

/// Takes the lock of ports if a pod with this manifest publishes any. Hold it until the pod counts as running:
/// [`must_be_free`] finds its ports then.
///
/// # Errors
/// Another process holds the lock for too long.
pub fn lock(store: &Store, manifest: &PodManifest) -> Result<Option<File>> {
    if manifest.ports.is_empty() { Ok(None) } else { store.lock_ports().map(Some) }
}

/// [`must_be_free`], under the lock, for a pod that is far from running: an early refusal. It is checked again when the
/// pod starts to run.
///
/// # Errors
/// As those of [`must_be_free`]; another process holds the lock for too long.
pub fn must_be_free_now(store: &Store, own: Option<Uuid>, manifest: &PodManifest) -> Result<()> {
    let _lock = lock(store, manifest)?;
    must_be_free(store, own, manifest)
}

/// Checks that the host's ports that a pod with this manifest publishes are free. Ports of the pod `own` don't count as
/// taken. Only under [`lock`]: it listens on each port for a moment, which another check would take for a program.
///
/// # Errors
/// Another running pod publishes one of the ports, or a program of the host listens on it; the pods can't be listed.
pub fn must_be_free(store: &Store, own: Option<Uuid>, manifest: &PodManifest) -> Result<()> {
    let wanted = published_port::in_manifest(manifest);
    if wanted.is_empty() {
        return Ok(());
    }
    for pod in pods::list(store)? {
        if pod.state() != State::Running || Some(pod.uuid()) == own {
            continue;
        }
        // a pod that is being removed
        let Ok(other) = manifest::read(pod.dir()) else { continue };
        for taken in published_port::in_manifest(&other) {
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

/// Fails if a program of the host listens on the port: tries to listen there itself, for a moment.
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
        // the CNI plugin reports an address that the host does not have
        _ => Ok(()),
    }
}
