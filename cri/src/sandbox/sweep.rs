//! What a server that was killed has left of sandboxes that it was just making.

use stage0::pod::gc;
use stage0::poddir::find::{self as pods, Pod, State};
use stage0::poddir::manifest;

use crate::fault::Result;
use crate::node::Node;
use crate::record;

/// Removes pods that were never whole; and, before this server makes any itself, sandboxes that were never run.
///
/// # Errors
/// The pods can't be listed. What can't be removed is left, with a warning.
pub fn sweep(node: &Node, first: bool) -> Result<()> {
    for pod in pods::list(&node.store)? {
        let is_rest = match pod.state() {
            State::PrepareFailed => true,
            State::Prepared => first && is_sandbox(&pod),
            _ => false,
        };
        if is_rest {
            let uuid = pod.uuid();
            log::info!("pod {uuid} was never whole: it is removed");
            if let Err(error) = gc::rm(&node.store, pod, node.debug) {
                log::warn!("remove pod {uuid}: {}", error.one_line());
            }
        }
    }
    Ok(())
}

fn is_sandbox(pod: &Pod) -> bool {
    let read = manifest::read(pod.dir()).ok();
    let record = read.map(|manifest| record::read::<record::Sandbox>(&manifest.user_annotations));
    matches!(record, Some(Ok(Some(_))))
}
