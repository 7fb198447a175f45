//! The pin of an app's mount namespace: one mount of the namespace's file, by which the pod keeps it.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use crate::appc::AcName;
use crate::cross::Target;
use crate::error::{Context, Result};
use crate::layout;
use crate::pod::remove_if_there;
use crate::sys::mount::{self, DetachedMount, Scope};
use crate::sys::{dir, process};

/// Removes the pin of an app's namespace; the kernel frees its mounts with the last process in
/// it. A missing pin is not an error. Host side.
///
/// # Errors
/// It is there and can't be unmounted or removed, or the pod can't be entered.
pub fn unpin(target: &Target, app: &AcName, deadline: Instant) -> Result<()> {
    target.inside(deadline, || {
        let path = layout::pin(app);
        while mount::detach(&path)? {}
        remove_if_there(&path)
    })
}

/// Joins the pinned mount namespace of an app; root and working directory are the app's root
/// afterwards. Pod side, single-threaded, in the pod's mount namespace.
///
/// # Errors
/// The app was not added, or this process may not join.
pub fn join_pinned(app: &AcName) -> Result<()> {
    let path = layout::pin(app);
    let pin = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {path:?}: the app was not added to this pod, or prepare-app must rebuild it"))?;
    process::setns(pin, CloneFlags::CLONE_NEWNS)
}

/// This process's namespaces, opened through the host's /proc: in the pod's it has no entry.
pub(super) struct OwnNamespaces(OwnedFd);

impl OwnNamespaces {
    pub(super) fn open() -> Result<Self> {
        dir::open_dir("/proc/self/ns").map(Self)
    }

    /// Gives this process a mount namespace that can be pinned in `pod`, and returns it.
    ///
    /// The kernel refuses to mount a namespace in one that is not older (ELOOP), by their numbers.
    /// Since Linux 6.18 each processor hands those out from a batch of its own, so a new namespace's
    /// may be the lower one. On the processor that `pod` was made on it is higher.
    pub(super) fn unshare_newer_than(&self, pod: &OwnedFd) -> Result<OwnedFd> {
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
    pub(super) fn mount(&self) -> Result<OwnedFd> {
        rustix::fs::openat(&self.0, "mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(|| "open our mount namespace")
    }
}

/// Pins a mount namespace as the app's, in the place of an earlier one. Pod side.
pub(super) fn pin(namespace: &OwnedFd, app: &AcName) -> Result<()> {
    let path = layout::pin(app);
    while mount::detach(&path)? {}
    rustix::fs::open(&path, OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
        .context(|| format!("create {path:?}"))?;
    DetachedMount::clone_of(namespace, Scope::One)?.attach_path(&path)
}
