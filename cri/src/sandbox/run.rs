//! Making sandboxes.

use stage0::pod::create::{self, Making};
use stage0::pod::settings::Launch;
use stage1::error::Context;

use super::request::SandboxRequest;
use super::{all, state};
use crate::api::{RunPodSandboxRequest, RunPodSandboxResponse};
use crate::fault::{Fault, Result};
use crate::id;
use crate::node::Node;

/// Makes a sandbox and waits until it takes containers. Asked for one that is there and ready, it tells that one's id: the
/// answer to an earlier call may have been lost.
///
/// # Errors
/// What is asked for makes no sense, or the pod does not come up; nothing is left of it.
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
        return Err(Fault::exists(format!("{called} is there, as {id}, and not ready: remove it")));
    }
    let manifest = wanted.manifest()?;
    let network = state::network(node)?;
    // before anything is made
    wanted.settings(network.as_deref(), &node.local_config, "")?;
    if !record.log_directory.is_empty() {
        std::fs::create_dir_all(&record.log_directory)
            .context(|| format!("make the log directory {:?}", record.log_directory))?;
    }
    let stage1 = node.stage1()?;
    let pod = create::prepare(&node.store, &stage1, &manifest, Making::default(), |_| Ok(()))?;
    let id = id::of_sandbox(pod.uuid());
    let settings = wanted.settings(network.as_deref(), &node.local_config, &id)?;
    let launch = Launch { settings, mutable: true, debug: node.debug };
    let pod = create::mount(&node.store, pod)?;
    let (_, process) = create::start(&node.store, pod, &launch)?;
    node.keep(process);
    Ok(RunPodSandboxResponse { pod_sandbox_id: id })
}
