//! Stopping and removing the pods of sandboxes.

use std::time::Duration;

use stage0::pod::gc;
use stage0::pod::stop::{self, StopOptions};
use stage0::poddir::find::{self as pods, State};

use super::Sandbox;
use crate::fault::Result;
use crate::id;
use crate::node::Node;

/// How long a pod may take to end before it is killed.
const ORDERLY: Duration = Duration::from_secs(10);

/// Stops a sandbox's pod, which leaves its networks (CNI DEL) as it ends; does nothing if the pod has ended.
///
/// # Errors
/// The stop entrypoint fails, or the pod still runs after it was killed.
pub fn end(node: &Node, sandbox: &Sandbox) -> Result<()> {
    if sandbox.pod.state() != State::Running {
        return Ok(());
    }
    let options = StopOptions { force: false, timeout: Some(ORDERLY), debug: node.debug };
    stop::stop(&node.store, &sandbox.pod, options)?;
    node.reap();
    Ok(())
}

/// Finishes the removal of the pod with this id, if one was cut short; does nothing otherwise.
///
/// # Errors
/// A part of it could not be removed.
pub fn finish_removal(node: &Node, id: &str) -> Result<()> {
    let Some(uuid) = id::sandbox(id) else { return Ok(()) };
    match pods::find_whole(&node.store, uuid) {
        Ok(pod) if super::is_half_removed(&pod) => Ok(gc::rm(&node.store, pod, node.debug)?),
        _ => Ok(()),
    }
}

/// Removes a sandbox's pod, which must have ended; does nothing if the pod is gone.
///
/// # Errors
/// The pod runs, or a part of it could not be removed.
pub fn remove(node: &Node, sandbox: &Sandbox) -> Result<()> {
    match super::whole(node, sandbox.pod.uuid())? {
        Some(sandbox) => Ok(gc::rm(&node.store, sandbox.pod, node.debug)?),
        None => Ok(()),
    }
}
