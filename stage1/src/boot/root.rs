//! The root file system of a pod: the stage1 image, read-only, with the few writable directories that CONTRACT names,
//! and the kernel's file systems. Pod side, before PID 1 executes the supervisor.

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

/// Mounts that come from the host's mount namespace. They are cloned there, with the host's privileges, because a
/// descriptor belongs to the namespace in which it was opened, and mounts that a user namespace inherits are locked.
pub(super) struct HostSources {
    /// The stage1 image, without mounts of apps below it.
    image: DetachedMount,
    /// The slave of the pod's console terminal.
    terminal: DetachedMount,
}

impl HostSources {
    /// Clones the mounts. Host side, in the pod directory.
    pub(super) fn open(terminal: impl AsFd) -> Result<Self> {
        let image = DetachedMount::clone_path(layout::STAGE1_ROOTFS, Scope::One)?;
        let terminal = DetachedMount::clone_of(terminal, Scope::One)?;
        // The clone of a shared mount is a peer of it, which pivot_root(2) refuses as a root.
        [&image, &terminal].into_iter().try_for_each(|mount| mount.set(Attributes::PRIVATE, Scope::One))?;
        Ok(Self { image, terminal })
    }
}

/// Assembles the pod's root and enters it.
pub(super) fn enter(cgroup: &PodCgroup, sources: &HostSources, hostname: &str) -> Result<()> {
    mount::make_all_private()?;
    let root = &sources.image;
    // It must be attached before it can become the root. It is attached to `/`, because the pod's root user may not be
    // able to search the path of the pod directory.
    root.attach_path("/")?;
    writable_places(root)?;
    kernel_file_systems(root)?;
    devices(root, &sources.terminal)?;
    cgroups(root, cgroup)?;
    mount::set_attributes(root, Attributes { read_only: true, nodev: true, ..Attributes::default() }, Scope::One)?;
    mount::pivot_into(root).context(|| "enter the pod's root")?;
    runtime_files(hostname)
}

/// Makes /rkt, /var, /run and /tmp writable. The first two are binds of the image, through which host managers read the
/// apps' status.
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
    // Otherwise systemd would raise limits in /proc/sys that are the host's.
    protect_pod_proc(&proc)?;
    let read_only = Attributes { read_only: true, ..Attributes::DATA };
    let sys = DetachedMount::new("sysfs", &[("source", Some("sysfs"))], read_only).or_else(|error| {
        // A user namespace that does not own the network namespace may not mount a new sysfs: use the host's.
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
            log::debug!("the pod has no /dev/{name}: {}", error.one_line());
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

/// Makes a device node or, where that is refused as in a user namespace, mounts the host's node after checking it.
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

/// Mounts the pod's own cgroups where systemd expects each hierarchy, read-only except for what systemd writes to.
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

/// Mounts the cgroup `dir` read-only at `target`, which is `path` in the root, and its files and directories `writable`
/// on top, writable.
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

/// Makes the files and directories in the pod's /run that the apps' roots need later.
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
