//! Implicit volumes, which only an app's image declares: in the pod's directory, named `APP-implicit-NUMBER`.

use std::path::Path;

use stage1::appc::{AcName, PodManifest};
use stage1::error::Result;
use stage1::layout;

use crate::fsutil::dir::names_in;
use crate::fsutil::remove;

/// The names of an app's implicit volumes in the pod's directory `pod`, in order.
///
/// # Errors
/// The directory of volumes can't be read.
pub fn of_app(pod: &Path, manifest: &PodManifest, app: &AcName) -> Result<Vec<AcName>> {
    let names = names_in(&pod.join(layout::SHARED_VOLUMES))?;
    let mut found: Vec<AcName> = names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect();
    found.retain(|name: &AcName| {
        is_of(name.as_ref(), app.as_ref()) && !manifest.volumes.iter().any(|volume| volume.name == *name)
    });
    found.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    Ok(found)
}

/// Whether `name` is that of an implicit volume of the app: `APP-implicit-NUMBER`.
fn is_of(name: &str, app: &str) -> bool {
    let number = name.strip_prefix(app).and_then(|rest| rest.strip_prefix("-implicit-"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes the implicit volumes of an app.
///
/// # Errors
/// The directory of volumes can't be read, or a volume can't be removed.
pub fn remove(pod: &Path, manifest: &PodManifest, app: &AcName) -> Result<()> {
    for name in of_app(pod, manifest, app)? {
        remove::tree(&pod.join(layout::shared_volume(&name)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_one_app_alone() {
        let base = tempfile::tempdir().unwrap();
        let pod = base.path();
        for name in ["a-implicit-0", "a-implicit-12", "a-implicit-1-implicit-0", "a-implicit-x", "ab-implicit-0"] {
            std::fs::create_dir_all(pod.join("sharedVolumes").join(name)).unwrap();
        }
        let mut manifest = PodManifest::default();
        let app: AcName = "a".parse().unwrap();
        let found: Vec<String> = of_app(pod, &manifest, &app).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["a-implicit-0", "a-implicit-12"]);
        manifest.volumes = vec![serde_json::from_str(r#"{"name":"a-implicit-0","kind":"empty"}"#).unwrap()];
        remove(pod, &manifest, &app).unwrap();
        assert_eq!(pod.join("sharedVolumes").read_dir().unwrap().count(), 4);
        assert!(pod.join("sharedVolumes/a-implicit-0").exists(), "the user's own");
    }
}
