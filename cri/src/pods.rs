//! Calls for a sandbox with its containers: status, statistics.

use std::time::SystemTime;

use stage0::fsutil::time::nanoseconds;
use stage0::poddir::find::State;
use stage1::cgroup::PodCgroup;

use crate::api::{
    LinuxPodSandboxStats, ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, NamespaceMode,
    NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats, PodSandboxStatsFilter,
    PodSandboxStatsRequest, PodSandboxStatsResponse, PodSandboxStatusRequest, PodSandboxStatusResponse, ProcessUsage,
    UInt64Value,
};
use crate::container;
use crate::fault::Result;
use crate::node::Node;
use crate::record;
use crate::sandbox::{self, Sandbox};
use crate::stats;
use crate::usage::{self, Files, Interface};

/// `PodSandboxStatus`: the status of one sandbox, with those of its containers.
///
/// # Errors
/// No sandbox has this id, or it can't be read.
pub fn status(node: &Node, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse> {
    let id = request.pod_sandbox_id.clone();
    let status = sandbox::state::status(node, request)?;
    let containers_statuses = container::state::of(&sandbox::find(node, &id)?)?;
    Ok(PodSandboxStatusResponse { containers_statuses, ..status })
}

/// `PodSandboxStats`: the resource usage of one sandbox.
///
/// # Errors
/// No sandbox has this id, or it can't be read.
pub fn stats(node: &Node, request: &PodSandboxStatsRequest) -> Result<PodSandboxStatsResponse> {
    let sandbox = sandbox::find(node, &request.pod_sandbox_id)?;
    Ok(PodSandboxStatsResponse { stats: Some(of(node, &sandbox)?) })
}

/// `ListPodSandboxStats`: the resource usage of the sandboxes that run and match the filter. One that can't be read is
/// left out: it is being removed.
///
/// # Errors
/// The pods can't be listed.
pub fn all_stats(node: &Node, request: ListPodSandboxStatsRequest) -> Result<ListPodSandboxStatsResponse> {
    let filter = request.filter.unwrap_or_default();
    let mut stats = Vec::new();
    let runs = |sandbox: &&Sandbox| sandbox.pod.state() == State::Running && fits(&filter, sandbox);
    for sandbox in sandbox::all(node)?.iter().filter(runs) {
        match of(node, sandbox) {
            Ok(found) => stats.push(found),
            Err(fault) => log::debug!("stats of sandbox {}: {}", sandbox.id(), fault.message),
        }
    }
    Ok(ListPodSandboxStatsResponse { stats })
}

fn fits(filter: &PodSandboxStatsFilter, sandbox: &Sandbox) -> bool {
    sandbox.id().starts_with(&filter.id) && record::fits(&filter.label_selector, &sandbox.manifest.user_labels)
}

fn of(node: &Node, sandbox: &Sandbox) -> Result<PodSandboxStats> {
    let now = nanoseconds(SystemTime::now());
    let record = &sandbox.record;
    let attributes = PodSandboxAttributes {
        id: sandbox.id(),
        metadata: Some(sandbox::state::metadata(record)),
        labels: record::given(&sandbox.manifest.user_labels),
        annotations: record::given(&sandbox.manifest.user_annotations),
    };
    let Some(pid) = sandbox.pod.pid_if_running()? else {
        // kubelets read the members of `linux` without looking whether it is there
        let linux = Some(LinuxPodSandboxStats::default());
        return Ok(PodSandboxStats { attributes: Some(attributes), linux, windows: None });
    };
    let cgroup = PodCgroup::recorded(sandbox.pod.dir())?;
    let place = std::path::Path::new("");
    let files = Files::of(&cgroup, place);
    let counted = cgroup.usage(place);
    let mut containers = Vec::new();
    for container in container::of_sandbox(sandbox)? {
        match container.status(sandbox).map(|status| status.state == "running") {
            Ok(true) => match stats::of(node, sandbox, &container) {
                Ok(found) => containers.push(found),
                // another call has just removed it
                Err(fault) => log::debug!("stats of container {}: {}", container.id, fault.message),
            },
            Ok(false) => {}
            Err(fault) => log::debug!("status of container {}: {}", container.id, fault.message),
        }
    }
    // a sandbox on the host's network has no interfaces of its own
    let on_host = record.namespaces[0] == NamespaceMode::Node as i32;
    let interfaces = if on_host { Vec::new() } else { usage::interfaces(pid) };
    let mut interfaces = interfaces.into_iter().map(interface);
    let network = (!on_host).then(|| NetworkUsage {
        timestamp: now,
        default_interface: interfaces.next(),
        interfaces: interfaces.by_ref().collect(),
    });
    Ok(PodSandboxStats {
        attributes: Some(attributes),
        linux: Some(LinuxPodSandboxStats {
            cpu: Some(stats::cpu(node, &sandbox.id(), &files, now)),
            memory: Some(stats::memory(&files, counted.memory_limit, now)),
            network,
            process: Some(ProcessUsage { timestamp: now, process_count: counted.pids.map(number) }),
            containers,
            io: stats::io(&files, now),
        }),
        windows: None,
    })
}

fn number(value: u64) -> UInt64Value {
    UInt64Value { value }
}

fn interface(interface: Interface) -> NetworkInterfaceUsage {
    let Interface { name, received, sent } = interface;
    NetworkInterfaceUsage {
        name,
        rx_bytes: Some(number(received[0])),
        rx_errors: Some(number(received[2])),
        tx_bytes: Some(number(sent[0])),
        tx_errors: Some(number(sent[2])),
    }
}
