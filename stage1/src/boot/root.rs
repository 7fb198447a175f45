//! The root file system of a pod: a read-only view of the stage1 image with the few writable
//! places that CONTRACT names, and the kernel's file systems. Pod side, before PID 1 is executed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::cgroup::{PodCgroup, Version};
use crate::dev::{LINKS, NODES, OPTIONAL_NODES, new_devpts};
use crate::error::{Context, Result};
use crate::layout;
use crate::rootfs::protect_pod_proc;
use crate::sys::dir::{self, EntryKind};
use crate::sys::mount::{self, Attributes, DetachedMount, Scope};

/// What comes from the host's mount namespace: cloned there, with the host's privileges, since a
/// descriptor belongs to the namespace it was opened in, and a user namespace locks what it inherits.
pub(super) struct HostSources {
    /// The stage1 image, without the apps that may be mounted in it.
    image: DetachedMount,
    /// The slave of the pod's console.
    terminal: DetachedMount,
}

impl HostSources {
    /// Host side, in the pod directory.
    pub(super) fn open(terminal: impl AsFd) -> Result<Self> {
        let image = DetachedMount::clone_path(layout::STAGE1_ROOTFS, Scope::One)?;
        let terminal = DetachedMount::clone_of(terminal, Scope::One)?;
        // Where the host's mounts are shared, a clone is one more peer, which can't become a root.
        [&image, &terminal].into_iter().try_for_each(|mount| mount.set(Attributes::PRIVATE, Scope::One))?;
        Ok(Self { image, terminal })
    }
}

/// Assembles the pod's root and enters it.
pub(super) fn enter(cgroup: &PodCgroup, sources: &HostSources, hostname: &str) -> Result<()> {
    mount::make_all_private()?;
    let root = &sources.image;
    // It has to be mounted somewhere to become the root, and the pod's root user may not get to the pod's directory.
    root.attach_path("/")?;
    writable_places(root)?;
    kernel_file_systems(root)?;
    devices(root, &sources.terminal)?;
    cgroups(root, cgroup)?;
    mount::set_attributes(root, Attributes { read_only: true, nodev: true, ..Attributes::default() }, Scope::One)?;
    mount::pivot_into(root).context(|| "enter the pod's root")?;
    runtime_files(hostname)
}

/// Host managers read the apps' status through the image itself, so these are binds of it.
fn writable_places(root: &DetachedMount) -> Result<()> {
    for place in ["rkt", "var"] {
        let target = open_dir(root, place)?;
        let bind = DetachedMount::clone_of(&target, Scope::One)?;
        bind.set(Attributes::DATA, Scope::One)?;
        bind.attach(&target, Path::new(place))?;
    }
    let tmpfs =
        |mode| DetachedMount::new("tmpfs", &[("mode", Some(mode)), ("source", Some("tmpfs"))], Attributes::DATA);
    tmpfs("755")?.attach(open_dir(root, "run")?, Path::new("run"))?;
    tmpfs("1777")?.attach(open_dir(root, "tmp")?, Path::new("tmp"))
}

fn kernel_file_systems(root: &DetachedMount) -> Result<()> {
    let proc = DetachedMount::new("proc", &[("source", Some("proc"))], Attributes::DATA)?;
    proc.attach(open_dir(root, "proc")?, Path::new("proc"))?;
    // systemd itself would raise limits that are the host's.
    protect_pod_proc(&proc)?;
    let read_only = Attributes { read_only: true, ..Attributes::DATA };
    let sys = DetachedMount::new("sysfs", &[("source", Some("sysfs"))], read_only).or_else(|error| {
        // In a user namespace of its own with the host's network no new sysfs can be had: the host's then.
        log::debug!("{}", error.one_line());
        let sys = DetachedMount::clone_path("/sys", Scope::Recursive)?;
        sys.set(read_only, Scope::Recursive)?;
        Ok(sys)
    })?;
    sys.attach(open_dir(root, "sys")?, Path::new("sys"))
}

fn devices(root: &DetachedMount, terminal: &DetachedMount) -> Result<()> {
    let attributes = Attributes { nosuid: true, noexec: true, ..Attributes::default() };
    let dev = DetachedMount::new("tmpfs", &[("mode", Some("755")), ("source", Some("tmpfs"))], attributes)?;
    dev.attach(open_dir(root, "dev")?, Path::new("dev"))?;
    for (name, major, minor) in NODES {
        device_node(&dev, name, major, minor)?;
    }
    dir::create_in(&dev, "net", EntryKind::Directory)?;
    for (name, major, minor) in OPTIONAL_NODES {
        if let Err(error) = device_node(&dev, name, major, minor) {
            log::debug!("the pod does without /dev/{name}: {}", error.one_line());
        }
    }
    new_devpts()?.attach(dir::create_in(&dev, "pts", EntryKind::Directory)?, Path::new("dev/pts"))?;
    let shm = DetachedMount::new(
        "tmpfs",
        &[("mode", Some("1777")), ("source", Some("shm"))],
        Attributes { noexec: false, ..Attributes::DATA },
    )?;
    shm.attach(dir::create_in(&dev, "shm", EntryKind::Directory)?, Path::new("dev/shm"))?;
    for (link, name) in LINKS {
        dir::symlink_in(&dev, link, name)?;
    }
    let console = dir::create_in(&dev, "console", EntryKind::File)?;
    terminal.attach(console, Path::new("dev/console"))
}

/// A node of the host's, opened and checked, mounted; a user namespace can't make its own.
fn device_node(dev: &DetachedMount, name: &str, major: u32, minor: u32) -> Result<()> {
    if dir::make_device(dev, name, 0o666, major, minor).is_ok() {
        return Ok(());
    }
    let path = Path::new("/dev").join(name);
    let node =
        rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context(|| format!("open {path:?}"))?;
    mount::check_device(&node, major, minor, name)?;
    let target = dir::create_in(dev, name, EntryKind::File)?;
    DetachedMount::clone_of(&node, Scope::One)?.attach(target, &path)
}

/// The pod's own cgroups at the places where systemd looks for hierarchies of each kind: read-only but for what systemd
/// writes to.
fn cgroups(root: &DetachedMount, cgroup: &PodCgroup) -> Result<()> {
    let target = open_dir(root, "sys/fs/cgroup")?;
    if let Some((hierarchy, dir)) = cgroup.directories().find(|_| cgroup.is_unified()) {
        return own_cgroup(root, target, Path::new("sys/fs/cgroup"), &dir, cgroup.writable(hierarchy));
    }
    let tmpfs = DetachedMount::new("tmpfs", &[("mode", Some("755")), ("source", Some("tmpfs"))], Attributes::DATA)?;
    tmpfs.attach(&target, Path::new("sys/fs/cgroup"))?;
    for (hierarchy, dir) in cgroup.directories() {
        let name = match hierarchy.version {
            Version::V2 => "unified".to_owned(),
            Version::V1 => {
                let plain = |name: &'_ String| name.strip_prefix("name=").unwrap_or(name).to_owned();
                hierarchy.controllers.iter().map(plain).collect::<Vec<_>>().join(",")
            }
        };
        let place = dir::create_in(&tmpfs, &name, EntryKind::Directory)?;
        own_cgroup(root, place, &Path::new("sys/fs/cgroup").join(&name), &dir, cgroup.writable(hierarchy))?;
        for controller in hierarchy.controllers.iter().filter(|c| **c != name && !c.starts_with("name=")) {
            dir::symlink_in(&tmpfs, &name, controller)?;
        }
    }
    mount::set_attributes(&tmpfs, Attributes { read_only: true, ..Attributes::DATA }, Scope::One)
}

/// Mounts the cgroup `dir` read-only at `target`, which is `path` in the root, and over it what is writable of it.
fn own_cgroup(root: &DetachedMount, target: OwnedFd, path: &Path, dir: &Path, writable: &[&str]) -> Result<()> {
    let bind = |from: &Path, read_only| -> Result<DetachedMount> {
        let bind = DetachedMount::clone_path(from, Scope::One)?;
        bind.set(Attributes { read_only, ..Attributes::DATA }, Scope::One)?;
        Ok(bind)
    };
    bind(dir, true)?.attach(target, path)?;
    for name in writable {
        let place = path.join(name);
        let target = dir::open_in(root, &place, OFlags::PATH)?;
        bind(&dir.join(name), false)?.attach(target, &place)?;
    }
    Ok(())
}

/// What the apps' roots are made of later, in the pod's own /run.
fn runtime_files(hostname: &str) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    for path in [layout::PINS, layout::NOTES] {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).context(|| format!("mkdir {path}"))?;
    }
    let write = |path: &str, text: String| std::fs::write(path, text).context(|| format!("write {path}"));
    write(layout::HOSTNAME_FILE, format!("{hostname}\n"))?;
    write(layout::MASK_FILE, String::new())?;
    std::fs::create_dir(layout::MASK_DIR).context(|| format!("mkdir {}", layout::MASK_DIR))?;
    for mask in [layout::MASK_FILE, layout::MASK_DIR] {
        rustix::fs::chmod(mask, Mode::empty()).context(|| format!("chmod({mask}, 0)"))?;
    }
    Ok(())
}

fn open_dir(root: impl AsFd, path: &str) -> Result<OwnedFd> {
    dir::open_in(root, path, OFlags::PATH | OFlags::DIRECTORY)
}
