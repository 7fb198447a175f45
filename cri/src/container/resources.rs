//! Limits of a container: reading them from its pod's manifest, and changing them while it runs

use stage0::app::update::update;
use stage1::appc::Isolators;

use super::{Container, find};
use crate::api::{LinuxContainerResources, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse};
use crate::fault::{Fault, Result};
use crate::limits;
use crate::node::Node;

/// The period of limits on processor time in answers, in microseconds.
const PERIOD: i64 = 100_000;

/// The current limits of a container; 0 means no limit.
pub fn of(container: &Container) -> LinuxContainerResources {
    let isolators = container.app.app.as_ref().map(|app| Isolators::parse(&app.isolators));
    let isolators = match isolators {
        Some(Ok(isolators)) => isolators,
        // isolators were checked when they were written to the manifest
        _ => Isolators::default(),
    };
    let number = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or_default();
    let memory = number(isolators.memory.limit);
    let swap = isolators.memory_swap.map(|swap| memory.saturating_add(number(Some(swap))));
    LinuxContainerResources {
        cpu_period: PERIOD,
        // thousandths of a processor
        cpu_quota: number(isolators.cpu.limit) * PERIOD / 1000,
        cpu_shares: number(isolators.cpu_shares),
        memory_limit_in_bytes: memory,
        memory_swap_limit_in_bytes: swap.unwrap_or_default(),
        oom_score_adj: isolators.oom_score_adj.unwrap_or_default().into(),
        ..LinuxContainerResources::default()
    }
}

/// `UpdateContainerResources`: changes limits of a container, at once if it runs. Limits that are 0 stay unchanged.
///
/// # Errors
/// The container does not exist or has ended, its sandbox is not ready, or a limit is invalid or can't be set. The
/// limits are unchanged then.
pub fn change(node: &Node, request: &UpdateContainerResourcesRequest) -> Result<UpdateContainerResourcesResponse> {
    if request.windows.is_some() {
        return Err(Fault::invalid("windows: this runtime is for Linux"));
    }
    let (sandbox, container) = find(node, &request.container_id)?;
    super::life::must_run(&sandbox)?;
    if container.status(&sandbox)?.state == "exited" {
        return Err(Fault::not_now(format!("container {} has ended", container.id)));
    }
    let wanted = request.linux.clone().unwrap_or_default();
    let before = of(&container);
    if wanted.oom_score_adj != 0 && wanted.oom_score_adj != before.oom_score_adj {
        return Err(Fault::unimplemented("oom_score_adj can't be changed after the container was created"));
    }
    // the API's swap limit includes memory, whose limit may be unchanged
    let memory =
        if wanted.memory_limit_in_bytes == 0 { before.memory_limit_in_bytes } else { wanted.memory_limit_in_bytes };
    let mut isolators =
        limits::of_container(&LinuxContainerResources { memory_limit_in_bytes: memory, ..wanted.clone() })?;
    isolators.retain(|isolator| match isolator.name.as_str() {
        "os/linux/oom-score-adj" => false,
        "resource/memory" => wanted.memory_limit_in_bytes != 0,
        _ => true,
    });
    if !isolators.is_empty() {
        update(&node.store, &sandbox.pod, container.name(), &isolators, node.debug)?;
    }
    Ok(UpdateContainerResourcesResponse {})
}
