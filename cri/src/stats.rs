//! The resource usage of containers and sandboxes.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use stage0::fsutil::time::nanoseconds;
use stage1::appc::AcName;
use stage1::cgroup::PodCgroup;
use stage1::layout;

use crate::api::{
    ContainerAttributes, ContainerMetadata, ContainerStats, ContainerStatsFilter, ContainerStatsRequest,
    ContainerStatsResponse, CpuUsage, FilesystemIdentifier, FilesystemUsage, IoUsage, ListContainerStatsRequest,
    ListContainerStatsResponse, MemoryUsage, SwapUsage, UInt64Value,
};
use crate::container::{self, Container};
use crate::disk;
use crate::fault::Result;
use crate::node::Node;
use crate::pressure;
use crate::record;
use crate::sandbox::{self, Sandbox};
use crate::usage::{Cpu, Files, Memory};

/// `ContainerStats`: the resource usage of one container.
///
/// # Errors
/// No container has this id, or it can't be read.
pub fn container(node: &Node, request: &ContainerStatsRequest) -> Result<ContainerStatsResponse> {
    let (sandbox, container) = container::find(node, &request.container_id)?;
    Ok(ContainerStatsResponse { stats: Some(of(node, &sandbox, &container)?) })
}

/// `ListContainerStats`: the resource usage of the containers that match the filter.
///
/// # Errors
/// The pods can't be listed, or a container's record is malformed.
pub fn containers(node: &Node, request: ListContainerStatsRequest) -> Result<ListContainerStatsResponse> {
    let filter = request.filter.unwrap_or_default();
    let mut stats = Vec::new();
    for sandbox in sandbox::all(node)? {
        for container in container::of_sandbox(&sandbox)? {
            if !fits(&filter, &sandbox, &container) {
                continue;
            }
            match of(node, &sandbox, &container) {
                Ok(found) => stats.push(found),
                // another call has just removed it
                Err(fault) => log::debug!("stats of container {}: {}", container.id, fault.message),
            }
        }
    }
    Ok(ListContainerStatsResponse { stats })
}

fn fits(filter: &ContainerStatsFilter, sandbox: &Sandbox, container: &Container) -> bool {
    let labels = container.app.app.as_ref().map(|app| &app.user_labels);
    container.id.to_string().starts_with(&filter.id)
        && sandbox.id().starts_with(&filter.pod_sandbox_id)
        && labels.is_some_and(|labels| record::fits(&filter.label_selector, labels))
}

/// The resource usage of a container.
///
/// # Errors
/// The container can't be read, because another call is removing it.
pub fn of(node: &Node, sandbox: &Sandbox, container: &Container) -> Result<ContainerStats> {
    let status = container.status(sandbox)?;
    let cgroup = PodCgroup::recorded(sandbox.pod.dir())?;
    let place = layout::app_cgroup(container.name());
    // a container that does not run has no cgroup, and uses nothing
    let files = Files::of(&cgroup, &place);
    let limit = (status.state == "running").then(|| cgroup.usage(&place).memory_limit).flatten();
    let own = container.app.app.as_ref();
    let now = nanoseconds(SystemTime::now());
    let taken = disk::below(&upper(sandbox.pod.dir(), container.name()));
    Ok(ContainerStats {
        attributes: Some(ContainerAttributes {
            id: container.id.to_string(),
            metadata: Some(ContainerMetadata {
                name: container.record.name.clone(),
                attempt: container.record.attempt,
            }),
            labels: own.map(|app| record::given(&app.user_labels)).unwrap_or_default(),
            annotations: own.map(|app| record::given(&app.user_annotations)).unwrap_or_default(),
        }),
        cpu: Some(cpu(node, &container.id.to_string(), &files, now)),
        memory: Some(memory(&files, limit, now)),
        writable_layer: Some(FilesystemUsage {
            timestamp: now,
            fs_id: Some(FilesystemIdentifier { mountpoint: node.store.dir().to_string_lossy().into_owned() }),
            used_bytes: number(taken.bytes),
            inodes_used: number(taken.inodes),
        }),
        swap: Some(SwapUsage {
            timestamp: now,
            swap_usage_bytes: number(Memory::of(&files).swap),
            ..SwapUsage::default()
        }),
        io: io(&files, now),
    })
}

#[allow(clippy::unnecessary_wraps)] // as the API has every number
fn number(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

/// The total and the current processor time of the container or sandbox `id`, in nanoseconds and nanoseconds per second.
pub fn cpu(node: &Node, id: &str, files: &Files, now: i64) -> CpuUsage {
    let total = Cpu::of(files).total;
    CpuUsage {
        timestamp: now,
        usage_core_nano_seconds: number(total),
        usage_nano_cores: node.rates.of(id, now, total).and_then(number),
        psi: pressure::of(files, "cpu"),
    }
}

/// The pressure on I/O, if the kernel tells it.
pub fn io(files: &Files, now: i64) -> Option<IoUsage> {
    pressure::of(files, "io").map(|psi| IoUsage { timestamp: now, psi: Some(psi) })
}

/// The memory usage; `limit` is in bytes.
pub fn memory(files: &Files, limit: Option<u64>, now: i64) -> MemoryUsage {
    let memory = Memory::of(files);
    MemoryUsage {
        timestamp: now,
        working_set_bytes: number(memory.working_set()),
        available_bytes: limit.map(|limit| UInt64Value { value: limit.saturating_sub(memory.working_set()) }),
        usage_bytes: number(memory.usage),
        rss_bytes: number(memory.rss),
        page_faults: number(memory.faults),
        major_page_faults: number(memory.major_faults),
        psi: pressure::of(files, "memory"),
    }
}

/// The directory with an app's changes to its image: the overlay's upper directory; without overlays, its root.
pub fn upper(pod: &Path, app: &AcName) -> PathBuf {
    match std::fs::read_to_string(pod.join(layout::app_tree(app))) {
        Ok(tree) => pod.join(layout::overlay_upper(tree.trim(), Some(app))),
        // a pod without overlays
        Err(_) => pod.join(layout::app_rootfs(app)),
    }
}
