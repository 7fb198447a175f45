//! Building an app's mount namespace: its root file system, the kernel's file systems, devices,
//! volumes and masks, all by descriptor; pinning it in the pod, and unpinning it.
//!
//! The host side opens every source as a detached mount ([`Plan`]); the pod side assembles them in
//! a namespace of the app's own ([`build`]), of which the pod sees nothing but one pin.

mod api;
pub mod copy;
mod hosts;
mod kernel;
mod plan;
pub mod volumes;

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

pub use hosts::Hosts;
pub use plan::{Device, EtcFile, EtcSource, Plan, Volume, VolumeOptions};

use crate::appc::AcName;
use crate::boot::IdShift;
use crate::cross::{self, Target};
use crate::error::{Context, Result};
use crate::layout;
use crate::pod::remove_if_there;
use crate::sys::dir;
use crate::sys::mount::{self, Attributes, DetachedMount, Propagation, Scope};
use crate::sys::process;

/// Builds the app's mount namespace in the pod and pins it, replacing an earlier pin. Host side;
/// the work is done by one child in the pod.
///
/// # Errors
/// When a source, a target or a mask can't be had; an earlier pin stays then.
pub fn build(target: &Target, app: &AcName, plan: &Plan, deadline: Instant) -> Result<()> {
    cross::in_child(deadline, || {
        let namespaces = OwnNamespaces::open()?;
        target.join()?;
        let pod = namespaces.mount()?;
        let own = namespaces.unshare_newer_than(&pod)?;
        assemble(plan)?;
        process::setns(&pod, CloneFlags::CLONE_NEWNS)?;
        pin(&own, app)
    })
    .context(|| format!("build the mount namespace of app {app}"))
}

/// Removes the pin of an app's namespace; the kernel frees its mounts with the last process in
/// it. Nothing to remove is no error. Host side.
pub fn unpin(target: &Target, app: &AcName, deadline: Instant) -> Result<()> {
    target.inside(deadline, || {
        let path = layout::pin(app);
        while mount::detach(&path)? {}
        remove_if_there(&path)
    })
}

/// Joins the pinned mount namespace of an app; root and working directory are the app's root
/// afterwards. Pod side, single-threaded, in the pod's mount namespace.
pub fn join_pinned(app: &AcName) -> Result<()> {
    let path = layout::pin(app);
    let pin = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {path:?}: the app was not added to this pod, or prepare-app must rebuild it"))?;
    process::setns(pin, CloneFlags::CLONE_NEWNS)
}

/// This process's namespaces, opened through the host's /proc: in the pod's it has no entry.
struct OwnNamespaces(OwnedFd);

impl OwnNamespaces {
    fn open() -> Result<Self> {
        dir::open_dir("/proc/self/ns").map(Self)
    }

    /// Gives this process a mount namespace that can be pinned in `pod`, and returns it.
    ///
    /// The kernel refuses to mount a namespace in one that is not older (ELOOP), by their numbers.
    /// Since Linux 6.18 each processor hands those out from a batch of its own, so a new namespace's
    /// may be the lower one. On the processor that `pod` was made on it is higher.
    fn unshare_newer_than(&self, pod: &OwnedFd) -> Result<OwnedFd> {
        let oldest = process::mount_namespace_id(pod)?;
        let mut cpus = None;
        loop {
            process::unshare(CloneFlags::CLONE_NEWNS)?;
            let own = self.mount()?;
            if process::mount_namespace_id(&own)? >= oldest {
                return Ok(own);
            }
            let cpus = match &mut cpus {
                Some(cpus) => cpus,
                none => {
                    process::run_on_any_cpu()?;
                    none.insert(process::allowed_cpus()?.into_iter())
                }
            };
            let next = cpus
                .next()
                .context(|| "no processor that this process may run on makes namespaces that can be pinned")?;
            process::run_on_cpu(next)?;
        }
    }

    /// The mount namespace that this process is in now.
    fn mount(&self) -> Result<OwnedFd> {
        rustix::fs::openat(&self.0, "mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(|| "open our mount namespace")
    }
}

/// Makes this namespace, a copy of the pod's, the app's: from here on only what the plan says is in it.
fn assemble(plan: &Plan) -> Result<()> {
    mount::make_all_private()?;
    let api = api::Sources::open(plan)?;
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
    if plan.read_only_root {
        root.set(Attributes { read_only: true, ..Attributes::default() }, Scope::One)?;
    }
    mount::pivot_into(root).context(|| "enter the app's root")?;
    Ok(())
}

fn pin(namespace: &OwnedFd, app: &AcName) -> Result<()> {
    let path = layout::pin(app);
    while mount::detach(&path)? {}
    rustix::fs::open(&path, OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
        .context(|| format!("create {path:?}"))?;
    DetachedMount::clone_of(namespace, Scope::One)?.attach_path(&path)
}

/// Attributes of the mounts that hold no programs of the app's.
const DATA: Attributes = Attributes { read_only: false, nosuid: true, nodev: true, noexec: true, propagation: None };

/// A detached mount of the app's root, cut off from the host's propagation.
fn private() -> Attributes {
    Attributes { propagation: Some(Propagation::Private), ..Attributes::default() }
}

/// The host's id for an id of an image; `None` if the user namespace has none for it.
fn shifted(id: u32, shift: Option<IdShift>) -> Option<u32> {
    match shift {
        None => Some(id),
        Some(IdShift { shift, count }) => (id < count).then(|| shift.checked_add(id)).flatten(),
    }
}
