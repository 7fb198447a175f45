//! Changing the limits of a running pod as a whole.

use stage1::appc::{Isolator, Isolators};
use stage1::boot;
use stage1::cgroup::PodCgroup;
use stage1::error::{Context, Error, Result};
use stage1::unit::CgroupLimits;

use crate::app::options::replace_isolators;
use crate::poddir::find::Pod;
use crate::poddir::manifest::Locked;

/// Changes the limits of all processes of the pod together to `limits`; its other limits stay.
///
/// # Errors
/// `limits` is empty, the pod does not run, or a limit is invalid, can't be enforced on this host or is refused by the
/// kernel: the old limits stay then.
pub fn update(pod: &Pod, limits: &[Isolator]) -> Result<()> {
    if limits.is_empty() {
        return Err(Error::new("nothing is to be changed: give a limit of the pod, such as --pod-memory 1g"));
    }
    pod.pid_if_running()?.context(|| format!("pod {} does not run", pod.short()))?;
    let locked = Locked::new(pod.dir())?;
    let before = locked.read()?;
    let mut manifest = before.clone();
    replace_isolators(&mut manifest.isolators, limits);
    Isolators::parse(&manifest.isolators)?;
    let cgroup = PodCgroup::recorded(pod.dir())?;
    let limits = Isolators::parse(limits)?;
    let lost = CgroupLimits::from(&limits).without_effect(cgroup.is_unified(), |file| cgroup.has_limit(file));
    if !lost.is_empty() {
        return Err(Error::new(format!(
            "this host can't enforce the limits on {} for a pod as a whole",
            lost.join(", ")
        )));
    }
    locked.write(&manifest)?;
    if let Err(error) = boot::set_limits(&cgroup, &limits) {
        locked.write(&before)?;
        return Err(error);
    }
    Ok(())
}
