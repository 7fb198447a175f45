//! Sandboxes (CRI PodSandbox): pods that start without apps, and that Kubernetes adds containers to.

mod request;
pub mod resources;
pub mod run;
pub mod state;
pub mod stop_pod;
pub mod sweep;
pub mod users;

use stage0::poddir::find as pods;
use stage0::poddir::find::{Pod, State};
use stage0::poddir::{manifest, uid_range};
use stage1::appc::PodManifest;
use stage1::layout;
use stage1::uid_range::UidRange;
use uuid::Uuid;

use crate::fault::{Fault, Result};
use crate::id;
use crate::node::Node;
use crate::record;

/// A sandbox, as it was when it was read.
#[derive(Debug)]
pub struct Sandbox {
    /// The sandbox's pod.
    pub pod: Pod,
    /// The pod's manifest.
    pub manifest: PodManifest,
    /// What Kubernetes said of it when it was made: its name, its labels and so on.
    pub record: record::Sandbox,
}

impl Sandbox {
    /// Reads a pod as a sandbox. `None` if the pod is not a sandbox, was not run yet, or is being removed.
    ///
    /// # Errors
    /// The pod's manifest can't be read, or its sandbox record is malformed.
    fn of(node: &Node, pod: Pod) -> Result<Option<Self>> {
        if !matches!(pod.state(), State::Running | State::Exited | State::ExitedGarbage) {
            return Ok(None);
        }
        if is_half_removed(&pod) {
            return Ok(None);
        }
        // another process may move or remove the pod meanwhile
        let read = pods::while_others_work(&node.store, &pod, |pod| manifest::read(pod.dir()))?;
        let Some(manifest) = read else { return Ok(None) };
        let Some(record) = record::read(&manifest.user_annotations)? else { return Ok(None) };
        Ok(Some(Self { pod, manifest, record }))
    }

    /// The sandbox's id.
    pub fn id(&self) -> String {
        id::of_sandbox(self.pod.uuid())
    }

    /// The host ids of the pod's own user namespace; `None` if it has the host's.
    ///
    /// # Errors
    /// The pod's directory can't be read.
    pub fn users(&self) -> Result<Option<UidRange>> {
        Ok(uid_range::of_pod(self.pod.dir())?)
    }

    /// Whether the sandbox runs and is ready for containers.
    ///
    /// # Errors
    /// The pod's directory can't be read.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(self.pod.state() == State::Running && stage1::pod::is_ready(self.pod.dir())?)
    }
}

/// Whether the removal of the pod was cut short: its manifest is gone, so that nothing says any more what it was.
fn is_half_removed(pod: &Pod) -> bool {
    pod.state() == State::ExitedGarbage && !pod.dir().join(layout::MANIFEST).exists()
}

/// All sandboxes. One that can't be read is left out, with a warning.
///
/// # Errors
/// The pods can't be listed.
pub fn all(node: &Node) -> Result<Vec<Sandbox>> {
    let mut found = Vec::new();
    for pod in pods::list(&node.store)? {
        let uuid = pod.uuid();
        match Sandbox::of(node, pod) {
            Ok(sandbox) => found.extend(sandbox),
            Err(fault) => log::warn!("pod {uuid}: {}", fault.message),
        }
    }
    Ok(found)
}

/// The sandbox whose id is `text` or begins with it.
///
/// # Errors
/// No sandbox matches, or several do, or it can't be read.
pub fn find(node: &Node, text: &str) -> Result<Sandbox> {
    let none = || Fault::not_found(format!("there is no sandbox {text:?}"));
    match id::sandbox(text) {
        Some(uuid) => whole(node, uuid)?.ok_or_else(none),
        None => {
            let all = all(node)?.into_iter().map(|sandbox| (sandbox.id(), sandbox)).collect();
            id::meant("sandbox", text, all)
        }
    }
}

/// The sandbox whose pod has this UUID; `None` if no pod has it, or the pod is not a sandbox.
///
/// # Errors
/// The pod's manifest can't be read, or its sandbox record is malformed.
pub fn whole(node: &Node, uuid: Uuid) -> Result<Option<Sandbox>> {
    match pods::find_whole(&node.store, uuid) {
        Ok(pod) => Sandbox::of(node, pod),
        // no pod has the UUID, or the pods can't be read
        Err(_) => Ok(None),
    }
}
