//! Making sandboxes.

use stage0::pod::create;
use stage0::pod::settings::Launch;
use stage1::error::Context;

use super::request::SandboxRequest;
use super::{all, state};
use crate::api::{RunPodSandboxRequest, RunPodSandboxResponse};
use crate::fault::{Fault, Result};
use crate::id;
use crate::node::Node;

/// `RunPodSandbox`: makes a sandbox and waits until it is ready for containers. If a ready sandbox with this name
/// exists, returns its id: the client may have lost the answer to an earlier call.
///
/// # Errors
/// The request is invalid or has an option that is not supported, another call is making the sandbox, one with this
/// name exists and is not ready, or the pod does not come up: it is removed then.
pub fn run(node: &Node, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse> {
    let config = request.config.ok_or_else(|| Fault::invalid("there is no config"))?;
    let wanted = SandboxRequest::new(config, request.runtime_handler)?;
    let record = &wanted.record;
    let called = format!("sandbox {}/{} ({}), attempt {}", record.namespace, record.name, record.uid, record.attempt);
    let _mark = node.begin(called.clone())?;
    let same = |other: &super::Sandbox| {
        let other = &other.record;
        (&other.namespace, &other.name, &other.uid, other.attempt)
            == (&record.namespace, &record.name, &record.uid, record.attempt)
    };
    if let Some(found) = all(node)?.into_iter().find(same) {
        let id = found.id();
        if found.is_ready()? {
            return Ok(RunPodSandboxResponse { pod_sandbox_id: id });
        }
        return Err(Fault::exists(format!("{called} already exists as {id} and is not ready: remove it first")));
    }
    let manifest = wanted.manifest()?;
    let network = state::network(node)?;
    // reject invalid settings before anything is made
    wanted.settings(network.as_deref(), &node.local_config, "")?;
    if !record.log_directory.is_empty() {
        std::fs::create_dir_all(&record.log_directory)
            .context(|| format!("make the log directory {:?}", record.log_directory))?;
    }
    let stage1 = node.stage1()?;
    let pod = create::prepare(&node.store, &stage1, &manifest, wanted.making(), |_| Ok(()))?;
    let id = id::of_sandbox(pod.uuid());
    let settings = wanted.settings(network.as_deref(), &node.local_config, &id)?;
    let launch = Launch { settings, mutable: true, debug: node.debug };
    let pod = create::mount(&node.store, pod)?;
    let (_, process) = create::start(&node.store, pod, &launch)?;
    node.keep(process);
    Ok(RunPodSandboxResponse { pod_sandbox_id: id })
}
