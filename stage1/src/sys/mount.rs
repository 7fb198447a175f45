//! Mounts as owned descriptors: the mount API of Linux 5.2, and mount_setattr(2) of Linux 5.12.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::error::{Context, Error, Result};

/// Whether a clone or a change includes the mounts below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This mount alone.
    One,
    /// This mount and all below it.
    Recursive,
}

/// Propagation type of a mount: mount_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Mounts made later propagate in neither direction.
    Private,
    /// They propagate from the peer group to this mount only.
    Slave,
    /// They propagate in both directions.
    Shared,
}

impl std::str::FromStr for Propagation {
    type Err = Error;

    /// Reads a propagation as mount(8) names it: `private`, `slave` or `shared`, with or without a leading `r`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "private" | "rprivate" => Ok(Self::Private),
            "slave" | "rslave" => Ok(Self::Slave),
            "shared" | "rshared" => Ok(Self::Shared),
            _ => Err(Error::new(format!("propagation {text:?} is not private, slave or shared"))),
        }
    }
}

/// Attributes to set on a mount: mount_setattr(2). Those that are `false` or `None` stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// Read-only.
    pub read_only: bool,
    /// Set-user-ID bits and file capabilities are ignored.
    pub nosuid: bool,
    /// Device nodes can't be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Propagation type to change to.
    pub propagation: Option<Propagation>,
}

impl Attributes {
    /// Attributes of a mount without programs and devices.
    pub const DATA: Self = Self { nosuid: true, nodev: true, noexec: true, ..Self::NONE };
    /// Private propagation: cuts a clone off from its original.
    pub const PRIVATE: Self = Self { propagation: Some(Propagation::Private), ..Self::NONE };
    const NONE: Self = Self { read_only: false, nosuid: false, nodev: false, noexec: false, propagation: None };
}

/// A mount that is not attached to a mount namespace: open_tree(2), fsmount(2). Closing the descriptor removes it
/// unless it was attached.
#[derive(Debug)]
pub struct DetachedMount(OwnedFd);

/// For a detached mount that was received from another process.
impl From<OwnedFd> for DetachedMount {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for DetachedMount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl DetachedMount {
    /// Clones the mount that contains `source`, with `source` as its root: open_tree(2).
    ///
    /// # Errors
    /// This process may not mount, or a mount below is locked (mount_namespaces(7)) and would be uncovered.
    pub fn clone_of(source: impl AsFd, scope: Scope) -> Result<Self> {
        Self::open_tree(source.as_fd(), Path::new(""), scope).context(|| hint_enospc("open_tree(fd)".into()))
    }

    /// Clones the mount that contains `path`, with `path` as its root.
    ///
    /// # Errors
    /// `path` does not exist, or as [`Self::clone_of`].
    pub fn clone_path(path: impl AsRef<Path>, scope: Scope) -> Result<Self> {
        let path = path.as_ref();
        Self::open_tree(rustix::fs::CWD, path, scope).context(|| format!("open_tree({path:?})"))
    }

    fn open_tree(dir: BorrowedFd<'_>, path: &Path, scope: Scope) -> rustix::io::Result<Self> {
        let mut flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        if scope == Scope::Recursive {
            flags |= OpenTreeFlags::AT_RECURSIVE;
        }
        rustix::mount::open_tree(dir, path, flags).map(Self)
    }

    /// Mounts a new file system of type `fs` with `options`, each a key with or without a value: fsopen(2), fsmount(2).
    /// The propagation in `attributes` is ignored.
    ///
    /// # Errors
    /// The kernel lacks the file system, refuses an option, or this process may not mount.
    pub fn new(fs: &str, options: &[(&str, Option<&str>)], attributes: Attributes) -> Result<Self> {
        let describe = || format!("mount file system {fs} with options {options:?}");
        let context = fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC).context(describe)?;
        for (key, value) in options {
            match value {
                Some(value) => fsconfig_set_string(&context, *key, *value),
                None => fsconfig_set_flag(&context, *key),
            }
            .context(describe)?;
        }
        fsconfig_create(&context).context(describe)?;
        let mut flags = MountAttrFlags::empty();
        for (on, flag) in [
            (attributes.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
            (attributes.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
            (attributes.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
            (attributes.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        ] {
            flags.set(flag, on);
        }
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).context(describe).map(Self)
    }

    /// Sets attributes: mount_setattr(2).
    ///
    /// # Errors
    /// An attribute is locked, or this process may not mount.
    pub fn set(&self, attributes: Attributes, scope: Scope) -> Result<()> {
        set_attributes(&self.0, attributes, scope)
    }

    /// Makes it an id-mapped mount: what id 0 owns on the disk belongs to root of `user_namespace`. mount_setattr(2),
    /// MOUNT_ATTR_IDMAP.
    ///
    /// # Errors
    /// EINVAL: the file system, or with [`Scope::Recursive`] one below it, does not support that. EPERM: the mount is
    /// id-mapped already, or this process may not map it.
    pub fn map_ids(&self, user_namespace: impl AsFd, scope: Scope) -> Result<()> {
        let attr = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd: u64::from(user_namespace.as_fd().as_raw_fd().cast_unsigned()),
        };
        mount_setattr(self.0.as_fd(), &attr, scope).context(|| format!("mount_setattr(MOUNT_ATTR_IDMAP, {scope:?})"))
    }

    /// Attaches this mount over `target`, which `name` names in messages: move_mount(2). After that it no longer
    /// depends on the descriptor.
    ///
    /// # Errors
    /// Only one of mount and `target` is a directory, or `target` was removed or is in another mount namespace.
    pub fn attach(&self, target: impl AsFd, name: &Path) -> Result<()> {
        rustix::mount::move_mount(
            &self.0,
            "",
            target.as_fd(),
            "",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
        )
        .context(|| hint_enospc(format!("move_mount(fd -> {name:?})")))
    }

    /// Attaches this mount over the path `target` of this process's mount namespace.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_path(&self, target: impl AsRef<Path>) -> Result<()> {
        let target = target.as_ref();
        rustix::mount::move_mount(&self.0, "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .context(|| hint_enospc(format!("move_mount(fd -> {target:?})")))
    }
}

/// Adds a hint for ENOSPC, which in the mount API does not mean that a disk is full.
fn hint_enospc(call: String) -> String {
    format!("{call} (\"no space\" here means the limit /proc/sys/fs/mount-max)")
}

/// Sets attributes of the mount with the root `mount`, attached or not: mount_setattr(2).
///
/// # Errors
/// As [`DetachedMount::set`].
pub fn set_attributes(mount: impl AsFd, attributes: Attributes, scope: Scope) -> Result<()> {
    let mut attr = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: 0, userns_fd: 0 };
    for (on, flag) in [
        (attributes.read_only, libc::MOUNT_ATTR_RDONLY),
        (attributes.nosuid, libc::MOUNT_ATTR_NOSUID),
        (attributes.nodev, libc::MOUNT_ATTR_NODEV),
        (attributes.noexec, libc::MOUNT_ATTR_NOEXEC),
    ] {
        if on {
            attr.attr_set |= flag;
        }
    }
    attr.propagation = match attributes.propagation {
        None => 0,
        Some(Propagation::Private) => libc::MS_PRIVATE,
        Some(Propagation::Slave) => libc::MS_SLAVE,
        Some(Propagation::Shared) => libc::MS_SHARED,
    };
    mount_setattr(mount.as_fd(), &attr, scope).context(|| format!("mount_setattr({attributes:?}, {scope:?})"))
}

fn mount_setattr(mount: BorrowedFd<'_>, attr: &libc::mount_attr, scope: Scope) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if scope == Scope::Recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a NUL-terminated literal, `attr` lives through the call and its size is
    // passed with it; the kernel reads nothing else.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    nix::errno::Errno::result(done).map(drop)
}

/// Makes every mount of this mount namespace private, so that no change here propagates to another namespace.
///
/// # Errors
/// This process may not mount.
pub fn make_all_private() -> Result<()> {
    rustix::mount::mount_change(
        "/",
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
    )
    .context(|| "mount(/, MS_REC|MS_PRIVATE)")
}

/// Whether `path` is a mount point: statx(2), STATX_ATTR_MOUNT_ROOT. A path that does not exist is not one.
///
/// # Errors
/// statx(2) fails for another reason than a missing path.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statx(rustix::fs::CWD, path, flags, rustix::fs::StatxFlags::empty()) {
        Ok(stat) => Ok(stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).context(|| format!("statx({path:?})")),
    }
}

/// The propagation of the mount that contains `path`: proc_pid_mountinfo(5). A mount that is both shared and a slave is
/// shared.
///
/// # Errors
/// statx(2) fails for the path, or /proc/self/mountinfo can't be read or has no line for its mount.
pub fn propagation_of(path: &Path) -> Result<Propagation> {
    let flags = rustix::fs::AtFlags::empty();
    let stat = rustix::fs::statx(rustix::fs::CWD, path, flags, rustix::fs::StatxFlags::MNT_ID)
        .context(|| format!("statx({path:?})"))?;
    const TABLE: &str = "/proc/self/mountinfo";
    let table = std::fs::read_to_string(TABLE).context(|| format!("read {TABLE}"))?;
    let id = stat.stx_mnt_id.to_string();
    let mount = table.lines().find(|line| line.split(' ').next() == Some(&*id));
    let mount = mount.context(|| format!("{TABLE} does not have the mount of {path:?}"))?;
    let tags = mount.split(" - ").next().unwrap_or_default();
    Ok(match (tags.contains(" shared:"), tags.contains(" master:")) {
        (true, _) => Propagation::Shared,
        (false, true) => Propagation::Slave,
        (false, false) => Propagation::Private,
    })
}

/// Detaches the mount at `path` and all mounts below it: umount2(2), MNT_DETACH. `Ok(false)` if nothing is mounted
/// there, the mount is locked (mount_namespaces(7)), or `path` does not exist.
///
/// # Errors
/// This process may not unmount, or `path` can't be reached.
pub fn detach(path: &Path) -> Result<bool> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).context(|| format!("umount({path:?}, MNT_DETACH)")),
    }
}

/// Makes the mount `root` the root of this mount namespace and detaches the old root: pivot_root(2). The working
/// directory is `/` afterwards.
///
/// # Errors
/// `root` is not a mount point of this namespace, or its propagation type is shared.
pub fn pivot_into(root: impl AsFd) -> Result<()> {
    rustix::process::fchdir(&root).context(|| "fchdir(new root)")?;
    rustix::process::pivot_root(".", ".").context(|| "pivot_root(\".\", \".\")")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context(|| "umount(old root, MNT_DETACH)")?;
    rustix::process::chdir("/").context(|| "chdir(\"/\")")
}

/// Checks that a descriptor refers to the character device `major`:`minor`; `name` is for messages.
///
/// # Errors
/// It is another kind of file, or another device.
pub fn check_device(fd: impl AsFd, major: u32, minor: u32, name: &str) -> Result<()> {
    let stat = rustix::fs::fstat(fd).context(|| format!("fstat({name:?})"))?;
    let is_char = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::CharacterDevice;
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    if !is_char || device != (major, minor) {
        return Err(Error::new(format!("{name:?} is not the character device {major}:{minor}")));
    }
    Ok(())
}

/// Empties the kernel's cache of unused names of the file system that is mounted at `path`: fspick(2),
/// FSCONFIG_CMD_RECONFIGURE without a change. Otherwise an overlay keeps the name of a file that was removed in its
/// upper directory, and fails with ESTALE when that name is replaced or removed.
///
/// # Errors
/// `path` is not a mount point, or this process may not reconfigure the file system.
pub fn forget_names(path: &Path) -> Result<()> {
    let describe = || format!("reconfigure the file system at {path:?}");
    let flags = rustix::mount::FsPickFlags::FSPICK_CLOEXEC;
    let context = rustix::mount::fspick(rustix::fs::CWD, path, flags).context(describe)?;
    rustix::mount::fsconfig_reconfigure(&context).context(describe)
}
