//! Assembling an app's root in its own mount namespace.

use std::time::Instant;

use nix::sched::CloneFlags;

use super::api;
use super::masked_paths::Covers;
use super::pin::{OwnNamespaces, pin};
use super::plan::{RootfsPlan, Volume};
use crate::appc::AcName;
use crate::cross::{self, Target};
use crate::error::{Context, Result};
use crate::layout;
use crate::sys::mount::{self, Attributes, Scope};
use crate::sys::{dir, process};

/// Builds the app's mount namespace in the pod and pins it, replacing an earlier pin. Host side; a child that joins the
/// pod's namespaces does the work.
///
/// # Errors
/// The pod can't be joined, a mount fails, or `deadline` passes. If assembling the root fails, an earlier pin stays.
pub fn build(target: &Target, app: &AcName, plan: &RootfsPlan, deadline: Instant) -> Result<()> {
    cross::begin_in_child(deadline, || {
        let namespaces = OwnNamespaces::open()?;
        target.join()?;
        plan.volumes.iter().try_for_each(Volume::share)?;
        let pod = namespaces.mount()?;
        let own = namespaces.unshare_newer_than(&pod)?;
        assemble(plan)?;
        process::setns(&pod, CloneFlags::CLONE_NEWNS)?;
        pin(&own, app)
    })?
    .finish()
    .context(|| format!("build the mount namespace of app {app}"))
}

/// Turns this mount namespace, a copy of the pod's, into the app's, which has the mounts of the plan only.
fn assemble(plan: &RootfsPlan) -> Result<()> {
    mount::make_all_private()?;
    let api = api::PodSources::open(plan)?;
    let further = Covers::open()?;
    plan.root.attach_path(layout::PLACEHOLDER)?;
    let root = &plan.root;
    let covers = api.attach(root, plan)?;
    for file in &plan.etc {
        file.attach(root)?;
    }
    plan.hosts.attach(root)?;
    dir::symlink_in(root, "../proc/self/mounts", "/etc/mtab").context(|| "make /etc/mtab")?;
    for volume in &plan.volumes {
        volume.attach(root)?;
    }
    covers.close()?;
    further.attach(root, plan)?;
    if plan.read_only_root {
        root.set(Attributes { read_only: true, ..Attributes::default() }, Scope::One)?;
    }
    mount::pivot_into(root).context(|| "enter the app's root")?;
    Ok(())
}
