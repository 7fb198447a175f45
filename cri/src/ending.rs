//! Ending and removing sandboxes with what is in them. What is done already is left so, what is gone is fine.

use crate::api::{RemovePodSandboxRequest, RemovePodSandboxResponse, StopPodSandboxRequest, StopPodSandboxResponse};
use crate::container::life;
use crate::fault::{Result, gone_is_fine};
use crate::node::Node;
use crate::sandbox::{self, Sandbox, stop};

/// Ends a sandbox, and with it what runs in it, at once.
///
/// # Errors
/// It could not be ended.
pub fn stop(node: &Node, request: &StopPodSandboxRequest) -> Result<StopPodSandboxResponse> {
    gone_is_fine(sandbox::find(node, &request.pod_sandbox_id).and_then(|sandbox| end(node, &sandbox)))?;
    Ok(StopPodSandboxResponse {})
}

/// Ends a sandbox, if it runs, and removes it with all its containers.
///
/// # Errors
/// It could not be ended, or not all of it be removed.
pub fn remove(node: &Node, request: &RemovePodSandboxRequest) -> Result<RemovePodSandboxResponse> {
    gone_is_fine(sandbox::find(node, &request.pod_sandbox_id).and_then(|sandbox| {
        end(node, &sandbox)?;
        stop::remove(node, &sandbox)
    }))?;
    Ok(RemovePodSandboxResponse {})
}

fn end(node: &Node, sandbox: &Sandbox) -> Result<()> {
    if let Err(fault) = life::kill_all(node, sandbox) {
        // the end of the sandbox is theirs as well
        log::debug!("end the containers of sandbox {}: {}", sandbox.id(), fault.message);
    }
    stop::end(node, sandbox)
}
