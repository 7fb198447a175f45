//! The pod manifest (appc, "App Container Pods") while apps are added and removed: changed under the pod's lock,
//! replaced atomically.
//!
//! [`Locked::begin_add`] keeps the old manifest beside the new one, as `pod.adding-APP`. A process that finds such a
//! file under the lock knows that an add was interrupted, and undoes it first. The undo is a rename, which works on a
//! full disk.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use stage1::appc::{AcName, PodManifest};
use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::pod::remove_if_there;

use crate::fsutil::atomic::{self, Attributes};
use crate::fsutil::dir::{names_in, open_dir};
use crate::fsutil::lock;
use crate::poddir::find::Pod;

/// The start of the name of the manifest from before an app was added; the app's name follows.
const BEFORE: &str = "pod.adding-";

/// The manifest of a pod; the pod's lock is held as long as the value lives.
#[derive(Debug)]
pub struct Locked {
    pod: PathBuf,
    lock: File,
}

impl Locked {
    /// Takes the lock of the pod in the directory `pod`; waits up to 660 s for it.
    ///
    /// # Errors
    /// The lock file can't be opened or locked, or another process still holds the lock then; the message names it.
    pub fn new(pod: &Path) -> Result<Self> {
        let path = pod.join(layout::LOCK);
        let lock = lock::open_file(&path)?;
        lock::wait(&lock, &path, lock::Kind::Exclusive, lock::ENTRYPOINTS)?;
        // a killed writer may have left it
        remove_if_there(&pod.join(atomic::temporary_name(OsStr::new(layout::MANIFEST))))?;
        Ok(Self { pod: pod.to_owned(), lock })
    }

    /// The open, locked file.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// Reads the manifest.
    ///
    /// # Errors
    /// As [`read`].
    pub fn read(&self) -> Result<PodManifest> {
        read(&self.pod)
    }

    /// Replaces the manifest; its owner and mode stay.
    ///
    /// # Errors
    /// The manifest can't be written; the old one is unchanged then.
    pub fn write(&self, manifest: &PodManifest) -> Result<()> {
        let path = self.pod.join(layout::MANIFEST);
        let shown = || format!("write {path:?}");
        let json = serde_json::to_vec(manifest).context(shown)?;
        let old = path.metadata().context(shown)?;
        let attributes = Attributes { mode: old.mode() & 0o777, owner: Some((old.uid(), old.gid())), synced: true };
        let dir = open_dir(&self.pod)?.context(shown)?;
        atomic::replace(&dir, OsStr::new(layout::MANIFEST), &json, attributes).context(shown)
    }

    /// Keeps the manifest as it is, before `app` is added: a hard link `pod.adding-APP`.
    ///
    /// # Errors
    /// The link can't be made, or exists because an earlier add was interrupted.
    pub fn begin_add(&self, app: &AcName) -> Result<()> {
        let before = before(&self.pod, app);
        std::fs::hard_link(self.pod.join(layout::MANIFEST), &before).context(|| format!("link {before:?}"))
    }

    /// Ends the add of `app`: removes the kept manifest.
    ///
    /// # Errors
    /// The kept manifest can't be removed.
    pub fn commit_add(&self, app: &AcName) -> Result<()> {
        let before = before(&self.pod, app);
        std::fs::remove_file(&before).context(|| format!("remove {before:?}"))
    }

    /// Undoes the add of `app`: puts the kept manifest back.
    ///
    /// # Errors
    /// The kept manifest can't be renamed or removed.
    pub fn undo_add(&self, app: &AcName) -> Result<()> {
        let before = before(&self.pod, app);
        let path = self.pod.join(layout::MANIFEST);
        std::fs::rename(&before, &path).context(|| format!("rename {before:?} to {path:?}"))?;
        // rename(2) does nothing if both names are links of the same file
        remove_if_there(&before)
    }

    /// The apps whose add was interrupted.
    ///
    /// # Errors
    /// The pod's directory can't be read, or the rest of a file name is not an app name.
    pub fn interrupted_adds(&self) -> Result<Vec<AcName>> {
        let mut found = Vec::new();
        for name in names_in(&self.pod)? {
            if let Some(app) = name.to_str().and_then(|name| name.strip_prefix(BEFORE)) {
                found.push(app.parse()?);
            }
        }
        Ok(found)
    }
}

/// Reads the manifest of the pod in the directory `pod`. It needs no lock, because writers replace the file atomically.
///
/// # Errors
/// The file can't be read, or is not a pod manifest.
pub fn read(pod: &Path) -> Result<PodManifest> {
    let path = pod.join(layout::MANIFEST);
    let json = std::fs::read(&path).context(|| format!("read {path:?}"))?;
    PodManifest::parse(&json).context(|| format!("{path:?}"))
}

/// Fails if the pod is immutable: its apps were fixed when it was made.
pub(crate) fn must_be_mutable(manifest: &PodManifest) -> Result<()> {
    match manifest.is_mutable()? {
        true => Ok(()),
        false => Err(Error::new("the pod is immutable: only a pod that \"podctl sandbox\" made takes app operations")),
    }
}

/// Fails unless the pod's manifest lists the app.
///
/// # Errors
/// The manifest does not list it, or can't be read.
pub fn must_have(pod: &Pod, name: &AcName) -> Result<()> {
    read(pod.dir())?.app(name).with_no_app(pod, name).map(drop)
}

/// The only app of a pod.
///
/// # Errors
/// The manifest can't be read, or the pod has no app or several; the message names them.
pub fn only_one(pod: &Pod) -> Result<AcName> {
    let manifest = read(pod.dir())?;
    match manifest.apps.as_slice() {
        [app] => Ok(app.name.clone()),
        [] => Err(Error::new(format!("pod {} has no app: \"podctl app add\" gives it one", pod.short()))),
        apps => {
            let names: Vec<_> = apps.iter().map(|app| app.name.to_string()).collect();
            Err(Error::new(format!("pod {} has {}: choose one of them", pod.short(), names.join(", "))))
        }
    }
}

/// Turns a missing app into an error.
pub(crate) trait NoApp<T> {
    /// Fails with "pod … has no app …" for `None`.
    fn with_no_app(self, pod: &Pod, name: &AcName) -> Result<T>;
}

impl<T> NoApp<T> for Option<T> {
    fn with_no_app(self, pod: &Pod, name: &AcName) -> Result<T> {
        self.context(|| format!("pod {} has no app {name}: \"podctl app list\" shows all", pod.short()))
    }
}

/// Whether a process is adding the app to the pod in the directory `pod`, or an add of it was interrupted.
pub fn is_being_added(pod: &Path, app: &AcName) -> bool {
    before(pod, app).symlink_metadata().is_ok()
}

fn before(pod: &Path, app: &AcName) -> PathBuf {
    pod.join(format!("{BEFORE}{app}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_add_is_undone_to_the_byte_at_any_point() {
        let base = tempfile::tempdir().unwrap();
        let pod = base.path();
        let text = r#"{"acKind":"PodManifest","acVersion":"0.8.11","apps":[],"later":{"a":1},  "annotations":null}"#;
        std::fs::write(pod.join("pod"), text).unwrap();
        let app: AcName = "web".parse().unwrap();

        let locked = Locked::new(pod).unwrap();
        locked.begin_add(&app).unwrap();
        assert!(is_being_added(pod, &app));
        assert_eq!(locked.interrupted_adds().unwrap(), std::slice::from_ref(&app));
        locked.undo_add(&app).unwrap();
        assert!(!is_being_added(pod, &app));
        assert_eq!(std::fs::read_to_string(pod.join("pod")).unwrap(), text);

        locked.begin_add(&app).unwrap();
        locked.write(&locked.read().unwrap()).unwrap();
        let changed = std::fs::read_to_string(pod.join("pod")).unwrap();
        assert!(changed != text && changed.contains(r#""later":{"a":1}"#), "{changed}");
        drop(locked);
        let locked = Locked::new(pod).unwrap();
        for app in locked.interrupted_adds().unwrap() {
            locked.undo_add(&app).unwrap();
        }
        assert_eq!(std::fs::read_to_string(pod.join("pod")).unwrap(), text);
        assert_eq!(pod.read_dir().unwrap().count(), 2);
    }
}
