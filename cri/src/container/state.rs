//! Listing containers and describing their states

use std::path::Path;

use serde_json::json;
use stage0::app::record::record as launch_record;
use stage0::app::status::AppStatus;
use stage1::launch::LaunchRecord;

use super::{Container, find, of_sandbox, resources};
use crate::api;
use crate::api::{
    ContainerFilter, ContainerMetadata, ContainerResources, ContainerState, ContainerStatus, ContainerStatusRequest,
    ContainerStatusResponse, ContainerUser, ImageSpec, LinuxContainerUser, ListContainersRequest,
    ListContainersResponse,
};
use crate::fault::Result;
use crate::node::Node;
use crate::record;
use crate::sandbox::{self, Sandbox};

/// The exit code of a container whose exit status was not recorded, because its sandbox was killed.
const UNSEEN: i32 = 255;

/// `ListContainers`: the containers that match the filter, the newest first.
///
/// # Errors
/// The pods can't be listed, or a container's record is malformed.
pub fn list(node: &Node, request: ListContainersRequest) -> Result<ListContainersResponse> {
    let filter = request.filter.unwrap_or_default();
    let mut containers = Vec::new();
    let sandboxes = if filter.pod_sandbox_id.is_empty() {
        sandbox::all(node)?
    } else {
        sandbox::all(node)?.into_iter().filter(|sandbox| sandbox.id().starts_with(&filter.pod_sandbox_id)).collect()
    };
    for sandbox in sandboxes {
        for container in of_sandbox(&sandbox)? {
            // another call has just removed it
            let Ok(status) = container.status(&sandbox) else { continue };
            if fits(&filter, &container, &status) {
                containers.push(item(&sandbox, &container, &status));
            }
        }
    }
    containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    Ok(ListContainersResponse { containers })
}

fn fits(filter: &ContainerFilter, container: &Container, status: &AppStatus) -> bool {
    let in_state = filter.state.is_none_or(|wanted| wanted.state == state(status) as i32);
    let labels = container.app.app.as_ref().map(|app| &app.user_labels);
    in_state
        && container.id.to_string().starts_with(&filter.id)
        && labels.is_some_and(|labels| record::fits(&filter.label_selector, labels))
}

fn item(sandbox: &Sandbox, container: &Container, status: &AppStatus) -> api::Container {
    let ContainerStatus { id, metadata, state, created_at, image, image_ref, labels, annotations, image_id, .. } =
        describe(sandbox, container, status);
    api::Container {
        id,
        pod_sandbox_id: sandbox.id(),
        metadata,
        image,
        image_ref,
        state,
        created_at,
        labels,
        annotations,
        image_id,
    }
}

/// `ContainerStatus`: the status of one container.
///
/// # Errors
/// No container has this id, or it can't be read.
pub fn status(node: &Node, request: &ContainerStatusRequest) -> Result<ContainerStatusResponse> {
    let (sandbox, container) = find(node, &request.container_id)?;
    let status = container.status(&sandbox)?;
    let info = json!({ "sandboxID": sandbox.id(), "app": container.name().to_string() });
    Ok(ContainerStatusResponse {
        status: Some(with_user(&sandbox, &container, &status)),
        info: request.verbose.then(|| ("info".to_owned(), info.to_string())).into_iter().collect(),
    })
}

/// The statuses of a sandbox's containers.
///
/// # Errors
/// A container can't be read.
pub fn of(sandbox: &Sandbox) -> Result<Vec<ContainerStatus>> {
    let status = |container: &Container| Ok(with_user(sandbox, container, &container.status(sandbox)?));
    of_sandbox(sandbox)?.iter().map(status).collect()
}

/// [`describe`], and the user, which takes reading the container's launch record: lists do without it.
fn with_user(sandbox: &Sandbox, container: &Container, status: &AppStatus) -> ContainerStatus {
    ContainerStatus { user: user(sandbox, container), ..describe(sandbox, container, status) }
}

fn describe(sandbox: &Sandbox, container: &Container, status: &AppStatus) -> ContainerStatus {
    let record = &container.record;
    let state = state(status);
    let ended = state == ContainerState::ContainerExited;
    let exit_code = match status.exit_code {
        Some(code) => code.into(),
        None if ended => UNSEEN,
        None => 0,
    };
    let (reason, message) = if ended { end(status, exit_code) } else { <(String, String)>::default() };
    let started_at = if state == ContainerState::ContainerCreated { None } else { status.started_at };
    // A removal that was cut short may have left no times. Kubelets refuse a status without this one, and then never
    // remove the container, nor its sandbox.
    let created_at = status.created_at.or_else(|| sandbox::state::created_at(sandbox).ok()).unwrap_or_default();
    // if the sandbox was killed, no end was recorded: the last known time stands for it
    let finished_at = status.finished_at.or(status.started_at).unwrap_or(created_at);
    let log_directory = &sandbox.record.log_directory;
    let log_path = match (log_directory.is_empty(), record.log_path.is_empty()) {
        (false, false) => Path::new(log_directory).join(&record.log_path).to_string_lossy().into_owned(),
        _ => String::new(),
    };
    let own = container.app.app.as_ref();
    ContainerStatus {
        id: container.id.to_string(),
        metadata: Some(ContainerMetadata { name: record.name.clone(), attempt: record.attempt }),
        state: state.into(),
        created_at,
        started_at: started_at.unwrap_or_default(),
        finished_at: if ended { finished_at } else { 0 },
        exit_code,
        image: Some(ImageSpec { image: record.image.clone(), ..ImageSpec::default() }),
        image_ref: record.image_id.clone(),
        reason,
        message,
        labels: own.map(|app| record::given(&app.user_labels)).unwrap_or_default(),
        annotations: own.map(|app| record::given(&app.user_annotations)).unwrap_or_default(),
        mounts: record.mounts.iter().map(mount).collect(),
        log_path,
        resources: Some(ContainerResources { linux: Some(resources::of(container)), windows: None }),
        image_id: record.image_id.clone(),
        user: None,
        stop_signal: record.stop_signal,
    }
}

/// The ids that the container's first process starts with; `None` if its launch record can't be read: a container that
/// is being made or removed has none, and that of an ended sandbox is not mounted.
fn user(sandbox: &Sandbox, container: &Container) -> Option<ContainerUser> {
    let LaunchRecord { confinement, .. } = launch_record(&sandbox.pod, &container.app.name).ok()??;
    Some(ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: confinement.uid.into(),
            gid: confinement.gid.into(),
            supplemental_groups: confinement.groups.into_iter().map(i64::from).collect(),
        }),
    })
}

fn mount(mount: &record::Mount) -> api::Mount {
    let record::Mount { container_path, host_path, readonly, propagation, image, image_sub_path } = mount.clone();
    let image = image.map(|(image, image_ref)| ImageSpec { image, image_ref, ..ImageSpec::default() });
    api::Mount { container_path, host_path, readonly, propagation, image, image_sub_path, ..api::Mount::default() }
}

/// Why a container has ended: Kubernetes' `reason`, and a message.
fn end(status: &AppStatus, exit_code: i32) -> (String, String) {
    let (reason, message) = match (&status.start_failure, exit_code) {
        (Some(why), _) => ("StartError", why.clone()),
        _ if status.oom_killed => ("OOMKilled", String::new()),
        (None, 0) => ("Completed", String::new()),
        (None, UNSEEN) if status.exit_code.is_none() => ("ContainerStatusUnknown", "its sandbox has ended".to_owned()),
        (None, _) => ("Error", String::new()),
    };
    (reason.to_owned(), message)
}

fn state(status: &AppStatus) -> ContainerState {
    match status.state.as_str() {
        "created" => ContainerState::ContainerCreated,
        "running" => ContainerState::ContainerRunning,
        "exited" => ContainerState::ContainerExited,
        _ => ContainerState::ContainerUnknown,
    }
}
