//! Sandboxes: pods without apps at first, which Kubernetes puts containers into.

mod request;
pub mod run;
pub mod state;
pub mod stop;
pub mod sweep;

use stage0::poddir::find as pods;
use stage0::poddir::find::{Pod, State};
use stage0::poddir::manifest;
use stage1::appc::PodManifest;
use uuid::Uuid;

use crate::fault::{Fault, Result};
use crate::id;
use crate::node::Node;
use crate::record;

/// A sandbox as it was when it was looked at.
#[derive(Debug)]
pub struct Sandbox {
    /// Its pod.
    pub pod: Pod,
    /// The pod's manifest.
    pub manifest: PodManifest,
    /// What Kubernetes calls it.
    pub record: record::Sandbox,
}

impl Sandbox {
    /// The pod as a sandbox. `None` if it is not one, is not whole yet, or is being removed.
    ///
    /// # Errors
    /// Its manifest can't be read.
    fn of(node: &Node, pod: Pod) -> Result<Option<Self>> {
        if !matches!(pod.state(), State::Running | State::Exited | State::ExitedGarbage) {
            return Ok(None);
        }
        // it may be moved on, or removed, while it is read
        let read = pods::while_others_work(&node.store, &pod, |pod| manifest::read(pod.dir()))?;
        let Some(manifest) = read else { return Ok(None) };
        let Some(record) = record::read(&manifest.user_annotations)? else { return Ok(None) };
        Ok(Some(Self { pod, manifest, record }))
    }

    /// Its id.
    pub fn id(&self) -> String {
        id::of_sandbox(self.pod.uuid())
    }

    /// Whether it takes containers.
    ///
    /// # Errors
    /// Its pod can't be read.
    pub fn is_ready(&self) -> Result<bool> {
        Ok(self.pod.state() == State::Running && stage1::pod::is_ready(self.pod.dir())?)
    }
}

/// Every sandbox.
///
/// # Errors
/// The pods can't be read. A single one that can't is left out, with a warning.
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

/// The sandbox with this id, or the start of it.
///
/// # Errors
/// There is none, or more than one.
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

/// The sandbox of this pod; `None` if there is none (any more).
///
/// # Errors
/// It can't be read.
pub fn whole(node: &Node, uuid: Uuid) -> Result<Option<Sandbox>> {
    match pods::find_whole(&node.store, uuid) {
        Ok(pod) => Sandbox::of(node, pod),
        // that is the only reason
        Err(_) => Ok(None),
    }
}
