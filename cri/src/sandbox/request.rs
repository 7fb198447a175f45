//! Translates a request for a sandbox to a pod's manifest and settings. Reads only the request, and the host's name.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, json};
use stage0::pod::create;
use stage0::pod::name_files::{NameFiles, Source};
use stage0::pod::network;
use stage0::pod::settings::{Ipc, Settings};
use stage0::pod::sysctl::{self, Sysctls};
use stage0::poddir::uid_range::PrivateUsers;
use stage1::appc::{ExposedPort, Isolator, NameValue, PodManifest};
use stage1::cgroup::{CGROUP_PARENT, Parent};
use stage1::error::{Context, Error};
use stage1::uid_range::UidRange;
use stage1::{mux, streams};

use crate::api::{
    DnsConfig, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
};
use crate::fault::{Fault, Result};
use crate::limits;
use crate::record;
use crate::sandbox::users;

/// The longest host name that sethostname(2) accepts, in bytes.
const LONGEST_HOSTNAME: usize = 64;

/// A parsed request for a sandbox.
#[derive(Debug)]
pub struct SandboxRequest {
    /// The record for the pod's manifest.
    pub record: record::Sandbox,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
    hostname: String,
    dns: Option<DnsConfig>,
    sysctls: Sysctls,
    cgroup_parent: Option<Parent>,
    limits: Vec<Isolator>,
    ports: Vec<PortMapping>,
    users: Option<UidRange>,
}

impl SandboxRequest {
    /// Checks and parses a request.
    ///
    /// # Errors
    /// A field is missing or invalid, or asks for something that is not supported.
    pub fn new(config: PodSandboxConfig, handler: String) -> Result<Self> {
        if !handler.is_empty() {
            return Err(Fault::invalid(format!(
                "there is no runtime handler {handler:?}: this runtime has only the default handler \"\""
            )));
        }
        let metadata = config.metadata.ok_or_else(|| Fault::invalid("the sandbox has no metadata"))?;
        let PodSandboxMetadata { name, uid, namespace, attempt } = metadata;
        if name.is_empty() || uid.is_empty() || namespace.is_empty() {
            return Err(Fault::invalid("the sandbox needs a name, a namespace and a UID"));
        }
        let linux = config.linux.unwrap_or_default();
        let context = linux.security_context.unwrap_or_default();
        let options = context.namespace_options.unwrap_or_default();
        let users = users::of_request(&options)?;
        let namespaces = namespaces(&options);
        let parent = Some(linux.cgroup_parent.as_str()).filter(|parent| !matches!(*parent, "" | "/"));
        let cgroup_parent: Option<Parent> =
            parent.map(str::parse).transpose().map_err(|error: Error| Fault::invalid(error.one_line()))?;
        let network = (namespaces[0] == NamespaceMode::Node as i32).then_some("host");
        for (name, value) in &linux.sysctls {
            if namespaces[2] == NamespaceMode::Node as i32 && !name.starts_with("net.") {
                return Err(Fault::invalid(format!("sysctl {name:?}: the pod has the host's IPC namespace")));
            }
            sysctl::check(name, value, network).map_err(|error| Fault::invalid(error.one_line()))?;
        }
        if config.hostname.len() > LONGEST_HOSTNAME || config.hostname.contains(char::is_control) {
            return Err(Fault::invalid(format!("hostname {:?}: up to {LONGEST_HOSTNAME} bytes", config.hostname)));
        }
        if !config.log_directory.is_empty() && !config.log_directory.starts_with('/') {
            return Err(Fault::invalid(format!("log directory {:?}: not an absolute path", config.log_directory)));
        }
        Ok(Self {
            record: record::Sandbox {
                name,
                namespace,
                uid,
                attempt,
                handler,
                namespaces,
                log_directory: config.log_directory,
            },
            labels: config.labels,
            annotations: config.annotations,
            hostname: config.hostname,
            dns: config.dns_config,
            sysctls: linux.sysctls.into_iter().collect(),
            cgroup_parent,
            limits: limits::of_sandbox(linux.resources, linux.overhead)?,
            ports: config.port_mappings,
            users,
        })
    }

    /// How its pod is made.
    pub fn making(&self) -> create::Making {
        create::Making { private_users: self.users.map(PrivateUsers::Range), ..create::Making::default() }
    }

    /// Whether the sandbox uses the host's network.
    pub fn is_on_host(&self) -> bool {
        self.record.namespaces[0] == NamespaceMode::Node as i32
    }

    /// The pod's manifest.
    ///
    /// # Errors
    /// A port is invalid, or an annotation has the name of the record's.
    pub fn manifest(&self) -> Result<PodManifest> {
        let mut annotations = vec![NameValue::new(mux::DRIVER, "none")];
        if !self.record.log_directory.is_empty() {
            annotations.push(NameValue::new(streams::LOG_MODE, streams::Format::Cri.word()));
            annotations.push(NameValue::new(streams::LOG_DIR, &self.record.log_directory));
        }
        annotations.extend(sysctl::annotation(&self.sysctls)?);
        annotations.extend(self.cgroup_parent.as_ref().map(|parent| NameValue::new(CGROUP_PARENT, parent.to_string())));
        // the pod permits all capabilities: each container's request limits its own
        let all = stage1::confine::caps::CapSet::ALL;
        let value = json!({ "set": all.names().collect::<Vec<_>>() });
        let capabilities = Isolator { name: "os/linux/capabilities-retain-set".into(), value, other: Map::new() };
        Ok(create::mutable(PodManifest {
            annotations,
            isolators: [vec![capabilities], self.limits.clone()].concat(),
            ports: self.ports()?,
            user_annotations: record::in_manifest(record::annotations(&self.record, &self.annotations)?),
            user_labels: record::in_manifest(record::labels(&self.labels)),
            ..PodManifest::default()
        }))
    }

    /// The ports to publish on the host.
    fn ports(&self) -> Result<Vec<ExposedPort>> {
        let mapped = self.ports.iter().filter(|port| port.host_port > 0 && !self.is_on_host());
        let texts: Vec<String> = mapped
            .enumerate()
            .map(|(number, port)| {
                let protocol = match port.protocol() {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                    Protocol::Sctp => "sctp",
                };
                let PortMapping { container_port, host_port, host_ip, .. } = port;
                let host_ip = if host_ip.contains(':') { format!("[{host_ip}]") } else { host_ip.clone() };
                format!("port-{number}:{protocol}:{container_port}:{host_ip}:{host_port}")
            })
            .collect();
        network::ports(&texts, None).map_err(|error| Fault::invalid(error.one_line()))
    }

    /// The pod's settings. `network` is the name of the network of sandboxes that don't use the host's, `local_config`
    /// the directory of its configuration if that is not in CNI's own directory, and `sandbox` the sandbox's id.
    ///
    /// # Errors
    /// No network is configured, or the host's name can't be read.
    pub fn settings(&self, network: Option<&str>, local_config: &Path, sandbox: &str) -> Result<Settings> {
        let on_host = self.is_on_host();
        let hostname = match self.hostname.as_str() {
            "" if on_host => {
                let name = nix::unistd::gethostname().context(|| "gethostname")?;
                name.to_string_lossy().into_owned()
            }
            "" => self.record.name.chars().take(LONGEST_HOSTNAME).collect(),
            given => given.to_owned(),
        };
        let joined = match network {
            _ if on_host => "host".to_owned(),
            Some(name) => format!("{name}:{},!default-restricted", self.network_arguments(sandbox)),
            None => {
                return Err(Fault::not_now("no network is configured: put a CNI configuration into /etc/cni/net.d"));
            }
        };
        let host_ipc = self.record.namespaces[2] == NamespaceMode::Node as i32;
        Ok(Settings {
            hostname: Some(hostname),
            network: Some(joined),
            local_config: local_config.is_dir().then(|| network::local_config(local_config)).transpose()?,
            ipc: Some(if host_ipc { Ipc::Parent } else { Ipc::Private }),
            names: NameFiles { resolv: Some(self.resolv()), hosts: None },
            ..Settings::default()
        })
    }

    /// The CNI_ARGS for network plugins, with the variables that all Kubernetes runtimes set.
    fn network_arguments(&self, sandbox: &str) -> String {
        let record = &self.record;
        let known = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", record.namespace.as_str()),
            ("K8S_POD_NAME", record.name.as_str()),
            ("K8S_POD_INFRA_CONTAINER_ID", sandbox),
            ("K8S_POD_UID", record.uid.as_str()),
        ];
        // a name of Kubernetes never has these separators
        let plain = |text: &str| !text.contains([',', ';']) && !text.contains(char::is_control);
        let words = known.iter().filter(|(_, value)| plain(value)).map(|(name, value)| format!("{name}={value}"));
        words.collect::<Vec<_>>().join(";")
    }

    /// The pod's resolv.conf: of the request's DNS configuration, or the host's.
    fn resolv(&self) -> Source {
        let Some(DnsConfig { servers, searches, options }) = &self.dns else { return Source::Host };
        if servers.is_empty() && searches.is_empty() && options.is_empty() {
            return Source::Host;
        }
        let mut lines: Vec<String> = Vec::new();
        if !searches.is_empty() {
            lines.push(format!("search {}", searches.join(" ")));
        }
        lines.extend(servers.iter().map(|server| format!("nameserver {server}")));
        if !options.is_empty() {
            lines.push(format!("options {}", options.join(" ")));
        }
        Source::Text(lines.join("\n") + "\n")
    }
}

/// The modes of network, PID and IPC namespaces.
fn namespaces(options: &NamespaceOption) -> [i32; 3] {
    [options.network, options.pid, options.ipc]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{LinuxPodSandboxConfig, LinuxSandboxSecurityContext};

    fn config() -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "web".into(),
                uid: "u1".into(),
                namespace: "default".into(),
                attempt: 1,
            }),
            hostname: "web-0".into(),
            log_directory: "/var/log/pods/x".into(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..PodSandboxConfig::default()
        }
    }

    fn with_namespaces(options: NamespaceOption) -> PodSandboxConfig {
        let context = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
        let linux = LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() };
        PodSandboxConfig { linux: Some(linux), ..config() }
    }

    #[test]
    fn a_sandbox_becomes_a_manifest_and_settings() {
        let port = |protocol: Protocol, host_port, host_ip: &str| PortMapping {
            protocol: protocol.into(),
            container_port: 80,
            host_port,
            host_ip: host_ip.into(),
        };
        let ports = vec![port(Protocol::Tcp, 8080, ""), port(Protocol::Udp, 0, ""), port(Protocol::Sctp, 81, "::1")];
        let dns = DnsConfig {
            servers: vec!["10.0.0.1".into(), "10.0.0.2".into()],
            searches: vec!["a.local".into(), "b.local".into()],
            options: vec!["ndots:5".into()],
        };
        let config = PodSandboxConfig { port_mappings: ports, dns_config: Some(dns), ..config() };
        let wanted = SandboxRequest::new(config, String::new()).unwrap();
        let manifest = wanted.manifest().unwrap();
        assert!(manifest.is_mutable().unwrap());
        assert_eq!(record::read(&manifest.user_annotations).unwrap(), Some(wanted.record.clone()));
        assert_eq!(manifest.user_labels["app"], "web");
        let ports: Vec<_> = manifest.ports.iter().map(|p| (p.host_port, p.host_ip.as_deref())).collect();
        assert_eq!(ports, [(8080, None), (81, Some("::1"))]);
        assert_eq!(manifest.ports[1].pod_port.as_ref().unwrap()["protocol"], "sctp");

        let settings = wanted.settings(Some("pods"), Path::new("/no/such"), "abc").unwrap();
        assert_eq!(settings.hostname.as_deref(), Some("web-0"));
        let network = "pods:IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;\
                       K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u1,!default-restricted";
        assert_eq!(settings.network.as_deref(), Some(network));
        let text = "search a.local b.local\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:5\n";
        assert_eq!(settings.names.resolv, Some(Source::Text(text.into())));
        assert_eq!(
            wanted.settings(None, Path::new("/no/such"), "abc").unwrap_err().code,
            tonic::Code::FailedPrecondition
        );
    }

    #[test]
    fn on_the_hosts_network_nothing_else_is_needed() {
        let host = NamespaceMode::Node.into();
        let config = with_namespaces(NamespaceOption { network: host, ipc: host, ..Default::default() });
        let config = PodSandboxConfig { hostname: String::new(), ..config };
        let wanted = SandboxRequest::new(config, String::new()).unwrap();
        let settings = wanted.settings(None, Path::new("/no/such"), "abc").unwrap();
        assert_eq!((settings.network.as_deref(), settings.ipc), (Some("host"), Some(Ipc::Parent)));
        assert!(!settings.hostname.unwrap().is_empty());
        assert_eq!(settings.names.resolv, Some(Source::Host));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let code =
            |config: PodSandboxConfig, handler: &str| SandboxRequest::new(config, handler.into()).unwrap_err().code;
        use tonic::Code::InvalidArgument;
        assert_eq!(code(PodSandboxConfig::default(), ""), InvalidArgument);
        assert_eq!(code(config(), "kata"), InvalidArgument);
        assert_eq!(code(PodSandboxConfig { hostname: "x".repeat(65), ..config() }, ""), InvalidArgument);
        assert_eq!(code(PodSandboxConfig { log_directory: "logs".into(), ..config() }, ""), InvalidArgument);
        let bad = PortMapping { container_port: 0, host_port: 1, ..Default::default() };
        let wanted =
            SandboxRequest::new(PodSandboxConfig { port_mappings: vec![bad], ..config() }, String::new()).unwrap();
        assert_eq!(wanted.manifest().unwrap_err().code, InvalidArgument);
    }
}
