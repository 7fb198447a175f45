//! Ending and removing sandboxes.

use std::time::Duration;

use stage0::pod::gc;
use stage0::pod::stop::{self, StopOptions};
use stage0::poddir::find::State;

use super::Sandbox;
use crate::fault::Result;
use crate::node::Node;

/// How long a pod whose apps have ended may take for its own end.
const ORDERLY: Duration = Duration::from_secs(10);

/// Ends a sandbox's pod; its networks are left.
///
/// # Errors
/// It could not be ended.
pub fn end(node: &Node, sandbox: &Sandbox) -> Result<()> {
    if sandbox.pod.state() != State::Running {
        return Ok(());
    }
    let options = StopOptions { force: false, timeout: Some(ORDERLY), debug: node.debug };
    stop::stop(&node.store, &sandbox.pod, options)?;
    node.reap();
    Ok(())
}

/// Removes a sandbox's pod, which has ended.
///
/// # Errors
/// It runs, or not all of it could be removed.
pub fn remove(node: &Node, sandbox: &Sandbox) -> Result<()> {
    match super::whole(node, sandbox.pod.uuid())? {
        Some(sandbox) => Ok(gc::rm(&node.store, sandbox.pod, node.debug)?),
        None => Ok(()),
    }
}
