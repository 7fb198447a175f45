//! One start of an app at a time, and what is left of one that was interrupted.
//!
//! An app counts as started by its marker, which is there before it runs: another host manager wants it so. A note on
//! the host, which the pod can't reach, tells a start that did not come to its end from one that did.

use std::fs::File;
use std::path::{Path, PathBuf};

use stage1::appc::{AcName, PodManifest};
use stage1::cgroup::PodCgroup;
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::pod::{AppState, AppStatus, remove_if_there};

use crate::fsutil::lock::{self, Taken};
use crate::poddir::find::{Pod, State};

/// There while an app is being started; in what the host keeps of the app.
const NOTE: &str = "starting";

/// The lock under which an app is started and removed. The entrypoint that starts it shares it, should podctl be
/// killed meanwhile.
pub(super) struct AppLock {
    lock: File,
    note: PathBuf,
}

impl AppLock {
    /// Waits for the lock of an app; `None` if there is no such app (any more).
    pub(super) fn wait(pod: &Path, app: &AcName) -> Result<Option<Self>> {
        Self::take(pod, app, true)
    }

    /// Takes the lock; `None` also if somebody has it.
    pub(super) fn try_take(pod: &Path, app: &AcName) -> Result<Option<Self>> {
        Self::take(pod, app, false)
    }

    fn take(pod: &Path, app: &AcName, patient: bool) -> Result<Option<Self>> {
        let info = pod.join(layout::app_info(app));
        // the app may be removed, and added anew, while this waits
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

    /// Notes that the app is about to be started.
    pub(super) fn begin(&self) -> Result<()> {
        File::create(&self.note).context(|| format!("create {:?}", self.note)).map(drop)
    }

    /// The start has come to its end.
    pub(super) fn end(&self) -> Result<()> {
        remove_if_there(&self.note)
    }

    /// Whether an earlier start did not.
    pub(super) fn was_interrupted(&self) -> bool {
        self.note.exists()
    }
}

/// Whether a start of the app was interrupted, and nobody has made up for it yet.
pub(super) fn was_interrupted(pod: &Path, app: &AcName) -> Result<bool> {
    if !pod.join(layout::app_info(app)).join(NOTE).exists() {
        return Ok(false);
    }
    Ok(AppLock::try_take(pod, app)?.is_some_and(|lock| lock.was_interrupted()))
}

/// The status of an app. One that has no more of a start than its marker has not been started.
///
/// # Errors
/// It can't be read.
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

/// Whether an app has processes, as its cgroup says.
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
