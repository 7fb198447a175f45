//! Making containers

use stage0::app::add;
use stage0::image::store::{self as images, Image, find};

use super::request::{self, ImageCommand, SandboxLimits};
use super::{Container, cdi, ignored_fields, life, of_sandbox};
use crate::api::{CreateContainerRequest, CreateContainerResponse, ImageSpec, Mount, NamespaceMode};
use crate::fault::{Fault, Result};
use crate::id::ContainerId;
use crate::node::Node;
use crate::sandbox::{self, Sandbox};

/// `CreateContainer`: makes a container in a sandbox. If one with this name exists and was not started, returns its id:
/// the client may have lost the answer to an earlier call.
///
/// # Errors
/// The request is invalid or not supported, the sandbox does not exist or is not ready, the image is not in the store,
/// another call is making the container, one with this name was started already, or the app can't be added. The sandbox
/// is unchanged then.
pub fn create(node: &Node, request: CreateContainerRequest) -> Result<CreateContainerResponse> {
    let mut config = request.config.ok_or_else(|| Fault::invalid("there is no config"))?;
    let metadata = config.metadata.clone().ok_or_else(|| Fault::invalid("the container has no metadata"))?;
    let sandbox = sandbox::find(node, &request.pod_sandbox_id)?;
    life::must_run(&sandbox)?;
    let called = format!("container {}, attempt {}, of sandbox {}", metadata.name, metadata.attempt, sandbox.id());
    let _mark = node.begin(called.clone())?;
    let same = |other: &Container| (&other.record.name, other.record.attempt) == (&metadata.name, metadata.attempt);
    if let Some(found) = of_sandbox(&sandbox)?.into_iter().find(same) {
        return again(&sandbox, &found, &called);
    }
    ignored_fields::warn(&called, &config);
    let image = image(node, config.image.as_ref())?;
    name_volumes(node, &mut config.mounts)?;
    let own = ImageCommand::of(&image, images::config(&node.store, &image.id)?.as_ref());
    let id = ContainerId::new(sandbox.pod.uuid())?;
    let has_hosts_pids = sandbox.record.namespaces[1] == NamespaceMode::Node as i32;
    let limits = SandboxLimits { users: sandbox.users()?, has_hosts_pids };
    let devices = cdi::additions(node, &config)?;
    let mut options = request::options(&id, limits, image.id.to_string(), own, config)?;
    devices.add_to(&mut options, limits.users.is_some())?;
    options.debug = node.debug;
    if sandbox.record.log_directory.is_empty() {
        options.k8s_log_path = None;
    }
    add::add(&node.store, &sandbox.pod, &options)?;
    Ok(CreateContainerResponse { container_id: id.to_string() })
}

fn again(sandbox: &Sandbox, found: &Container, called: &str) -> Result<CreateContainerResponse> {
    let id = found.id.to_string();
    if found.status(sandbox)?.state == "created" {
        return Ok(CreateContainerResponse { container_id: id });
    }
    Err(Fault::exists(format!("{called} already exists as {id}")))
}

/// Writes the ids of the images that are mounted into the mounts.
fn name_volumes(node: &Node, mounts: &mut [Mount]) -> Result<()> {
    for spec in mounts.iter_mut().filter_map(|mount| mount.image.as_mut()).filter(|spec| !spec.image.is_empty()) {
        spec.image_ref = image(node, Some(spec))?.id.to_string();
    }
    Ok(())
}

/// The image that the request names, by a name or its id.
fn image(node: &Node, spec: Option<&ImageSpec>) -> Result<Image> {
    let text = spec.map(|spec| spec.image.as_str()).unwrap_or_default();
    if text.is_empty() {
        return Err(Fault::invalid("the container names no image"));
    }
    let id = find::look_up(&node.store, text)?;
    let id = id.ok_or_else(|| Fault::not_found(format!("there is no image {text:?}: it has to be pulled first")))?;
    Ok(images::load(&node.store, &id)?)
}
