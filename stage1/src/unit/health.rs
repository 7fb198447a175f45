//! The units of an app's health checks: a timer that comes and goes with the app, and what it starts.

use std::path::Path;
use std::time::Duration;

use super::section::{Section, milliseconds};
use crate::appc::AcName;
use crate::error::Result;
use crate::layout;
use crate::pod::{self, Directory, remove_if_there};

/// How long a check may take beyond its own time, before systemd ends it.
const MARGIN: Duration = Duration::from_secs(30);

/// When an app is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthUnits {
    /// From the app's start, and from the end of each check, to the next one.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// An unhealthy app is started again.
    pub restarts: bool,
}

impl HealthUnits {
    /// The text of the timer. It is stopped with the app, also when that ends by itself.
    pub(super) fn timer(&self, app: &AcName) -> String {
        let mut timer = Section::new("Timer");
        // Now and then, not on a clock that somebody sets.
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

/// Writes the units, or removes those that are there: host side, in the pod directory.
///
/// # Errors
/// One can't be written or removed.
pub(super) fn install(app: &AcName, health: Option<HealthUnits>) -> Result<()> {
    let units = layout::units_dir();
    let Some(health) = health else { return remove(app) };
    let dir = Directory::InPod { pod: Path::new("."), below: &units };
    pod::write_atomic(dir, &layout::health_service(app), health.service(app).as_bytes(), 0o644)?;
    pod::write_atomic(dir, &layout::health_timer(app), health.timer(app).as_bytes(), 0o644)
}

/// Removes the units, if there are any: host side, in the pod directory.
///
/// # Errors
/// One is there and can't be removed.
pub(super) fn remove(app: &AcName) -> Result<()> {
    let units = layout::units_dir();
    [layout::health_timer(app), layout::health_service(app)]
        .iter()
        .try_for_each(|name| remove_if_there(&units.join(name)))
}
