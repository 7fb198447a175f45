//! Changing the limits of a sandbox as a whole.

use stage0::pod::update;

use crate::api::{UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse};
use crate::fault::{Fault, Result};
use crate::limits;
use crate::node::Node;

/// `UpdatePodSandboxResources`: changes the limits of a sandbox's cgroup. Limits that are 0 stay unchanged.
///
/// # Errors
/// No sandbox has this id, or it is not ready, or a limit is invalid or can't be set: the limits are unchanged then.
pub fn change(node: &Node, request: UpdatePodSandboxResourcesRequest) -> Result<UpdatePodSandboxResourcesResponse> {
    let sandbox = super::find(node, &request.pod_sandbox_id)?;
    if !sandbox.is_ready()? {
        return Err(Fault::not_now(format!("sandbox {} is not ready", sandbox.id())));
    }
    let limits = limits::of_sandbox(request.resources, request.overhead)?;
    if !limits.is_empty() {
        update::update(&sandbox.pod, &limits)?;
    }
    Ok(UpdatePodSandboxResourcesResponse {})
}
