//! Starting, stopping and removing an app by way of the pod's systemd. Host side.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{deadline, remove_file};
use crate::appc::AcName;
use crate::cgroup::PodCgroup;
use crate::cross::Target;
use crate::error::{Error, Result};
use crate::systemd::{self, ActiveState, Client, JobResult};
use crate::{layout, rootfs, unit};

/// Exit code of app-stop for an app whose unit is unknown; host managers tell it apart.
pub const UNKNOWN_APP: u8 = 5;
/// What is allowed on top of an app's own stop timeout.
const STOP_MARGIN: Duration = Duration::from_secs(60);

/// Starts an app and waits for the end of systemd's job. One that runs already is left alone.
///
/// # Errors
/// When the app was not added, or could not be started.
pub fn start(target: &Target, app: &AcName) -> Result<()> {
    if !unit::exists(app)? {
        return Err(Error::new(format!("app {app} was not added to this pod: app-add does that")));
    }
    let deadline = deadline();
    with_systemd(target, deadline, |systemd| match systemd.start_unit(&layout::app_unit(app), deadline)? {
        JobResult::Done | JobResult::Skipped => Ok(()),
        result => Err(Error::new(format!("start app {app}: systemd's job ended with {result:?}"))),
    })
}

/// Whether the app has processes now.
pub(super) fn is_running(app: &AcName) -> Result<bool> {
    PodCgroup::recorded(Path::new("."))?.unit_is_populated(&layout::app_cgroup(app))
}

/// Stops an app and waits until it has ended and its exit status is written. One that does not run is left alone.
///
/// # Errors
/// With exit code 5 if this pod knows no such app.
pub fn stop(target: &Target, app: &AcName) -> Result<()> {
    let deadline = Instant::now() + unit::STOP_TIMEOUT + STOP_MARGIN;
    with_systemd(target, deadline, |systemd| match systemd.stop_unit(&layout::app_unit(app), deadline) {
        Ok(JobResult::Done | JobResult::Skipped) => Ok(()),
        Ok(result) => Err(Error::new(format!("stop app {app}: systemd's job ended with {result:?}"))),
        // systemd forgets a unit that does not run: only its file tells whether there is such an app.
        Err(error) if systemd::is_no_such_unit(&error) => match unit::exists(app)? {
            true => Ok(()),
            false => Err(Error::new(format!("app {app} is not in this pod")).with_exit_code(UNKNOWN_APP)),
        },
        Err(error) => Err(error),
    })
}

/// Removes an app that does not run: its unit, its pin with all its mounts, its launch record and
/// environment. What is gone already is no error, so that a half-done removal can be repeated.
///
/// # Errors
/// When the app runs; nothing is removed then.
pub fn rm(target: &Target, app: &AcName) -> Result<()> {
    let deadline = deadline();
    if unit::exists(app)? {
        refuse_running(target, app, deadline)?;
    }
    let parts = [
        unit::remove(app),
        rootfs::unpin(target, app, deadline),
        remove_file(&layout::launch_record(app)),
        remove_file(&layout::env_file(app)),
    ];
    let failed: Vec<String> = parts.into_iter().filter_map(|part| part.err().map(|e| e.one_line())).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::new(format!("remove app {app}: {}", failed.join("; ")))) }
}

fn refuse_running(target: &Target, app: &AcName, deadline: Instant) -> Result<()> {
    with_systemd(target, deadline, |systemd| match systemd.active_state(&layout::app_unit(app), deadline)? {
        ActiveState::Inactive | ActiveState::Failed => Ok(()),
        state => Err(Error::new(format!("app {app} is {state:?}: stop it first"))),
    })
}

/// Talks to the pod's systemd as a process of the pod, which is what systemd wants its peers to be.
pub(super) fn with_systemd(
    target: &Target,
    deadline: Instant,
    talk: impl FnOnce(&mut Client) -> Result<()>,
) -> Result<()> {
    target.as_member(deadline, || {
        let mut systemd = Client::connect(Path::new(systemd::PRIVATE_SOCKET), deadline)?;
        talk(&mut systemd)
    })
}
