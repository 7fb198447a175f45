//! The forwarded ports of a pod, from its manifest and those of its apps. Host side.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::appc::{ExposedPort, Port};
use crate::error::{Context, Error, Result};
use crate::json;
use crate::pod::Pod;

/// A port of the host that is forwarded to a port of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    host_ip: Option<String>,
    host_port: u16,
    pod_port: u16,
    protocol: String,
}

impl Mapping {
    /// Its object in the runtime configuration of plugins with the capability `portMappings`.
    pub fn to_json(&self) -> Value {
        let mut mapping =
            json!({"hostPort": self.host_port, "containerPort": self.pod_port, "protocol": self.protocol});
        if let Some(ip) = &self.host_ip {
            mapping["hostIP"] = ip.clone().into();
        }
        mapping
    }
}

/// The forwarded ports of a pod.
///
/// # Errors
/// No app has the named port, a number, protocol or address is not valid, or a port of the host is forwarded twice.
pub fn of(pod: &Pod) -> Result<Vec<Mapping>> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for exposed in &pod.manifest.ports {
        let resolved = || {
            let port = match &exposed.pod_port {
                Some(port) => json::from_value::<Port>(port.clone()).context(|| "\"podPort\"")?,
                None => port_of_apps(pod, &exposed.name)?,
            };
            map(exposed, &port)
        };
        for mapping in resolved().context(|| format!("port {:?} of the pod", exposed.name))? {
            if mappings.iter().any(|other| other.clashes_with(&mapping)) {
                let Mapping { host_port, protocol, .. } = mapping;
                return Err(Error::new(format!("the port {host_port}/{protocol} of the host is forwarded twice")));
            }
            mappings.push(mapping);
        }
    }
    Ok(mappings)
}

/// The port with this name that an app of the pod, or its image, declares.
fn port_of_apps(pod: &Pod, name: &str) -> Result<Port> {
    for runtime in &pod.manifest.apps {
        let app = pod.app(&runtime.name)?;
        let image = app.image.app.as_ref();
        let declared = [app.runtime.app.as_ref(), image].into_iter().flatten();
        if let Some(port) = declared.flat_map(|app| &app.ports).find(|port| port.name == name) {
            return Ok(port.clone());
        }
    }
    Err(Error::new("no app has a port of this name"))
}

fn map(exposed: &ExposedPort, port: &Port) -> Result<Vec<Mapping>> {
    let protocol = port.protocol.to_ascii_lowercase();
    if !matches!(&*protocol, "tcp" | "udp" | "sctp") {
        return Err(Error::new(format!("{:?} is not a protocol with ports: tcp, udp or sctp", port.protocol)));
    }
    let host_ip = match exposed.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
        Some(ip) => {
            let parsed = ip.parse::<IpAddr>().context(|| format!("\"hostIP\": {ip:?} is not an IP address"))?;
            (!parsed.is_unspecified()).then(|| ip.to_owned())
        }
        None => None,
    };
    let number = |first: u32, index: u32| {
        let number = first.checked_add(index).and_then(|number| u16::try_from(number).ok());
        let shown = || format!("{} is not a port number", u64::from(first) + u64::from(index));
        number.filter(|number| *number > 0).context(shown)
    };
    let count = port.count.unwrap_or(1).max(1);
    if count > u32::from(u16::MAX) {
        return Err(Error::new(format!("a range of {count} ports is too large")));
    }
    (0..count)
        .map(|index| {
            Ok(Mapping {
                host_ip: host_ip.clone(),
                host_port: number(exposed.host_port, index)?,
                pod_port: number(port.port, index)?,
                protocol: protocol.clone(),
            })
        })
        .collect()
}

impl Mapping {
    fn clashes_with(&self, other: &Self) -> bool {
        let same_address = self.host_ip == other.host_ip || self.host_ip.is_none() || other.host_ip.is_none();
        self.host_port == other.host_port && self.protocol == other.protocol && same_address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ports: &str) -> Result<Vec<Value>> {
        let tmp = tempfile::tempdir().unwrap();
        let image = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"x","app":{"exec":["/x"],"user":"0","group":"0",
            "ports":[{"name":"dns","protocol":"udp","port":53},{"name":"web","protocol":"tcp","port":1}]}}"#;
        std::fs::create_dir_all(tmp.path().join("appsinfo/a")).unwrap();
        std::fs::write(tmp.path().join("appsinfo/a/manifest"), image).unwrap();
        let app = r#"{"name":"a","image":{"id":"sha512-0"},"app":{"exec":["/x"],"user":"0","group":"0",
            "ports":[{"name":"web","protocol":"tcp","port":80,"count":2}]}}"#;
        let manifest = format!(r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{app}],"ports":[{ports}]}}"#);
        std::fs::write(tmp.path().join("pod"), manifest).unwrap();
        Ok(of(&Pod::load(tmp.path()).unwrap())?.iter().map(Mapping::to_json).collect())
    }

    #[test]
    fn by_number_by_app_and_by_image() {
        let ports = r#"{"name":"x","hostPort":9000,"hostIP":"127.0.0.1","podPort":{"name":"x","protocol":"TCP","port":90}},
            {"name":"web","hostPort":8080,"hostIP":"0.0.0.0"},{"name":"dns","hostPort":8080,"hostIP":""}"#;
        let expected = json::parse::<Vec<Value>>(
            br#"[{"hostPort":9000,"containerPort":90,"protocol":"tcp","hostIP":"127.0.0.1"},
            {"hostPort":8080,"containerPort":80,"protocol":"tcp"},{"hostPort":8081,"containerPort":81,"protocol":"tcp"},
            {"hostPort":8080,"containerPort":53,"protocol":"udp"}]"#,
        )
        .unwrap();
        assert_eq!(pod(ports).unwrap(), expected);
        assert_eq!(pod("").unwrap(), Vec::<Value>::new());
    }

    #[test]
    fn what_can_not_be_is_named() {
        let port = |more: &str| format!(r#"{{"name":"p","hostPort":1,{more}}}"#);
        let number = |port: u64| format!(r#""podPort":{{"name":"p","protocol":"tcp","port":{port}}}"#);
        let twice = [port(&number(5)), port(&number(6))].join(",");
        for (ports, why) in [
            (r#"{"name":"nowhere","hostPort":1}"#.to_owned(), "port \"nowhere\" of the pod: no app has a port"),
            (port(r#""podPort":{"name":"p","protocol":"icmp","port":1}"#), "\"icmp\" is not a protocol"),
            (port(&number(70_000)), "is not a port number"),
            (port(&format!(r#"{},"hostIP":"here""#, number(1))), "\"here\" is not an IP address"),
            (port(r#""podPort":7"#), "\"podPort\": not as expected: invalid type: integer `7`, expected struct Port"),
            (r#"{"name":"web","hostPort":65535}"#.to_owned(), "is not a port number"),
            (twice, "the port 1/tcp of the host is forwarded twice"),
        ] {
            let line = pod(&ports).unwrap_err().one_line();
            assert!(line.contains(why), "{line}");
        }
    }
}
