//! The lock that allows one start of an app at a time, and the record of an interrupted start.
//!
//! The marker `APP-started` must exist before the app runs (docs/contract.md), so it does not show whether a start was
//! completed. The file `starting`, on the host and out of the pod's reach, does: it exists during a start, and after an
//! interrupted one.

use std::fs::File;
use std::path::{Path, PathBuf};

use stage1::appc::{AcName, PodManifest};
use stage1::cgroup::PodCgroup;
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::pod::{AppState, AppStatus, remove_if_there};

use crate::fsutil::lock::{self, Taken};
use crate::poddir::find::{Pod, State};

/// The file that exists while an app is being started, in the host's directory of the app.
const NOTE: &str = "starting";

/// The lock that a process must hold to start or remove an app. app-start inherits it, so that it stays held if podctl
/// is killed meanwhile.
pub(super) struct AppLock {
    lock: File,
    note: PathBuf,
}

impl AppLock {
    /// Waits for the lock of an app, at most 660 s; `None` if the app does not exist.
    pub(super) fn wait(pod: &Path, app: &AcName) -> Result<Option<Self>> {
        Self::take(pod, app, true)
    }

    /// Takes the lock without waiting; `None` if another process holds it, or the app does not exist.
    pub(super) fn try_take(pod: &Path, app: &AcName) -> Result<Option<Self>> {
        Self::take(pod, app, false)
    }

    fn take(pod: &Path, app: &AcName, patient: bool) -> Result<Option<Self>> {
        let info = pod.join(layout::app_info(app));
        let taken = lock::directory(&info, |lock| {
            if !patient {
                return lock::try_take(lock, &info, lock::Kind::Exclusive);
            }
            lock::wait(lock, &info, lock::Kind::Exclusive, lock::ENTRYPOINTS).map(|()| true)
        })?;
        Ok(match taken {
            Taken::Now(lock) => Some(Self { lock, note: info.join(NOTE) }),
            Taken::ByOthers | Taken::Gone => None,
        })
    }

    /// The locked directory.
    pub(super) fn file(&self) -> &File {
        &self.lock
    }

    /// Records that a start begins.
    pub(super) fn begin(&self) -> Result<()> {
        File::create(&self.note).context(|| format!("create {:?}", self.note)).map(drop)
    }

    /// Records that no start is unfinished.
    pub(super) fn end(&self) -> Result<()> {
        remove_if_there(&self.note)
    }

    /// Whether an earlier start was interrupted.
    pub(super) fn was_interrupted(&self) -> bool {
        self.note.exists()
    }
}

/// Whether a start of the app was interrupted, and no process is starting the app now.
pub(super) fn was_interrupted(pod: &Path, app: &AcName) -> Result<bool> {
    if !pod.join(layout::app_info(app)).join(NOTE).exists() {
        return Ok(false);
    }
    Ok(AppLock::try_take(pod, app)?.is_some_and(|lock| lock.was_interrupted()))
}

/// The status of an app. An app whose interrupted start left only the marker counts as not started.
///
/// # Errors
/// The status, the app's lock or its cgroup can't be read.
pub(super) fn status(pod: &Pod, manifest: &PodManifest, app: &AcName) -> Result<AppStatus> {
    let mut status = stage1::pod::app_status(pod.dir(), pod.state(), manifest.is_mutable()?, app)?;
    if (pod.state(), status.state) == (State::Running, AppState::Running)
        && was_interrupted(pod.dir(), app)?
        && !has_processes(pod.dir(), app)?
    {
        (status.state, status.started_at) = (AppState::Created, None);
    }
    Ok(status)
}

/// Whether the app's cgroup has processes.
pub(super) fn has_processes(pod: &Path, app: &AcName) -> Result<bool> {
    PodCgroup::recorded(pod)?.unit_is_populated(&layout::app_cgroup(app))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_start_is_told_from_one_that_goes_on() {
        let base = tempfile::tempdir().unwrap();
        let (pod, app) = (base.path(), "web".parse().unwrap());
        assert!(AppLock::wait(pod, &app).unwrap().is_none() && !was_interrupted(pod, &app).unwrap());
        std::fs::create_dir_all(pod.join("appsinfo/web")).unwrap();
        let lock = AppLock::wait(pod, &app).unwrap().unwrap();
        lock.begin().unwrap();
        assert!(!was_interrupted(pod, &app).unwrap(), "it goes on");
        assert!(AppLock::try_take(pod, &app).unwrap().is_none());
        drop(lock);
        assert!(was_interrupted(pod, &app).unwrap());
        AppLock::wait(pod, &app).unwrap().unwrap().end().unwrap();
        assert!(!was_interrupted(pod, &app).unwrap());
    }
}
