//! Changing an app's limits, while it runs and for its next start. Host side, in the pod directory.

use std::path::Path;

use super::deadline;
use crate::appc::{AcName, Isolators};
use crate::cgroup::PodCgroup;
use crate::cross::Target;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::Pod;
use crate::systemd::{Client, PRIVATE_SOCKET, is_no_such_unit};
use crate::unit::{self, CgroupLimits};

/// Applies the limits that the pod manifest now has for the app: to its unit and, if it runs, at once. Other changes of
/// the manifest have no effect on an app that was added before.
///
/// # Errors
/// The app was not added, this host can't enforce a limit, the kernel refuses one (less memory than the app uses), or
/// one is out of its range. The unit has the new limits only if they hold.
pub fn update(target: &Target, app: &AcName) -> Result<()> {
    let pod = Pod::load(Path::new("."))?;
    let isolators = Isolators::parse(&pod.app(app)?.app()?.isolators)?;
    let limits = CgroupLimits::from(&isolators);
    let cgroup = PodCgroup::recorded(Path::new("."))?;
    let unified = cgroup.is_unified();
    let lost = limits.without_effect(unified, |file| cgroup.has_limit(file));
    if !lost.is_empty() {
        return Err(Error::new(format!("this host can't enforce the limits on {}", lost.join(", "))));
    }
    let before = unit::with_limits(app, &limits, unified)?;
    let result = apply(target, app).and_then(|()| check(&cgroup, app, &limits, unified));
    if let Err(error) = result {
        unit::put_back(app, &before)?;
        apply(target, app).context(|| format!("{}; the limits before can't be had again", error.one_line()))?;
        return Err(error);
    }
    Ok(())
}

/// Sets the limits of the unit's file in systemd, if the unit is loaded. They are set as runtime properties, which do
/// not outlive the app.
fn apply(target: &Target, app: &AcName) -> Result<()> {
    let mut properties = unit::installed_limits(app)?;
    properties.retain(|(name, _)| !name.starts_with("Device"));
    let deadline = deadline();
    let name = layout::app_unit(app);
    target.as_member(deadline, || {
        let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline)?;
        match systemd.set_properties(&name, &properties, deadline) {
            // The app does not run.
            Err(error) if is_no_such_unit(&error) => return Ok(()),
            done => done?,
        }
        let drop_ins = layout::control_drop_ins(app);
        match std::fs::remove_dir_all(&drop_ins) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(|| format!("remove {drop_ins:?}"))
            }
            _ => Ok(()),
        }
    })
}

/// systemd only logs what the kernel refuses.
fn check(cgroup: &PodCgroup, app: &AcName, limits: &CgroupLimits, unified: bool) -> Result<()> {
    let file = if unified { "memory.max" } else { "memory.limit_in_bytes" };
    let Some(wanted) = limits.memory_max else { return Ok(()) };
    for (_, pod) in cgroup.directories() {
        let path = pod.join(layout::app_cgroup(app)).join(file);
        // The app has no cgroup while it does not run.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        // The kernel counts whole pages.
        if text.trim().parse::<u64>().is_ok_and(|holds| holds > wanted) {
            return Err(Error::new(format!("memory limit {wanted}: the kernel refuses it: the app uses more by now")));
        }
    }
    Ok(())
}
