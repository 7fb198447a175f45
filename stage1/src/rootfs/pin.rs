//! The pin of an app's mount namespace: a mount of the namespace's file, which keeps the namespace without a process in
//! it.

use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::layout;
use crate::pod::remove_if_there;
use crate::sys::mount::{self, DetachedMount, Scope};
use crate::sys::{dir, process};

/// Removes the pin of an app's mount namespace. The kernel frees the namespace and its mounts when the last process in
/// it has ended. A missing pin is not an error. Pod side.
///
/// # Errors
/// The pin exists and can't be unmounted or removed.
pub fn unpin(app: &AcName) -> Result<()> {
    let path = layout::pin(app);
    while mount::detach(&path)? {}
    remove_if_there(&path)
}

/// Joins the pinned mount namespace of an app: setns(2). The app's root becomes root and working directory. Pod side,
/// in the pod's mount namespace and a process with one thread.
///
/// # Errors
/// The app was not added, or this process may not join.
pub fn join_pinned(app: &AcName) -> Result<()> {
    let path = layout::pin(app);
    let pin = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {path:?}: the app was not added to this pod, or prepare-app must rebuild it"))?;
    process::setns(pin, CloneFlags::CLONE_NEWNS)
}

/// The directory of this process's namespaces, opened in the host's /proc: the pod's /proc has no entry for this
/// process.
pub(super) struct OwnNamespaces(OwnedFd);

impl OwnNamespaces {
    pub(super) fn open() -> Result<Self> {
        dir::open_dir("/proc/self/ns").map(Self)
    }

    /// Moves this process to a new mount namespace that can be pinned in the namespace `pod`, and returns it.
    ///
    /// The kernel mounts a namespace only in a mount namespace with a lower number (otherwise ELOOP). Since Linux 6.18
    /// each processor takes these numbers from its own batch, so the number of a new namespace may be lower than that
    /// of `pod`. On the processor on which `pod` was made it is higher.
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

    /// The current mount namespace of this process.
    pub(super) fn mount(&self) -> Result<OwnedFd> {
        rustix::fs::openat(&self.0, "mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .context(|| "open our mount namespace")
    }
}

/// Pins a mount namespace as that of the app, replacing an earlier pin. Pod side.
pub(super) fn pin(namespace: &OwnedFd, app: &AcName) -> Result<()> {
    let path = layout::pin(app);
    while mount::detach(&path)? {}
    rustix::fs::open(&path, OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))
        .context(|| format!("create {path:?}"))?;
    DetachedMount::clone_of(namespace, Scope::One)?.attach_path(&path)
}
