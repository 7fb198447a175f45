//! Removes the unfinished and the half removed sandboxes of a server that was killed.

use stage0::pod::gc;
use stage0::poddir::find::{self as pods, Pod, State};
use stage0::poddir::manifest;

use crate::fault::Result;
use crate::node::Node;
use crate::record;

/// Removes pods that were not made to the end, and those that were half removed. With `first`, as a server starts and
/// makes no sandbox yet, also those that have nothing but their directory, which their maker is else about to lock, and
/// sandboxes that were prepared and never run. A pod that can't be removed stays, with a warning.
///
/// # Errors
/// The pods can't be listed.
pub fn sweep(node: &Node, first: bool) -> Result<()> {
    for pod in pods::list(&node.store)? {
        let is_rest = match pod.state() {
            State::PrepareFailed | State::Garbage => true,
            State::Embryo => first,
            State::Prepared => first && is_sandbox(&pod),
            State::ExitedGarbage => super::is_half_removed(&pod),
            _ => false,
        };
        if is_rest {
            let uuid = pod.uuid();
            log::info!("pod {uuid} was never whole, or was half removed: it is removed");
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
