//! The pods that use a named volume: those whose manifest has it, until they are removed or marked for removal.

use std::fmt;

use serde::Serialize;
use stage1::appc::{PodManifest, Volume};
use stage1::error::{Context, Result};
use stage1::layout;

use super::name::VolumeName;
use super::named;
use crate::poddir::find as pods;
use crate::poddir::find::{Phase, Pod};
use crate::poddir::manifest;
use crate::store::Store;

/// A pod that uses a volume.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name, or its UUID if it has none.
    pub pod: String,
    /// Its apps that mount the volume; empty if only the pod's list of volumes has it.
    pub apps: Vec<String>,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.apps.as_slice() {
            [] => write!(f, "pod {}", self.pod),
            apps => write!(f, "pod {} (app {})", self.pod, apps.join(", ")),
        }
    }
}

/// The pods that use this volume.
///
/// # Errors
/// A pod, which might use the volume, can't be read.
pub fn of(store: &Store, name: &VolumeName) -> Result<Vec<User>> {
    let mut found = Vec::new();
    for pod in pods::list(store)? {
        let looked = pods::while_others_work(store, &pod, |pod| user(store, pod, name))
            .context(|| format!("does pod {} use volume {name}?", pod.short()))?;
        found.extend(looked.flatten());
    }
    Ok(found)
}

fn user(store: &Store, pod: &Pod, name: &VolumeName) -> Result<Option<User>> {
    // a pod marked for removal never runs again; one without a manifest failed to be prepared
    let is_gone = matches!(pod.phase(), Phase::ExitedGarbage | Phase::Garbage);
    if is_gone || !pod.dir().join(layout::MANIFEST).exists() {
        return Ok(None);
    }
    let called = pod.name()?.map_or_else(|| pod.uuid().to_string(), |name| name.to_string());
    Ok(in_manifest(store, &manifest::read(pod.dir())?, name).map(|apps| User { pod: called, apps }))
}

/// The apps in the manifest that mount the volume; `None` if the manifest does not have it.
fn in_manifest(store: &Store, manifest: &PodManifest, name: &VolumeName) -> Option<Vec<String>> {
    let is_it = |volume: &Volume| {
        volume.source.as_deref().and_then(|source| named::of_source(store, source)).as_ref() == Some(name)
    };
    let of_pod: Vec<&Volume> = manifest.volumes.iter().filter(|volume| is_it(volume)).collect();
    let mounts = |app: &&stage1::appc::RuntimeApp| {
        app.mounts.iter().any(|mount| match &mount.app_volume {
            Some(own) => is_it(own),
            None => of_pod.iter().any(|volume| volume.name == mount.volume),
        })
    };
    let apps: Vec<String> = manifest.apps.iter().filter(mounts).map(|app| app.name.to_string()).collect();
    (!apps.is_empty() || !of_pod.is_empty()).then_some(apps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_by_pod_and_by_app() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        let name: VolumeName = "data".parse().unwrap();
        let source = named::source(&store, &name);
        let text = format!(
            r#"{{"acKind":"PodManifest","acVersion":"0.8.11","apps":[
                {{"name":"own","image":{{"id":"x"}},"mounts":[{{"volume":"v","path":"/v",
                    "appVolume":{{"name":"v","kind":"host","source":{source:?}}}}}]}},
                {{"name":"pods","image":{{"id":"x"}},"mounts":[{{"volume":"p","path":"/v"}}]}},
                {{"name":"none","image":{{"id":"x"}},"mounts":[{{"volume":"e","path":"/v"}}]}}],
              "volumes":[{{"name":"e","kind":"empty"}},{{"name":"p","kind":"host","source":{source:?}}}]}}"#
        );
        let manifest = PodManifest::parse(text.as_bytes()).unwrap();
        assert_eq!(in_manifest(&store, &manifest, &name).unwrap(), ["own", "pods"]);
        assert_eq!(in_manifest(&store, &manifest, &"other".parse().unwrap()), None);
        let user = User { pod: "shop".into(), apps: vec!["own".into()] };
        assert_eq!(user.to_string(), "pod shop (app own)");
    }
}
