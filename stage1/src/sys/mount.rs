//! Mounts as owned descriptors: the file-descriptor mount API of Linux 5.2, mount_setattr(2) of 5.12.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
};

use crate::error::{Context, Error, Result};

/// Whether a clone or a change takes the mounts below with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This mount alone.
    One,
    /// This mount and all below it.
    Recursive,
}

/// How mounts made later travel between a mount and its peers: mount_namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Neither way.
    Private,
    /// From the original to this one only.
    Slave,
    /// Both ways.
    Shared,
}

/// Attributes to add to a mount; propagation when it is to change.
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
    /// New propagation type.
    pub propagation: Option<Propagation>,
}

impl Attributes {
    /// Those of a mount that holds no programs.
    pub const DATA: Self = Self { nosuid: true, nodev: true, noexec: true, ..Self::NONE };
    /// Those of a mount that is cut off from the propagation of what it was cloned from.
    pub const PRIVATE: Self = Self { propagation: Some(Propagation::Private), ..Self::NONE };
    const NONE: Self = Self { read_only: false, nosuid: false, nodev: false, noexec: false, propagation: None };
}

/// A mount that is in no namespace yet; it goes away with the descriptor unless attached.
#[derive(Debug)]
pub struct DetachedMount(OwnedFd);

/// A descriptor passed between processes may be taken as a detached mount again.
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
    /// Clones the mount that `source` lies in, rooted at `source`: open_tree(2).
    ///
    /// # Errors
    /// This process may not mount, or the mount is locked to another one.
    pub fn clone_of(source: impl AsFd, scope: Scope) -> Result<Self> {
        Self::open_tree(source.as_fd(), Path::new(""), scope).context(|| hint_enospc("open_tree(fd)".into()))
    }

    /// Clones the mount that `path` lies in, rooted at `path`.
    ///
    /// # Errors
    /// The path does not exist, or as for [`Self::clone_of`].
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

    /// A new file system of type `fs` with `options` (`key` or `key=value` pairs): fsopen(2), fsmount(2).
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

    /// Changes attributes: mount_setattr(2).
    ///
    /// # Errors
    /// An attribute is locked, or this process may not mount.
    pub fn set(&self, attributes: Attributes, scope: Scope) -> Result<()> {
        set_attributes(&self.0, attributes, scope)
    }

    /// Shows ids as the user namespace maps them: what is 0 on the disk is its root's. mount_setattr(2).
    ///
    /// # Errors
    /// The file system, or one below it, can't do that: its errno says EINVAL; or it is done already: EPERM.
    pub fn map_ids(&self, user_namespace: impl AsFd, scope: Scope) -> Result<()> {
        let attr = libc::mount_attr {
            attr_set: libc::MOUNT_ATTR_IDMAP,
            attr_clr: 0,
            propagation: 0,
            userns_fd: u64::from(user_namespace.as_fd().as_raw_fd().cast_unsigned()),
        };
        mount_setattr(self.0.as_fd(), &attr, scope).context(|| format!("mount_setattr(MOUNT_ATTR_IDMAP, {scope:?})"))
    }

    /// Attaches this mount over `target`: move_mount(2). The mount stays when the descriptor closes.
    ///
    /// # Errors
    /// `target` is not a directory where this is one, or the other way round; or it is gone.
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

    /// Attaches this mount over the path `target` in this process's own view.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_path(&self, target: impl AsRef<Path>) -> Result<()> {
        let target = target.as_ref();
        rustix::mount::move_mount(&self.0, "", rustix::fs::CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .context(|| hint_enospc(format!("move_mount(fd -> {target:?})")))
    }
}

/// ENOSPC from the mount API misleads: no disk is full.
fn hint_enospc(call: String) -> String {
    format!("{call} (\"no space\" here means the limit /proc/sys/fs/mount-max)")
}

/// Changes attributes of the attached mount `mount`: mount_setattr(2).
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

/// Makes every mount of this namespace private, so that nothing done here reaches another one.
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

/// Whether something is mounted at `path` itself.
///
/// # Errors
/// The path can't be looked at.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    match rustix::fs::statx(rustix::fs::CWD, path, flags, rustix::fs::StatxFlags::empty()) {
        Ok(stat) => Ok(stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).context(|| format!("statx({path:?})")),
    }
}

/// Detaches the mount at `path` and all below it; `Ok(false)` if nothing is mounted or nothing is there.
///
/// # Errors
/// What is mounted there is locked, or this process may not unmount.
pub fn detach(path: &Path) -> Result<bool> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).context(|| format!("umount({path:?}, MNT_DETACH)")),
    }
}

/// Makes the mounted directory `root` this namespace's root and forgets the old one: pivot_root(2).
/// The working directory is `/` afterwards.
///
/// # Errors
/// `root` is not a mount of this namespace, or is shared with others.
pub fn pivot_into(root: impl AsFd) -> Result<()> {
    rustix::process::fchdir(&root).context(|| "fchdir(new root)")?;
    rustix::process::pivot_root(".", ".").context(|| "pivot_root(\".\", \".\")")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).context(|| "umount(old root, MNT_DETACH)")?;
    rustix::process::chdir("/").context(|| "chdir(\"/\")")
}

/// Refuses a descriptor whose file is not a character device `major`:`minor`.
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

/// Has the file system that is mounted at `path` forget the names that nobody uses: fspick(2), FSCONFIG_CMD_RECONFIGURE
/// with nothing to change. An overlay goes on with a name of a file that was removed in its upper directory, and answers
/// ESTALE to whoever wants to replace or remove it.
pub fn forget_names(path: &Path) -> Result<()> {
    let describe = || format!("reconfigure the file system at {path:?}");
    let flags = rustix::mount::FsPickFlags::FSPICK_CLOEXEC;
    let context = rustix::mount::fspick(rustix::fs::CWD, path, flags).context(describe)?;
    rustix::mount::fsconfig_reconfigure(&context).context(describe)
}
