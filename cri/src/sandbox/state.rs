//! Listing sandboxes and describing their states

use std::path::Path;
use std::time::SystemTime;

use serde_json::json;
use stage0::fsutil::time::nanoseconds;
use stage0::pod::network as networks;
use stage1::error::Context;

use super::{Sandbox, all, find, users};
use crate::api::{
    LinuxPodSandboxStatus, ListPodSandboxRequest, ListPodSandboxResponse, Namespace, NamespaceMode, NamespaceOption,
    PodIp, PodSandbox, PodSandboxFilter, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxState,
    PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse,
};
use crate::fault::Result;
use crate::node::Node;
use crate::record;

/// The name of the network of sandboxes that don't use the host's: the first configured one. `None` if there is none.
///
/// # Errors
/// The configurations can't be read.
pub fn network(node: &Node) -> Result<Option<String>> {
    Ok(stage1::net::first_configured(Path::new(&node.local_config))?)
}

/// `ListPodSandbox`: the sandboxes that match the filter, the newest first.
///
/// # Errors
/// The pods can't be read.
pub fn list(node: &Node, request: ListPodSandboxRequest) -> Result<ListPodSandboxResponse> {
    let filter = request.filter.unwrap_or_default();
    let mut items = Vec::new();
    for sandbox in all(node)? {
        if fits(&filter, &sandbox)? {
            items.push(item(&sandbox)?);
        }
    }
    items.sort_by_key(|item| std::cmp::Reverse(item.created_at));
    Ok(ListPodSandboxResponse { items })
}

fn fits(filter: &PodSandboxFilter, sandbox: &Sandbox) -> Result<bool> {
    let in_state = match filter.state {
        Some(wanted) => wanted.state == state(sandbox)? as i32,
        None => true,
    };
    Ok(in_state
        && sandbox.id().starts_with(&filter.id)
        && record::fits(&filter.label_selector, &sandbox.manifest.user_labels))
}

fn item(sandbox: &Sandbox) -> Result<PodSandbox> {
    Ok(PodSandbox {
        id: sandbox.id(),
        metadata: Some(metadata(&sandbox.record)),
        state: state(sandbox)?.into(),
        created_at: created_at(sandbox)?,
        labels: record::given(&sandbox.manifest.user_labels),
        annotations: record::given(&sandbox.manifest.user_annotations),
        runtime_handler: sandbox.record.handler.clone(),
    })
}

/// `PodSandboxStatus`: the status of one sandbox, without those of its containers.
///
/// # Errors
/// No sandbox has this id, or it can't be read.
pub fn status(node: &Node, request: PodSandboxStatusRequest) -> Result<PodSandboxStatusResponse> {
    let sandbox = find(node, &request.pod_sandbox_id)?;
    let info = json!({ "uuid": sandbox.pod.uuid().to_string(), "pid": sandbox.pod.pid_if_running()? });
    Ok(PodSandboxStatusResponse {
        status: Some(describe(&sandbox)?),
        info: request.verbose.then(|| ("info".to_owned(), info.to_string())).into_iter().collect(),
        containers_statuses: Vec::new(),
        timestamp: nanoseconds(SystemTime::now()),
    })
}

/// The status of a sandbox.
///
/// # Errors
/// The sandbox can't be read, because another call is removing it.
pub fn describe(sandbox: &Sandbox) -> Result<PodSandboxStatus> {
    let PodSandbox { id, metadata, state, created_at, labels, annotations, runtime_handler } = item(sandbox)?;
    let [network, pid, ipc] = sandbox.record.namespaces;
    let userns_options = sandbox.users()?.map(users::described);
    let options = NamespaceOption { network, pid, ipc, userns_options, ..NamespaceOption::default() };
    Ok(PodSandboxStatus {
        id,
        metadata,
        state,
        created_at,
        network: Some(addresses(sandbox)?),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
        labels,
        annotations,
        runtime_handler,
    })
}

/// The metadata of a sandbox.
pub fn metadata(record: &record::Sandbox) -> PodSandboxMetadata {
    let record::Sandbox { name, namespace, uid, attempt, .. } = record.clone();
    PodSandboxMetadata { name, uid, namespace, attempt }
}

/// Whether the sandbox is ready, as the API says it.
pub(super) fn state(sandbox: &Sandbox) -> Result<PodSandboxState> {
    Ok(if sandbox.is_ready()? { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready })
}

/// When the sandbox was made, in nanoseconds since 1970; never 0.
///
/// # Errors
/// The pod's directory can't be read.
pub fn created_at(sandbox: &Sandbox) -> Result<i64> {
    let created = match sandbox.pod.created_at()? {
        Some(time) => time,
        // a removal that was cut short has left no more than the directory; kubelets refuse a status without a time
        None => std::fs::metadata(sandbox.pod.dir()).and_then(|found| found.modified()).context(|| "stat the pod")?,
    };
    Ok(nanoseconds(created))
}

/// The sandbox's addresses; none on the host's network.
fn addresses(sandbox: &Sandbox) -> Result<PodSandboxNetworkStatus> {
    if sandbox.record.namespaces[0] == NamespaceMode::Node as i32 {
        return Ok(PodSandboxNetworkStatus::default());
    }
    let mut found: Vec<String> = Vec::new();
    for network in networks::of(&sandbox.pod)? {
        let all = network["addresses"].as_array().into_iter().flatten().filter_map(|address| address.as_str());
        let plain = all.map(|address| address.split('/').next().unwrap_or_default().to_owned());
        let first = network["ip"].as_str().unwrap_or_default().to_owned();
        found.extend(std::iter::once(first).chain(plain).filter(|address| !address.is_empty()));
    }
    let mut unique: Vec<String> = Vec::new();
    for address in found {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let mut rest = unique.into_iter();
    Ok(PodSandboxNetworkStatus {
        ip: rest.next().unwrap_or_default(),
        additional_ips: rest.map(|ip| PodIp { ip }).collect(),
    })
}
