//! Running the crossing entrypoints (docs/contract.md) for an app of a running pod.

use std::fs::File;
use std::time::Duration;

use stage1::appc::AcName;
use stage1::error::{Error, Result};

use crate::entrypoint::spawn::{Entrypoint, Outcome, Stage1};
use crate::poddir::find::{Pod, running_pid};
use crate::poddir::pause::must_go_on;
use crate::store::Store;

/// app-stop's exit code if the pod's systemd has no unit for the app.
const NO_UNIT: i32 = 5;

/// The PID (host view) of the PID 1 of a pod that is ready for app operations.
///
/// # Errors
/// The pod does not run, is not ready, or is paused.
pub(super) fn ready_pid(pod: &Pod) -> Result<i32> {
    let pid = running_pid(pod)?;
    if !stage1::pod::is_ready(pod.dir())? {
        return Err(Error::new(format!("pod {} is not ready yet", pod.short())));
    }
    must_go_on(pod, None)?;
    Ok(pid)
}

/// An app of a running pod, with all that the crossing entrypoints need.
pub(super) struct Inside<'a> {
    pub(super) store: &'a Store,
    pub(super) pod: &'a Pod,
    pub(super) pid: i32,
    pub(super) app: &'a AcName,
    /// The lock that podctl holds; the entrypoints inherit it.
    pub(super) lock: Option<&'a File>,
    pub(super) debug: bool,
}

impl Inside<'_> {
    /// Runs app-add with the arguments `more`.
    pub(super) fn add(&self, more: &[String]) -> Result<()> {
        self.cross(Entrypoint::AppAdd, more, None)?.success()
    }

    /// Runs app-start, which may wait for the apps that this one starts after.
    pub(super) fn start(&self) -> Result<()> {
        self.cross(Entrypoint::AppStart, &[], Some(stage1::app::AFTER_TIMEOUT))?.success()
    }

    /// Runs app-stop; does nothing if the pod's systemd has no unit for the app.
    pub(super) fn stop(&self, timeout: Option<Duration>) -> Result<()> {
        let more: Vec<String> = timeout.iter().map(|timeout| format!("--timeout={}", timeout.as_secs())).collect();
        // the timeout applies to the app's main process, to the processes it leaves behind, and to its event handlers
        let outcome =
            self.cross(Entrypoint::AppStop, &more, Some(3 * timeout.unwrap_or_default().max(self.declared())))?;
        if outcome.code() == Some(NO_UNIT) { Ok(()) } else { outcome.success() }
    }

    /// The stop timeout that the app declares; zero if it declares none, or if its declaration can't be read, as for
    /// the remains of an app.
    fn declared(&self) -> Duration {
        let declared = stage1::pod::Pod::load(self.pod.dir())
            .and_then(|pod| pod.app(self.app))
            .and_then(|app| stage1::app::stop_timeout(&app));
        declared.map(Option::unwrap_or_default).unwrap_or_else(|error| {
            log::debug!("stop timeout of app {}: {}", self.app, error.one_line());
            Duration::ZERO
        })
    }

    /// Runs app-stop and app-rm, which removes what app-add made in the pod.
    pub(super) fn remove(&self) -> Result<()> {
        self.stop(None)?;
        self.cross(Entrypoint::AppRm, &[], None)?.success()
    }

    pub(super) fn cross(&self, entrypoint: Entrypoint, more: &[String], wait: Option<Duration>) -> Result<Outcome> {
        let mut args = vec![format!("--debug={}", self.debug), format!("--app={}", self.app)];
        args.extend_from_slice(more);
        Stage1::of(self.store, self.pod.dir())?.cross(entrypoint, self.pid, &args, wait, self.lock)
    }
}
