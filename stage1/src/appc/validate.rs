//! Rules of manifests that their types do not express.

use std::collections::BTreeSet;

use super::manifest::{App, MAX_APP_NAME, Port};
use super::pod_manifest::{PodManifest, RuntimeApp, Volume, VolumeKind};
use crate::error::{Context, Error, Result};

impl PodManifest {
    pub(super) fn validate(&self) -> Result<()> {
        if let Some(name) = twice(self.volumes.iter().map(|volume| volume.name.as_ref())) {
            return Err(Error::new(format!("two volumes are called {name}")));
        }
        if let Some(name) = twice(self.apps.iter().map(|app| app.name.as_ref())) {
            return Err(Error::new(format!("two apps are called {name}")));
        }
        self.volumes.iter().try_for_each(Volume::validate)?;
        self.apps.iter().try_for_each(|app| app.validate().context(|| format!("app {}", app.name)))
    }
}

impl RuntimeApp {
    pub(super) fn validate(&self) -> Result<()> {
        if self.name.as_ref().len() > MAX_APP_NAME {
            return Err(Error::new(format!("the name is longer than {MAX_APP_NAME} characters")));
        }
        self.mounts.iter().filter_map(|mount| mount.app_volume.as_ref()).try_for_each(Volume::validate)?;
        self.app.as_ref().map_or(Ok(()), App::validate)
    }
}

impl Volume {
    pub(super) fn validate(&self) -> Result<()> {
        let fault = match (self.kind, self.source.as_deref().filter(|source| !source.is_empty())) {
            (VolumeKind::Host, None) => "a host volume needs a source",
            (VolumeKind::Host, Some(source)) if !source.starts_with('/') => "its source is not an absolute path",
            (VolumeKind::Empty, Some(_)) => "an empty volume has no source",
            _ => return self.mode().map(drop),
        };
        Err(Error::new(format!("volume {}: {fault}", self.name)))
    }
}

impl App {
    pub(super) fn validate(&self) -> Result<()> {
        if !self.working_directory.is_empty() && !self.working_directory.starts_with('/') {
            return Err(Error::new(format!(
                "the working directory {:?} is not an absolute path",
                self.working_directory
            )));
        }
        if let Some(handler) = self.event_handlers.iter().find(|h| !matches!(&*h.name, "pre-start" | "post-stop")) {
            return Err(Error::new(format!("unknown event {:?}: expected pre-start or post-stop", handler.name)));
        }
        if let Some(name) = twice(self.event_handlers.iter().map(|handler| handler.name.as_str())) {
            return Err(Error::new(format!("two event handlers are called {name}")));
        }
        self.ports.iter().try_for_each(Port::validate)
    }
}

impl Port {
    pub(super) fn validate(&self) -> Result<()> {
        let last = u64::from(self.port) + u64::from(self.count.unwrap_or(1).max(1)) - 1;
        if self.port == 0 || last > u64::from(u16::MAX) {
            return Err(Error::new(format!("port {:?}: {} to {last} are not port numbers", self.name, self.port)));
        }
        Ok(())
    }
}

/// The first name that occurs a second time.
fn twice<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}
