//! What `up` makes outside of the pod: named volumes, and the directories and files of the host that the file says to
//! make. It is removed again if `up` fails, unless an app has run with it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use stage1::appc::RuntimeApp;
use stage1::error::{Context, Error, Result};

use super::plan::{HostPath, PodPlan};
use crate::store::Store;
use crate::volume::name::VolumeName;
use crate::volume::{named, removal};

/// What one `up` has made.
pub struct Made<'a> {
    store: &'a Store,
    volumes: Vec<VolumeName>,
    /// A directory comes before those in it.
    paths: Vec<PathBuf>,
    /// The sources of the volumes of apps that have run.
    used: RefCell<BTreeSet<PathBuf>>,
}

impl<'a> Made<'a> {
    /// Makes what the plan says to make and what does not exist.
    ///
    /// # Errors
    /// A volume, directory or file can't be made. Those before it are removed again then.
    pub fn of(store: &'a Store, plan: &PodPlan) -> Result<Self> {
        let mut made = Self::nothing(store);
        match made.make(plan) {
            Ok(()) => Ok(made),
            Err(error) => Err(made.undo(error)),
        }
    }

    /// Nothing was made.
    pub fn nothing(store: &'a Store) -> Self {
        Self { store, volumes: Vec::new(), paths: Vec::new(), used: RefCell::default() }
    }

    fn make(&mut self, plan: &PodPlan) -> Result<()> {
        for (claim, labels) in &plan.claims {
            if !named::ensure(self.store, claim, labels)? {
                continue;
            }
            self.volumes.push(claim.clone());
            if let Some(group) = plan.fs_group {
                let data = named::source(self.store, claim);
                let shown = || format!("give volume {claim} to group {group}");
                std::os::unix::fs::chown(&data, None, Some(group)).context(shown)?;
                std::fs::set_permissions(&data, Permissions::from_mode(0o2775)).context(shown)?;
            }
        }
        // a file may be in a directory of another volume; its own is not made (as kubelets have it)
        let (directories, files): (Vec<_>, Vec<_>) = plan.host_paths.iter().partition(|new| new.is_directory);
        for HostPath { path, .. } in directories {
            self.make_directory(path)?;
        }
        for HostPath { path, .. } in files.into_iter().filter(|new| !new.path.exists()) {
            File::create_new(path).context(|| format!("create {path:?}"))?;
            self.paths.push(path.clone());
        }
        Ok(())
    }

    fn make_directory(&mut self, path: &Path) -> Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev() {
            std::fs::DirBuilder::new().mode(0o755).create(path).context(|| format!("make directory {path:?}"))?;
            self.paths.push(path.to_owned());
        }
        Ok(())
    }

    /// Notes that an app has run, or may have: what it may have written stays.
    pub fn has_run(&self, app: &RuntimeApp) {
        let volumes = app.mounts.iter().filter_map(|mount| mount.app_volume.as_ref());
        self.used.borrow_mut().extend(volumes.filter_map(|volume| volume.source.as_ref()).map(PathBuf::from));
    }

    /// Removes what was made, but for what apps have run with. Returns `error`, with what has stayed.
    pub fn undo(self, error: Error) -> Error {
        let used = self.used.into_inner();
        let (mut stays, mut failed) = (Vec::new(), Vec::new());
        for volume in self.volumes {
            if used.contains(&named::source(self.store, &volume)) {
                stays.push(format!("volume {volume}"));
            } else if let Err(error) = removal::rm(self.store, &volume) {
                failed.push(error.one_line());
            }
        }
        for path in self.paths.iter().rev() {
            if used.iter().any(|used| used.starts_with(path)) {
                stays.push(path.display().to_string());
                continue;
            }
            let removed = if path.is_dir() { std::fs::remove_dir(path) } else { std::fs::remove_file(path) };
            if let Err(error) = removed {
                failed.push(format!("remove {path:?}: {error}"));
            }
        }
        let mut line = error.one_line();
        for (list, what) in [(stays, "an app has run with what stays"), (failed, "undoing it failed, too")] {
            if !list.is_empty() {
                line += &format!("; {what}: {}", list.join(", "));
            }
        }
        Error::new(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_no_app_has_used_is_removed_again() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(&base.path().join("store")).unwrap();
        let [old, new, used]: [VolumeName; 3] = ["old", "new", "used"].map(|name| name.parse().unwrap());
        named::ensure(&store, &old, &BTreeMap::new()).unwrap();
        let path = |name: &str| base.path().join(name);
        std::fs::create_dir(path("there")).unwrap();
        let host = |name: &str, is_directory| HostPath { path: path(name), is_directory };
        let mut plan = PodPlan::named("web".parse().unwrap());
        plan.claims = [&old, &new, &used].map(|name| (name.clone(), BTreeMap::new())).into();
        plan.host_paths = vec![host("a/b/file", false), host("there", true), host("a/b", true), host("kept/x", true)];
        let made = Made::of(&store, &plan).unwrap();
        assert!(path("a/b/file").is_file() && path("kept/x").is_dir());
        let source = |name: &VolumeName| named::source(&store, name).display().to_string();
        let mount = |source: String| {
            serde_json::json!({"volume": "v", "path": "/v",
                "appVolume": {"name": "v", "kind": "host", "source": source}})
        };
        let app = serde_json::json!({"name": "a", "image": {"id": "x"},
            "mounts": [mount(source(&used)), mount(path("kept/x").display().to_string())]});
        made.has_run(&serde_json::from_value(app).unwrap());
        let line = made.undo(Error::new("refused")).one_line();
        assert!(line.starts_with("refused; an app has run with what stays: volume used, "), "{line}");
        assert!(!line.contains("failed"), "{line}");
        let names: Vec<_> = named::list(&store).unwrap().into_iter().map(|volume| volume.name).collect();
        assert_eq!(names, [old, used]);
        assert!(!path("a").exists() && path("there").exists() && path("kept/x").exists());

        // what was made before the failure
        std::fs::write(path("file"), "").unwrap();
        plan.claims = [(new, BTreeMap::new())].into();
        plan.host_paths = vec![host("d", true), host("file/x", true)];
        assert!(Made::of(&store, &plan).is_err());
        assert!(!path("d").exists());
        assert_eq!(named::list(&store).unwrap().len(), 2);
    }
}
