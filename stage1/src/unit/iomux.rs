//! The unit of an app's multiplexer, which starts with the app and stays until the app is removed.
//!
//! - The app's unit has it in `Wants=`, not in `Requires=`: when systemd starts a unit anew, it does so to all that
//!   require it. Whether it runs finds `app-exec` out.
//! - `FileDescriptorStoreMax=`: systemd keeps the FIFOs and the terminal open when the multiplexer is killed, and hands
//!   them to the next one.
//! - `StandardError=tty`, the pod's console: what it has to say is not for the app's log.

use super::Section;
use crate::appc::AcName;
use crate::error::Result;
use crate::{layout, pod};

/// How long the multiplexer may take to start and to stop, in seconds.
const TIMEOUT: u64 = 10;
/// Standard streams and a terminal, each twice while it is replaced.
const KEPT: u64 = 8;

/// The text of the unit.
pub fn text(app: &AcName) -> String {
    let mut unit = Section::new("Unit");
    unit.push("Description", format_args!("Streams of app {app}"));
    unit.push("DefaultDependencies", "no");
    unit.push("Conflicts", "shutdown.target");
    unit.push("Before", "shutdown.target");
    unit.push("CollectMode", "inactive-or-failed");
    unit.push("StartLimitIntervalSec", 0);
    let mut service = Section::new("Service");
    service.push("Type", "notify");
    service.push("ExecStart", format_args!("{}/iottymux {app}", layout::BIN));
    service.push("TimeoutStartSec", format_args!("{TIMEOUT}s"));
    service.push("TimeoutStopSec", format_args!("{TIMEOUT}s"));
    service.push("Restart", "always");
    service.push("RestartSec", "100ms");
    service.push("FileDescriptorStoreMax", KEPT);
    service.push("StandardInput", "null");
    service.push("StandardOutput", "null");
    service.push("StandardError", "tty");
    unit.0 + "\n" + &service.0
}

/// Writes the unit: host side, in the pod directory.
pub fn install(app: &AcName) -> Result<()> {
    pod::write_atomic(&layout::units_dir(), &layout::iomux_unit(app), text(app).as_bytes(), 0o644)
}

/// Whether the app has a multiplexer: host side, in the pod directory.
pub fn exists(app: &AcName) -> Result<bool> {
    super::is_there(&layout::units_dir().join(layout::iomux_unit(app)))
}

/// Removes the unit, if there is one: host side, in the pod directory.
pub fn remove(app: &AcName) -> Result<()> {
    pod::remove_if_there(&layout::units_dir().join(layout::iomux_unit(app)))
}
