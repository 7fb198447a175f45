//! What a container may use: as it is said in the manifest of its pod, and other limits while it runs.

use stage0::app::update::update;
use stage1::appc::Isolators;

use super::{Container, find, request};
use crate::api::{LinuxContainerResources, UpdateContainerResourcesRequest, UpdateContainerResourcesResponse};
use crate::fault::{Fault, Result};
use crate::node::Node;

/// Microseconds of the period that limits on processor time are said for.
const PERIOD: i64 = 100_000;

/// The limits that a container has by now; 0 is none.
pub fn of(container: &Container) -> LinuxContainerResources {
    let isolators = container.app.app.as_ref().map(|app| Isolators::parse(&app.isolators));
    let isolators = match isolators {
        Some(Ok(isolators)) => isolators,
        // what is written in the manifest was checked before
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

/// Gives a container other limits, at once if it runs. Those that are 0 stay as they are.
///
/// # Errors
/// There is no such container, it has ended, or a limit makes no sense or can't be had; all is then as it was.
pub fn change(node: &Node, request: &UpdateContainerResourcesRequest) -> Result<UpdateContainerResourcesResponse> {
    if request.windows.is_some() {
        return Err(Fault::invalid("windows: this is Linux"));
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
    // swap counts together with memory, which may stay as it is
    let memory =
        if wanted.memory_limit_in_bytes == 0 { before.memory_limit_in_bytes } else { wanted.memory_limit_in_bytes };
    let mut isolators =
        request::resources(&LinuxContainerResources { memory_limit_in_bytes: memory, ..wanted.clone() })?;
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
