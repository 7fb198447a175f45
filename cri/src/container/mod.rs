//! Containers: the apps of a sandbox's pod.

mod cdi;
pub mod command_end;
pub mod create;
pub mod exec;
mod ignored_fields;
pub mod life;
mod request;
pub mod resources;
pub mod state;

use stage0::app::status::{self, AppStatus};
use stage0::poddir::manifest;
use stage1::appc::{AcName, RuntimeApp};

use crate::fault::{Fault, Result};
use crate::id::{self, ContainerId};
use crate::node::Node;
use crate::record;
use crate::sandbox::{self, Sandbox};

/// A container, as it was when it was read.
#[derive(Debug)]
pub struct Container {
    /// The container's id.
    pub id: ContainerId,
    /// What Kubernetes said of it when it was made: its name, its image and so on.
    pub record: record::Container,
    /// The app in the pod's manifest.
    pub app: RuntimeApp,
}

impl Container {
    /// Reads an app as a container. `None` if it is not a container.
    fn of(sandbox: &Sandbox, app: &RuntimeApp) -> Result<Option<Self>> {
        let annotations = app.app.as_ref().map(|app| &app.user_annotations);
        let Some(record) = annotations.map(record::read).transpose()?.flatten() else { return Ok(None) };
        let is_ours = id::is_of_container(&app.name) && !manifest::is_being_added(sandbox.pod.dir(), &app.name);
        let id = ContainerId { app: app.name.clone(), pod: sandbox.pod.uuid() };
        Ok(is_ours.then(|| Self { id, record, app: app.clone() }))
    }

    /// The app's name.
    pub fn name(&self) -> &AcName {
        &self.app.name
    }

    /// The app's state in the pod.
    ///
    /// # Errors
    /// The state can't be read, or the app is gone.
    pub fn status(&self, sandbox: &Sandbox) -> Result<AppStatus> {
        Ok(status::status(&sandbox.pod, self.name())?)
    }
}

/// The containers of a sandbox.
///
/// # Errors
/// The record of a container is malformed.
pub fn of_sandbox(sandbox: &Sandbox) -> Result<Vec<Container>> {
    let containers = sandbox.manifest.apps.iter().map(|app| Container::of(sandbox, app));
    containers.filter_map(Result::transpose).collect()
}

/// The container whose id is `text` or begins with it, with its sandbox.
///
/// # Errors
/// No container matches, or several do, or it can't be read.
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
