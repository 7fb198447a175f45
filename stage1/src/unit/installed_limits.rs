//! Reading and replacing the limits in an installed unit. Host side, in the pod directory.

use std::path::Path;

use super::cgroup_limits::CgroupLimits;
use crate::appc::AcName;
use crate::error::{Error, Result};
use crate::layout;
use crate::pod::{self, Directory};

/// Maximum size of a unit, in bytes. A unit with all ports is smaller.
const MAX_UNIT: u64 = 4 << 20;

/// The directives for limits that this module writes.
const LIMITS: [&str; 10] = [
    "MemoryMax",
    "MemoryHigh",
    "MemorySwapMax",
    "CPUQuota",
    "TasksMax",
    "CPUWeight",
    "CPUShares",
    "IOWeight",
    "BlockIOWeight",
    "OOMScoreAdjust",
];

/// The text of an app's installed unit.
///
/// # Errors
/// The app has no unit, or it can't be read.
pub(super) fn installed(app: &AcName) -> Result<String> {
    match pod::read_bounded(&layout::unit_file(app), MAX_UNIT) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Err(Error::new(format!("app {app} is not in this pod"))),
        text => Ok(String::from_utf8_lossy(&text?).into_owned()),
    }
}

/// Replaces the limits in an app's installed unit, and returns its earlier text.
///
/// # Errors
/// The app has no unit, a limit is out of range, or the unit can't be read or written.
pub fn with_limits(app: &AcName, limits: &CgroupLimits, unified: bool) -> Result<String> {
    limits.check()?;
    let before = installed(app)?;
    put_back(app, &replaced(&before, app, limits, unified))?;
    Ok(before)
}

/// Writes a unit's earlier text, which [`with_limits`] returned.
///
/// # Errors
/// The unit can't be written.
pub fn put_back(app: &AcName, text: &str) -> Result<()> {
    let units = layout::units_dir();
    let dir = Directory::InPod { pod: Path::new("."), below: &units };
    pod::write_atomic(dir, &layout::app_unit(app), text.as_bytes(), 0o644)
}

/// The text of a unit with other limits. Limits are the last directives of a unit; `OnFailure=` for the late reaper
/// goes with the limit of memory.
pub(super) fn replaced(text: &str, app: &AcName, limits: &CgroupLimits, unified: bool) -> String {
    let late = format!("OnFailure={}", layout::late_reaper_unit(app));
    let mut out = String::new();
    for line in text.lines() {
        let name = line.split_once('=').map_or("", |(name, _)| name);
        if LIMITS.contains(&name) || line == late {
            continue;
        }
        out.extend([line, "\n"]);
        if name == "StartLimitIntervalSec" && limits.memory_max.is_some() {
            out.extend([&late, "\n"]);
        }
    }
    for (name, value) in limits.directives(unified) {
        out.extend([name, "=", &value, "\n"]);
    }
    out
}
