//! The units of an app's health checks: a timer that runs while the app runs, and the service that it starts.

use std::path::Path;
use std::time::Duration;

use super::section::{Section, milliseconds};
use crate::appc::AcName;
use crate::error::Result;
use crate::layout;
use crate::pod::{self, Directory, remove_if_there};

/// Time after the timeout of a check, after which systemd ends the check's service.
const MARGIN: Duration = Duration::from_secs(30);

/// The times of an app's health checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthUnits {
    /// Time from the app's start, and from the end of each check, to the next check.
    pub interval: Duration,
    /// Timeout of a check.
    pub timeout: Duration,
    /// Whether an app that becomes unhealthy is restarted.
    pub restarts: bool,
}

impl HealthUnits {
    /// The text of the timer. systemd stops it when the app stops or ends.
    pub(super) fn timer(&self, app: &AcName) -> String {
        let mut timer = Section::new("Timer");
        // Monotonic timers: changes of the clock do not affect them.
        let interval = milliseconds(self.interval);
        timer.push("OnActiveSec", format_args!("{interval}ms"));
        timer.push("OnUnitInactiveSec", format_args!("{interval}ms"));
        timer.push("AccuracySec", "50ms");
        head("Timer of health checks", app) + "\n" + &timer.0
    }

    /// The text of the service.
    pub(super) fn service(&self, app: &AcName) -> String {
        let mut service = Section::new("Service");
        service.push("Type", "oneshot");
        service.push("ExecStart", format_args!("{}/app-exec --health {app}", layout::BIN));
        let limit = self.timeout.saturating_add(MARGIN);
        service.push("TimeoutStartSec", format_args!("{}ms", milliseconds(limit)));
        service.push("StandardInput", "null");
        service.push("StandardOutput", "null");
        service.push("StandardError", "tty");
        head("Health check", app) + "\n" + &service.0
    }
}

fn head(what: &str, app: &AcName) -> String {
    let mut unit = Section::new("Unit");
    unit.push("Description", format_args!("{what} of app {app}"));
    unit.push("DefaultDependencies", "no");
    unit.push("Conflicts", "shutdown.target");
    unit.push("Before", "shutdown.target");
    unit.push("CollectMode", "inactive-or-failed");
    unit.push("BindsTo", layout::app_unit(app));
    unit.push("After", layout::app_unit(app));
    unit.0
}

/// Writes the units, or removes existing ones if `health` is `None`. Host side, in the pod directory.
///
/// # Errors
/// A unit can't be written or removed.
pub(super) fn install(app: &AcName, health: Option<HealthUnits>) -> Result<()> {
    let units = layout::units_dir();
    let Some(health) = health else { return remove(app) };
    let dir = Directory::InPod { pod: Path::new("."), below: &units };
    pod::write_atomic(dir, &layout::health_service(app), health.service(app).as_bytes(), 0o644)?;
    pod::write_atomic(dir, &layout::health_timer(app), health.timer(app).as_bytes(), 0o644)
}

/// Removes the units, if they exist. Host side, in the pod directory.
///
/// # Errors
/// A unit exists and can't be removed.
pub(super) fn remove(app: &AcName) -> Result<()> {
    let units = layout::units_dir();
    [layout::health_timer(app), layout::health_service(app)]
        .iter()
        .try_for_each(|name| remove_if_there(&units.join(name)))
}
