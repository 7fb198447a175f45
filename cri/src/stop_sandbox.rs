//! Stopping and removing sandboxes with their containers. Each call can be repeated; it succeeds if the sandbox is
//! gone.

use crate::api::{RemovePodSandboxRequest, RemovePodSandboxResponse, StopPodSandboxRequest, StopPodSandboxResponse};
use crate::container::life;
use crate::fault::{Result, gone_is_fine};
use crate::node::Node;
use crate::sandbox::{self, Sandbox, stop_pod};

/// `StopPodSandbox`: kills a sandbox's containers and stops its pod.
///
/// # Errors
/// The id is ambiguous, or the pod could not be stopped.
pub fn stop(node: &Node, request: &StopPodSandboxRequest) -> Result<StopPodSandboxResponse> {
    gone_is_fine(sandbox::find(node, &request.pod_sandbox_id).and_then(|sandbox| end(node, &sandbox)))?;
    Ok(StopPodSandboxResponse {})
}

/// `RemovePodSandbox`: stops a sandbox if it runs, and removes it with all its containers.
///
/// # Errors
/// The id is ambiguous, the pod could not be stopped, or a part of it could not be removed.
pub fn remove(node: &Node, request: &RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse> {
    gone_is_fine(sandbox::find(node, &request.pod_sandbox_id).and_then(|sandbox| {
        end(node, &sandbox)?;
        stop_pod::remove(node, &sandbox)
    }))?;
    stop_pod::finish_removal(node, &request.pod_sandbox_id)?;
    Ok(RemovePodSandboxResponse {})
}

fn end(node: &Node, sandbox: &Sandbox) -> Result<()> {
    if let Err(fault) = life::kill_all(node, sandbox) {
        // they end with the pod in any case
        log::debug!("end the containers of sandbox {}: {}", sandbox.id(), fault.message);
    }
    stop_pod::end(node, sandbox)
}
