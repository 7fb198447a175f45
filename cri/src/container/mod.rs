//! Containers: apps of a sandbox's pod.

pub mod create;
pub mod exec;
pub mod life;
mod request;
pub mod state;

use stage0::app::status::{self, AppStatus};
use stage1::appc::{AcName, RuntimeApp};

use crate::fault::{Fault, Result};
use crate::id::{self, ContainerId};
use crate::node::Node;
use crate::record;
use crate::sandbox::{self, Sandbox};

/// A container as it was when it was looked at.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// What Kubernetes calls it.
    pub record: record::Container,
    /// The app.
    pub app: RuntimeApp,
}

impl Container {
    /// The app as a container. `None` if it is not one.
    fn of(sandbox: &Sandbox, app: &RuntimeApp) -> Result<Option<Self>> {
        let annotations = app.app.as_ref().map(|app| &app.user_annotations);
        let Some(record) = annotations.map(record::read).transpose()?.flatten() else { return Ok(None) };
        let is_ours = id::is_of_container(&app.name);
        let id = ContainerId { app: app.name.clone(), pod: sandbox.pod.uuid() };
        Ok(is_ours.then(|| Self { id, record, app: app.clone() }))
    }

    /// The app's name.
    pub fn name(&self) -> &AcName {
        &self.app.name
    }

    /// What the pod says of it.
    ///
    /// # Errors
    /// It can't be read.
    pub fn status(&self, sandbox: &Sandbox) -> Result<AppStatus> {
        Ok(status::status(&sandbox.pod, self.name())?)
    }
}

/// The containers of a sandbox.
///
/// # Errors
/// A record is damaged.
pub fn of_sandbox(sandbox: &Sandbox) -> Result<Vec<Container>> {
    let containers = sandbox.manifest.apps.iter().map(|app| Container::of(sandbox, app));
    containers.filter_map(Result::transpose).collect()
}

/// The container with this id, or the start of it, and its sandbox.
///
/// # Errors
/// There is none, or more than one.
pub fn find(node: &Node, text: &str) -> Result<(Sandbox, Container)> {
    let none = || Fault::not_found(format!("there is no container {text:?}"));
    let Some(id) = ContainerId::parse(text) else {
        let mut all = Vec::new();
        for sandbox in sandbox::all(node)? {
            all.extend(of_sandbox(&sandbox)?.into_iter().map(|container| (container.id.to_string(), container.id)));
        }
        let id = id::meant("container", text, all)?;
        return find(node, &id.to_string());
    };
    let sandbox = sandbox::whole(node, id.pod)?.ok_or_else(none)?;
    let app = sandbox.manifest.app(&id.app).ok_or_else(none)?;
    let container = Container::of(&sandbox, app)?.ok_or_else(none)?;
    Ok((sandbox, container))
}
