//! Published ports: ports of the host that are forwarded to a pod, as its manifest lists them.

use std::fmt;

use serde::Serialize;
use stage1::appc::PodManifest;
use stage1::error::Result;
use stage1::layout;

use crate::poddir::find::Pod;
use crate::poddir::manifest;

/// A port of the host, and the pod's port that it is forwarded to.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    name: String,
    #[serde(rename = "hostIP", skip_serializing_if = "Option::is_none")]
    host_ip: Option<String>,
    host_port: u32,
    /// `None` if no app declares a port of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_port: Option<u64>,
    protocol: String,
}

impl Published {
    /// Its name in the pod manifest.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pod's port; `None` if no app declares a port of this name.
    pub fn pod_port(&self) -> Option<u64> {
        self.pod_port
    }

    /// The port of the host.
    pub fn host_port(&self) -> u32 {
        self.host_port
    }

    /// The address of the host that it listens at; `None` for all addresses.
    pub fn host_ip(&self) -> Option<&str> {
        self.host_ip.as_deref()
    }

    /// `tcp`, `udp` or `sctp`.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Whether both ports can't be forwarded at the same time.
    pub fn clashes_with(&self, other: &Self) -> bool {
        let is_every = |port: &Self| port.host_ip.as_deref().is_none_or(|ip| ip == "0.0.0.0" || ip == "::");
        let same_address = self.host_ip == other.host_ip || is_every(self) || is_every(other);
        self.host_port == other.host_port && self.protocol == other.protocol && same_address
    }
}

/// Writes the port as other tools do: `8080->80/tcp`.
impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip.as_deref() {
            Some(ip) if ip.contains(':') => write!(f, "[{ip}]:")?,
            Some(ip) => write!(f, "{ip}:")?,
            None => {}
        }
        let pod = self.pod_port.map_or_else(|| self.name.clone(), |port| port.to_string());
        write!(f, "{}->{pod}/{}", self.host_port, self.protocol)
    }
}

/// The published ports of a pod; empty if it failed to be prepared.
///
/// # Errors
/// Its manifest can't be read.
pub fn of(pod: &Pod) -> Result<Vec<Published>> {
    if !pod.dir().join(layout::MANIFEST).exists() {
        return Ok(Vec::new());
    }
    Ok(in_manifest(&manifest::read(pod.dir())?))
}

pub(super) fn in_manifest(manifest: &PodManifest) -> Vec<Published> {
    let declared = |name: &str| {
        let apps = manifest.apps.iter().filter_map(|app| app.app.as_ref());
        apps.flat_map(|app| &app.ports).find(|port| port.name == name)
    };
    let published = manifest.ports.iter().map(|exposed| {
        let (port, protocol) = match (&exposed.pod_port, declared(&exposed.name)) {
            (Some(port), _) => (port["port"].as_u64(), port["protocol"].as_str().unwrap_or("tcp").to_owned()),
            (None, Some(port)) => (Some(u64::from(port.port)), port.protocol.clone()),
            (None, None) => (None, "tcp".to_owned()),
        };
        Published {
            name: exposed.name.clone(),
            host_ip: exposed.host_ip.clone().filter(|ip| !ip.is_empty()),
            host_port: exposed.host_port,
            pod_port: port,
            protocol,
        }
    });
    published.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_other_tools_write_them() {
        let text = r#"{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"web","image":{"id":"sha512-00"},
            "app":{"exec":["/x"],"user":"0","group":"0","ports":[{"name":"http","protocol":"tcp","port":80}]}}],"ports":[
            {"name":"http","hostPort":8080},{"name":"none","hostPort":1},
            {"name":"dns","hostPort":53,"hostIP":"::1","podPort":{"name":"dns","protocol":"udp","port":5353}}]}"#;
        let manifest = PodManifest::parse(text.as_bytes()).unwrap();
        let shown: Vec<String> = in_manifest(&manifest).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["8080->80/tcp", "1->none/tcp", "[::1]:53->5353/udp"]);
    }
}
