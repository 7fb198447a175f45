//! Hiding paths of /proc and /sys from an app, and making others read-only: CONTRACT section 5. Pod side.
//!
//! Every path is resolved below the descriptor of the mounted procfs or sysfs, without following symlinks, and must be
//! on a file system of that type, so that files of the image are never used in its place. Paths that this kernel does
//! not have are left out; any other path that can't be covered is an error.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, OFlags};

use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::dir;
use crate::sys::mount::{Attributes, DetachedMount, Scope};

/// Paths in /proc that are hidden from apps: those of the contract, and those with information about the host's
/// hardware, keys and timers.
const HIDDEN_PROC: [&str; 14] = [
    "acpi",
    "asound",
    "config.gz",
    "interrupts",
    "kallsyms",
    "kcore",
    "keys",
    "kmem",
    "latency_stats",
    "mem",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];

/// Paths in /sys that are hidden from apps.
const HIDDEN_SYS: [&str; 7] =
    ["dev/block", "devices/virtual/powercap", "firmware", "fs", "hypervisor", "module", "power"];

/// File system types of procfs and sysfs: statfs(2).
const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const SYSFS_MAGIC: u64 = 0x6265_6572;

/// Makes everything in the pod's own /proc read-only except for the directories of processes: an app that may trace PID
/// 1 can reach it by /proc/1/root. Nothing is hidden there, because systemd makes a mount unit for each cover.
///
/// # Errors
/// A path can't be made read-only.
pub(crate) fn protect_pod_proc(proc: &DetachedMount) -> Result<()> {
    let kernel = KernelFs::proc(proc, &[]);
    kernel.shared_entries(&[])?.iter().try_for_each(|name| kernel.read_only(name).map(drop))
}

/// One of the kernel's file systems, mounted in an app's root.
pub(super) struct KernelFs<'a> {
    mount: &'a DetachedMount,
    /// Its mount point.
    at: &'static str,
    /// Its file system type.
    magic: u64,
    /// The targets of the app's volumes.
    volumes: &'a [&'a Path],
    /// Covers that are made read-only after the volumes below them are mounted.
    open_covers: Vec<DetachedMount>,
}

impl<'a> KernelFs<'a> {
    pub(super) fn proc(mount: &'a DetachedMount, volumes: &'a [&'a Path]) -> Self {
        Self { mount, at: "/proc", magic: PROC_SUPER_MAGIC, volumes, open_covers: Vec::new() }
    }

    pub(super) fn sys(mount: &'a DetachedMount, volumes: &'a [&'a Path]) -> Self {
        Self { mount, at: "/sys", magic: SYSFS_MAGIC, volumes, open_covers: Vec::new() }
    }

    /// Hides [`HIDDEN_PROC`], and makes all other entries read-only that do not belong to a process: every directory,
    /// and every file with a write bit. If the pod has its own network namespace, /proc/sys/net stays writable. Returns
    /// the covers that are to be made read-only after the volumes are mounted.
    pub(super) fn restrict_proc(mut self, own_network: bool) -> Result<Vec<DetachedMount>> {
        for name in HIDDEN_PROC {
            self.hide(name)?;
        }
        let network = own_network.then(|| self.find("sys/net")).transpose()?.flatten();
        let network = network.map(|found| DetachedMount::clone_of(found, Scope::One)).transpose()?;
        for name in self.shared_entries(&HIDDEN_PROC)? {
            let covered = self.read_only(&name)?;
            if let Some(network) = network.as_ref().filter(|_| name == "sys") {
                let target = dir::open_beneath(&covered, "net", OFlags::PATH)?;
                network.set(Attributes::DATA, Scope::One)?;
                network.attach(target, Path::new("/proc/sys/net"))?;
            }
        }
        Ok(self.open_covers)
    }

    /// Hides [`HIDDEN_SYS`]. All of /sys is read-only already. Returns the covers that are to be made read-only after
    /// the volumes are mounted.
    pub(super) fn restrict_sys(mut self) -> Result<Vec<DetachedMount>> {
        for name in HIDDEN_SYS {
            self.hide(name)?;
        }
        Ok(self.open_covers)
    }

    /// The writable entries at the top that do not belong to a process and are not `hidden`.
    fn shared_entries(&self, hidden: &[&str]) -> Result<Vec<String>> {
        let what = || format!("read directory {:?}", self.at);
        let top = dir::open_beneath(self.mount, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&top).context(what)? {
            let entry = entry.context(what)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_process = name.bytes().all(|b| b.is_ascii_digit());
            if name.starts_with('.') || is_process || hidden.contains(&&*name) {
                continue;
            }
            let writable = match entry.file_type() {
                FileType::Directory => true,
                // Symlinks lead to directories of processes.
                FileType::Symlink => false,
                _ => self.stat(&name)?.is_some_and(|stat| stat.st_mode & 0o222 != 0),
            };
            if writable {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn stat(&self, name: &str) -> Result<Option<rustix::fs::Stat>> {
        let found = self.find(name)?;
        found.map(|found| rustix::fs::fstat(found).context(|| format!("fstat {}/{name}", self.at))).transpose()
    }

    /// Opens `name` in the kernel's file system; `None` if this kernel does not have it.
    fn find(&self, name: &str) -> Result<Option<OwnedFd>> {
        let path = || format!("{}/{name}", self.at);
        let found = match dir::open_beneath(self.mount, name, OFlags::PATH) {
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
            found => found.context(path)?,
        };
        let kind = rustix::fs::fstatfs(&found).context(|| format!("fstatfs {}", path()))?.f_type;
        if u64::try_from(kind).ok() == Some(self.magic) {
            Ok(Some(found))
        } else {
            Err(Error::new(format!("{} is on another file system (type {kind:#x}) than the kernel's", path())))
        }
    }

    /// Covers `name` with an empty file or directory of mode 0 or, if a volume is below it, with an empty tmpfs.
    fn hide(&mut self, name: &str) -> Result<()> {
        let Some(target) = self.find(name)? else { return Ok(()) };
        let path = PathBuf::from(self.at).join(name);
        let stat = rustix::fs::fstat(&target).context(|| format!("fstat {path:?}"))?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let below = |volume: &&Path| *volume != path && volume.starts_with(&path);
        if is_dir && self.volumes.iter().any(below) {
            let cover =
                DetachedMount::new("tmpfs", &[("mode", Some("555")), ("size", Some("65536"))], Attributes::DATA)?;
            cover.attach(target, &path).context(|| format!("hide {path:?}"))?;
            self.open_covers.push(cover);
            return Ok(());
        }
        let cover = if is_dir { layout::MASK_DIR } else { layout::MASK_FILE };
        let cover = DetachedMount::clone_path(cover, Scope::One)?;
        cover.set(Attributes { read_only: true, ..Attributes::DATA }, Scope::One)?;
        cover.attach(target, &path).context(|| format!("hide {path:?}"))
    }

    /// Covers `name` with a read-only clone of itself; returns the clone.
    fn read_only(&self, name: &str) -> Result<DetachedMount> {
        let path = || format!("{}/{name}", self.at);
        let target = self.find(name)?.context(|| format!("{} has gone", path()))?;
        let cover = DetachedMount::clone_of(&target, Scope::One)?;
        cover.set(Attributes { read_only: true, ..Attributes::DATA }, Scope::One)?;
        cover.attach(target.as_fd(), Path::new(&path())).context(|| format!("make {} read-only", path()))?;
        Ok(cover)
    }
}
