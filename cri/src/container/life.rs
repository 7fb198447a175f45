//! Starting, stopping and removing containers, and reopening their logs. Start, stop and remove can be repeated; stop
//! and remove succeed if the container is gone.

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

/// `StartContainer`: starts a container; does nothing if it runs.
///
/// # Errors
/// The container does not exist or has ended, its sandbox is not ready, or it could not be started.
pub fn start(node: &Node, request: &StartContainerRequest) -> Result<StartContainerResponse> {
    let (sandbox, container) = find(node, &request.container_id)?;
    must_run(&sandbox)?;
    match container.status(&sandbox)?.state.as_str() {
        "created" => {}
        "exited" => {
            return Err(Fault::not_now("the container has ended and cannot be started again: create a new one"));
        }
        // the client may have lost the answer to an earlier call
        _ => return Ok(StartContainerResponse {}),
    }
    lifecycle::start(&node.store, &sandbox.pod, container.name(), node.debug)?;
    Ok(StartContainerResponse {})
}

/// `StopContainer`: sends a container its stop signal, and kills it after the timeout, in seconds; at once if that is 0
/// or less.
///
/// # Errors
/// The id is ambiguous, or the container could not be stopped.
pub fn stop(node: &Node, request: &StopContainerRequest) -> Result<StopContainerResponse> {
    let timeout = Duration::from_secs(request.timeout.max(0).unsigned_abs());
    gone_is_fine(
        find(node, &request.container_id).and_then(|(sandbox, container)| end(node, &sandbox, &container, timeout)),
    )?;
    Ok(StopContainerResponse {})
}

/// Kills the containers of a sandbox, one after the other.
///
/// # Errors
/// One could not be killed; those after it still run.
pub fn kill_all(node: &Node, sandbox: &Sandbox) -> Result<()> {
    super::of_sandbox(sandbox)?.iter().try_for_each(|container| end(node, sandbox, container, Duration::ZERO))
}

fn end(node: &Node, sandbox: &Sandbox, container: &Container, timeout: Duration) -> Result<()> {
    if sandbox.pod.state() != State::Running {
        return Ok(());
    }
    Ok(lifecycle::stop(&node.store, &sandbox.pod, container.name(), Some(timeout), node.debug)?)
}

/// `RemoveContainer`: removes a container; kills it first if it runs.
///
/// # Errors
/// The id is ambiguous, or the container could not be killed, or a part of it could not be removed: it still exists
/// then.
pub fn remove(node: &Node, request: &RemoveContainerRequest) -> Result<RemoveContainerResponse> {
    gone_is_fine(find(node, &request.container_id).and_then(|(sandbox, container)| {
        end(node, &sandbox, &container, Duration::ZERO)?;
        Ok(lifecycle::rm(&node.store, &sandbox.pod, container.name(), false, node.debug)?)
    }))?;
    Ok(RemoveContainerResponse {})
}

/// `ReopenContainerLog`: has a container's log file opened anew, after the kubelet renamed the old one; if the container
/// is being started, after the start.
///
/// # Errors
/// The container does not exist, does not run or has no log file, or its sandbox is not ready.
pub fn reopen_log(node: &Node, request: &ReopenContainerLogRequest) -> Result<ReopenContainerLogResponse> {
    let (sandbox, container) = find(node, &request.container_id)?;
    must_run(&sandbox)?;
    lifecycle::wait_for_start(&sandbox.pod, container.name())?;
    if container.status(&sandbox)?.state != "running" {
        return Err(Fault::not_now("the container does not run"));
    }
    attach::reopen_log(&node.store, &sandbox.pod, container.name(), node.debug)?;
    Ok(ReopenContainerLogResponse {})
}

/// Fails unless the sandbox is ready.
///
/// # Errors
/// The sandbox is not ready, or its pod can't be read.
pub(super) fn must_run(sandbox: &Sandbox) -> Result<()> {
    if sandbox.is_ready()? { Ok(()) } else { Err(Fault::not_now(format!("sandbox {} is not ready", sandbox.id()))) }
}
