//! Mounting the kernel's file systems and /dev in an app's root: CONTRACT section 5. Pod side.
//!
//! /proc and /sys are clones of the pod's mounts, so the process that assembles the root does not have to be in the
//! pod's PID namespace. They and /dev are mounted on directories at the top of the app's root, never through a symlink.

use std::path::Path;

use super::kernel::KernelFs;
use super::plan::{RootfsPlan, Volume};
use crate::dev::{LINKS, NODES, OPTIONAL_NODES, new_devpts};
use crate::error::Result;
use crate::layout;
use crate::sys::dir::{self, EntryKind};
use crate::sys::mount::{Attributes, DetachedMount, Scope};

/// Clones of the pod's mounts for an app, opened before the pod's root is left.
pub(super) struct PodSources {
    proc: DetachedMount,
    sys: DetachedMount,
    shm: DetachedMount,
    console: DetachedMount,
    notify: Option<DetachedMount>,
    nodes: Vec<(&'static str, DetachedMount)>,
}

/// Covers of kernel paths that are made read-only after the volumes below them are mounted.
#[must_use]
pub(super) struct OpenCovers(Vec<DetachedMount>);

impl OpenCovers {
    pub(super) fn close(self) -> Result<()> {
        let read_only = Attributes { read_only: true, ..Attributes::DATA };
        self.0.iter().try_for_each(|cover| cover.set(read_only, Scope::One))
    }
}

impl PodSources {
    pub(super) fn open(plan: &RootfsPlan) -> Result<Self> {
        let one = |path: &str| DetachedMount::clone_path(path, Scope::One);
        let optional = OPTIONAL_NODES.iter().filter(|(name, ..)| Path::new("/dev").join(name).exists());
        let nodes = NODES.iter().chain(optional).map(|(name, ..)| *name);
        Ok(Self {
            proc: one("/proc")?,
            // In a user namespace with the host's network /sys is a recursive clone of the host's, whose mounts are
            // locked together.
            sys: one("/sys").or_else(|_| DetachedMount::clone_path("/sys", Scope::Recursive))?,
            shm: one("/dev/shm")?,
            console: one("/dev/console")?,
            notify: plan.notify.then(|| one(layout::NOTIFY_SOCKET)).transpose()?,
            nodes: nodes.map(|name| Ok((name, one(&format!("/dev/{name}"))?))).collect::<Result<_>>()?,
        })
    }

    /// Mounts them in `root`. An app with a volume at or below /sys gets no sysfs.
    pub(super) fn attach(&self, root: &DetachedMount, plan: &RootfsPlan) -> Result<OpenCovers> {
        let volumes: Vec<&Path> = plan.volumes.iter().map(Volume::target).collect();
        let mut covers = Vec::new();
        attach_at_top(&self.proc, root, "proc")?;
        if plan.restrict_paths {
            covers.extend(KernelFs::proc(&self.proc, &volumes).restrict_proc(plan.own_network)?);
        }
        if volumes.iter().any(|volume| volume.starts_with("/sys")) {
            dir::real_directory(root, "sys")?;
        } else {
            attach_at_top(&self.sys, root, "sys")?;
            if plan.restrict_paths {
                covers.extend(KernelFs::sys(&self.sys, &volumes).restrict_sys()?);
            }
        }
        self.devices(root)?;
        Ok(OpenCovers(covers))
    }

    fn devices(&self, root: &DetachedMount) -> Result<()> {
        let attributes = Attributes { nosuid: true, noexec: true, ..Attributes::default() };
        let dev = DetachedMount::new("tmpfs", &[("mode", Some("755")), ("size", Some(layout::DEV_SIZE))], attributes)?;
        attach_at_top(&dev, root, "dev")?;
        for (name, node) in &self.nodes {
            attach(node, &dev, name, EntryKind::File)?;
        }
        attach(&new_devpts()?, &dev, "pts", EntryKind::Directory)?;
        attach(&self.shm, &dev, "shm", EntryKind::Directory)?;
        attach(&self.console, &dev, "console", EntryKind::File)?;
        if let Some(notify) = &self.notify {
            attach(notify, &dev, layout::IN_APP_NOTIFY_SOCKET.trim_start_matches("/dev/"), EntryKind::File)?;
        }
        LINKS.iter().try_for_each(|(link, name)| dir::symlink_in(&dev, link, name))
    }
}

/// Attaches `source` to the directory `name` at the top of an app's root. A missing directory is made; anything else of
/// that name is refused.
fn attach_at_top(source: &DetachedMount, root: &DetachedMount, name: &str) -> Result<()> {
    source.attach(dir::real_directory(root, name)?, &Path::new("/").join(name))
}

/// Attaches `source` to `name` in the app's new /dev, which no other process can reach yet.
fn attach(source: &DetachedMount, dev: &DetachedMount, name: &str, kind: EntryKind) -> Result<()> {
    let target = dir::create_in(dev, name, kind)?;
    source.attach(target, &Path::new("/dev").join(name))
}
