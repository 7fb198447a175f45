//! Starting, stopping and removing containers. What is done already is left so, what is gone is fine.

use std::time::Duration;

use stage0::app::lifecycle;
use stage0::entrypoint::attach;
use stage0::poddir::find::State;

use super::{Container, find};
use crate::api::{
    RemoveContainerRequest, RemoveContainerResponse, ReopenContainerLogRequest, ReopenContainerLogResponse,
    StartContainerRequest, StartContainerResponse, StopContainerRequest, StopContainerResponse,
};
use crate::fault::{Fault, Result, gone_is_fine};
use crate::node::Node;
use crate::sandbox::Sandbox;

/// Starts a container that has not been started.
///
/// # Errors
/// It was started before, its sandbox is not ready, or it could not be started.
pub fn start(node: &Node, request: &StartContainerRequest) -> Result<StartContainerResponse> {
    let (sandbox, container) = find(node, &request.container_id)?;
    must_run(&sandbox)?;
    match container.status(&sandbox)?.state.as_str() {
        "created" => {}
        "exited" => return Err(Fault::not_now("the container has ended: a new one is to be created")),
        // an earlier call's answer may have been lost
        _ => return Ok(StartContainerResponse {}),
    }
    lifecycle::start(&node.store, &sandbox.pod, container.name(), node.debug)?;
    Ok(StartContainerResponse {})
}

/// Asks a container to end, and kills it after the timeout: at once, if that is 0.
///
/// # Errors
/// It could not be stopped.
pub fn stop(node: &Node, request: &StopContainerRequest) -> Result<StopContainerResponse> {
    let timeout = Duration::from_secs(request.timeout.max(0).unsigned_abs());
    gone_is_fine(
        find(node, &request.container_id).and_then(|(sandbox, container)| end(node, &sandbox, &container, timeout)),
    )?;
    Ok(StopContainerResponse {})
}

/// Ends what runs in a sandbox, at once.
///
/// # Errors
/// One could not be ended.
pub fn kill_all(node: &Node, sandbox: &Sandbox) -> Result<()> {
    super::of_sandbox(sandbox)?.iter().try_for_each(|container| end(node, sandbox, container, Duration::ZERO))
}

fn end(node: &Node, sandbox: &Sandbox, container: &Container, timeout: Duration) -> Result<()> {
    if sandbox.pod.state() != State::Running {
        return Ok(());
    }
    Ok(lifecycle::stop(&node.store, &sandbox.pod, container.name(), Some(timeout), node.debug)?)
}

/// Removes a container, killed first if it runs.
///
/// # Errors
/// Something of it could not be removed; it is then still there.
pub fn remove(node: &Node, request: &RemoveContainerRequest) -> Result<RemoveContainerResponse> {
    gone_is_fine(find(node, &request.container_id).and_then(|(sandbox, container)| {
        end(node, &sandbox, &container, Duration::ZERO)?;
        Ok(lifecycle::rm(&node.store, &sandbox.pod, container.name(), false, node.debug)?)
    }))?;
    Ok(RemoveContainerResponse {})
}

/// Has a container's log file opened anew, after it was renamed.
///
/// # Errors
/// It does not run, or has no log file.
pub fn reopen_log(node: &Node, request: &ReopenContainerLogRequest) -> Result<ReopenContainerLogResponse> {
    let (sandbox, container) = find(node, &request.container_id)?;
    must_run(&sandbox)?;
    if container.status(&sandbox)?.state != "running" {
        return Err(Fault::not_now("the container does not run"));
    }
    attach::reopen_log(&node.store, &sandbox.pod, container.name(), node.debug)?;
    Ok(ReopenContainerLogResponse {})
}

/// Fails unless the sandbox is ready.
///
/// # Errors
/// It is not.
pub(super) fn must_run(sandbox: &Sandbox) -> Result<()> {
    if sandbox.is_ready()? { Ok(()) } else { Err(Fault::not_now(format!("sandbox {} is not ready", sandbox.id()))) }
}
