//! The kernel's file systems, devices and masks of an app: CONTRACT section 5. Pod side.
//!
//! /proc and /sys are clones of the pod's, so no process has to be in the pod's PID namespace.

use std::path::Path;

use rustix::fs::OFlags;

use super::{DATA, Plan, shown};
use crate::boot::{LINKS, NODES, OPTIONAL_NODES, new_devpts};
use crate::error::{Context, Result};
use crate::layout;
use crate::sys::dir::{self, Target};
use crate::sys::mount::{Attributes, DetachedMount, Scope};

/// Paths that an app can read but not write. /sys as a whole is read-only, which covers CONTRACT's
/// /sys/block, /sys/bus, /sys/class, /sys/dev, /sys/devices and /sys/kernel.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sysrq-trigger",
];

/// Paths of which an app sees nothing.
const HIDDEN: [&str; 11] = [
    "/proc/config.gz",
    "/proc/kallsyms",
    "/proc/sched_debug",
    "/proc/kcore",
    "/proc/kmem",
    "/proc/mem",
    "/sys/firmware",
    "/sys/fs",
    "/sys/hypervisor",
    "/sys/module",
    "/sys/power",
];

/// The pod's mounts that every app gets a clone of, opened before the pod's root is left.
pub(super) struct Sources {
    proc: DetachedMount,
    sys: DetachedMount,
    shm: DetachedMount,
    console: DetachedMount,
    log: Option<DetachedMount>,
    notify: Option<DetachedMount>,
    nodes: Vec<(&'static str, DetachedMount)>,
    restrict_paths: bool,
}

impl Sources {
    pub(super) fn open(plan: &Plan) -> Result<Self> {
        let one = |path: &str| DetachedMount::clone_path(path, Scope::One);
        let log = Path::new(layout::JOURNAL_SOCKET);
        let optional = OPTIONAL_NODES.iter().filter(|(name, ..)| Path::new("/dev").join(name).exists());
        let nodes = NODES.iter().chain(optional).map(|(name, ..)| *name);
        Ok(Self {
            proc: one("/proc")?,
            // In a user namespace with the host's network /sys is the host's, whole and locked together.
            sys: one("/sys").or_else(|_| DetachedMount::clone_path("/sys", Scope::Recursive))?,
            shm: one("/dev/shm")?,
            console: one("/dev/console")?,
            notify: plan.notify.then(|| one(layout::NOTIFY_SOCKET)).transpose()?,
            log: log.exists().then(|| one(layout::JOURNAL_SOCKET)).transpose()?,
            nodes: nodes.map(|name| Ok((name, one(&format!("/dev/{name}"))?))).collect::<Result<_>>()?,
            restrict_paths: plan.restrict_paths,
        })
    }

    pub(super) fn attach(&self, root: &DetachedMount) -> Result<()> {
        attach(&self.proc, root, "/proc", Target::Directory)?;
        attach(&self.sys, root, "/sys", Target::Directory)?;
        self.devices(root)?;
        if self.restrict_paths {
            READ_ONLY.iter().try_for_each(|path| read_only(root, path))?;
            HIDDEN.iter().try_for_each(|path| hide(root, path))?;
        }
        Ok(())
    }

    fn devices(&self, root: &DetachedMount) -> Result<()> {
        let attributes = Attributes { nosuid: true, noexec: true, ..Attributes::default() };
        let dev = DetachedMount::new("tmpfs", &[("mode", Some("755")), ("size", Some("65536"))], attributes)?;
        attach(&dev, root, "/dev", Target::Directory)?;
        for (name, node) in &self.nodes {
            attach(node, &dev, name, Target::File)?;
        }
        attach(&new_devpts()?, &dev, "pts", Target::Directory)?;
        attach(&self.shm, &dev, "shm", Target::Directory)?;
        attach(&self.console, &dev, "console", Target::File)?;
        if let Some(log) = &self.log {
            attach(log, &dev, "log", Target::File)?;
        }
        if let Some(notify) = &self.notify {
            attach(notify, root, layout::IN_APP_NOTIFY_SOCKET, Target::File)?;
        }
        LINKS.iter().try_for_each(|(link, name)| dir::symlink_in(&dev, link, name))
    }
}

/// Covers `path` with something empty that nobody may open. What this kernel does not have needs no cover.
fn hide(root: &DetachedMount, path: &str) -> Result<()> {
    let Some(target) = dir::try_open_in(root, path, OFlags::PATH)? else { return Ok(()) };
    let stat = rustix::fs::fstat(&target).context(|| format!("fstat {path}"))?;
    let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    let mask = DetachedMount::clone_path(if is_dir { layout::MASK_DIR } else { layout::MASK_FILE }, Scope::One)?;
    mask.set(Attributes { read_only: true, ..DATA }, Scope::One)?;
    mask.attach(target, shown(path)).context(|| format!("hide {path}"))
}

fn read_only(root: &DetachedMount, path: &str) -> Result<()> {
    let Some(target) = dir::try_open_in(root, path, OFlags::PATH)? else { return Ok(()) };
    let copy = DetachedMount::clone_of(&target, Scope::One)?;
    copy.set(Attributes { read_only: true, ..DATA }, Scope::One)?;
    copy.attach(target, shown(path)).context(|| format!("make {path} read-only"))
}

fn attach(source: &DetachedMount, root: &DetachedMount, path: &str, kind: Target) -> Result<()> {
    let target = dir::create_in(root, path, kind)?;
    source.attach(target, shown(path))
}
