//! The sources of an app's root, opened on the host side and mounted on the pod side.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use super::hosts::Hosts;
use super::memory::{InMemory, MemoryOptions};
use super::mount_point;
use crate::appc::{AcName, Memory};
use crate::error::{Context, Error, Result};
use crate::sys::dir::{self, EntryKind};
use crate::sys::mount::{Attributes, DetachedMount, Propagation, Scope};

/// Everything that an app's mount namespace is assembled from.
#[derive(Debug)]
pub struct RootfsPlan {
    /// The app's root file system.
    pub root: DetachedMount,
    /// Whether the app's root file system is read-only.
    pub read_only_root: bool,
    /// Whether the kernel paths of CONTRACT section 5 are hidden or read-only.
    pub restrict_paths: bool,
    /// Masked paths: each is hidden by an empty directory or file.
    pub masked_paths: Vec<String>,
    /// Paths that the app can't write to.
    pub read_only_paths: Vec<String>,
    /// Whether the pod has a network namespace of its own, whose sysctls do not affect the host.
    pub own_network: bool,
    /// Whether the app has the supervisor's socket, to report that it is ready: sd_notify(3).
    pub notify: bool,
    /// Files in /etc that are mounted over those of the image, without /etc/hosts.
    pub etc: Vec<EtcFile>,
    /// /etc/hosts.
    pub hosts: Hosts,
    /// Volumes in the order in which they are mounted.
    pub volumes: Vec<Volume>,
}

impl RootfsPlan {
    /// A plan with the directory `rootfs` as root and nothing else. Host side.
    ///
    /// # Errors
    /// `rootfs` does not exist, or can't be cloned.
    pub fn new(rootfs: &Path) -> Result<Self> {
        let root = DetachedMount::clone_path(rootfs, Scope::One)?;
        root.set(Attributes::PRIVATE, Scope::One)?;
        Ok(Self {
            root,
            read_only_root: false,
            restrict_paths: true,
            masked_paths: Vec::new(),
            read_only_paths: Vec::new(),
            own_network: false,
            notify: false,
            etc: Vec::new(),
            hosts: Hosts::default(),
            volumes: Vec::new(),
        })
    }
}

/// A file that is mounted in an app's /etc, over one of the image if it has one.
#[derive(Debug)]
pub struct EtcFile {
    /// Absolute path in the app.
    pub path: &'static str,
    /// The file to mount.
    pub source: EtcSource,
    /// Whether a file of the image takes precedence.
    pub only_if_missing: bool,
}

/// The source of a file in /etc.
#[derive(Debug)]
pub enum EtcSource {
    /// A file that was opened on the host side.
    Host(DetachedMount),
    /// A path in the pod's root.
    Pod(&'static str),
}

impl EtcFile {
    /// Mounts the file in an app's root. Pod side.
    pub(super) fn attach(&self, root: &DetachedMount) -> Result<()> {
        if self.only_if_missing && dir::try_open_in(root, self.path, OFlags::PATH)?.is_some() {
            return Ok(());
        }
        let what = format!("the pod's {}", self.path);
        let target = mount_point::of_kind(&what, root, Path::new(self.path), EntryKind::File)?;
        let pod;
        let source = match &self.source {
            EtcSource::Host(source) => source,
            EtcSource::Pod(path) => {
                pod = DetachedMount::clone_path(path, Scope::One)?;
                &pod
            }
        };
        let attributes = Attributes { read_only: true, propagation: Some(Propagation::Private), ..Attributes::DATA };
        source.set(attributes, Scope::One)?;
        source.attach(target, Path::new(self.path))
    }
}

/// A volume that is to be mounted in an app.
#[derive(Debug)]
pub struct Volume {
    name: AcName,
    source: Source,
    target: PathBuf,
    kind: EntryKind,
    device: Option<Device>,
}

/// The source of a volume.
#[derive(Debug)]
enum Source {
    /// A file or directory of the host.
    Host(DetachedMount),
    /// A tmpfs, which is made on the pod side.
    Memory(InMemory),
}

/// How a volume is mounted.
#[derive(Clone, Copy, Debug)]
pub struct VolumeOptions<'a> {
    /// Whether the app can't write through this mount.
    pub read_only: bool,
    /// For a read-only volume: whether the mounts below its source are read-only too.
    pub read_only_below: bool,
    /// Whether the mounts below the source are mounted too.
    pub recursive: bool,
    /// How mounts that are made later propagate between the host and the app: mount_namespaces(7).
    pub propagation: Propagation,
    /// The user namespace to which the host's ids are mapped: its root owns what the host's root owns.
    pub user_namespace: Option<BorrowedFd<'a>>,
}

impl VolumeOptions<'_> {
    fn scope(self) -> Scope {
        if self.recursive { Scope::Recursive } else { Scope::One }
    }
}

/// The device of a volume that is a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Whether it is a block device; otherwise it is a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Whether the app may only read it.
    pub read_only: bool,
}

impl Volume {
    /// The device, if this volume is a device node.
    pub fn device(&self) -> Option<Device> {
        self.device
    }

    /// Its absolute path in the app, without `..` and symlinks.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Opens the volume `name` with the path `source` on the host, to be mounted at `target` in the app. Host side.
    ///
    /// # Errors
    /// `source` does not exist, or can't be mounted with these options. Ids that can't be mapped are only a warning.
    pub fn open(name: &AcName, source: &Path, target: &Path, options: VolumeOptions<'_>) -> Result<Self> {
        stat_source(source)?;
        let mount =
            DetachedMount::clone_path(source, options.scope()).context(|| format!("volume source {source:?}"))?;
        Self::of_mount(name, source, mount, target, options)
    }

    /// As [`Self::open`], with an open source and the path that messages show. Host side.
    ///
    /// # Errors
    /// The source can't be mounted as `options` say.
    pub fn open_part(
        name: &AcName,
        source: (&Path, OwnedFd),
        target: &Path,
        options: VolumeOptions<'_>,
    ) -> Result<Self> {
        let (shown, source) = source;
        let mount = DetachedMount::clone_of(&source, options.scope()).context(|| format!("volume source {shown:?}"))?;
        Self::of_mount(name, shown, mount, target, options)
    }

    fn of_mount(
        name: &AcName,
        source: &Path,
        mount: DetachedMount,
        target: &Path,
        options: VolumeOptions<'_>,
    ) -> Result<Self> {
        let describe = || format!("volume source {source:?}");
        let scope = options.scope();
        let propagation = Some(options.propagation);
        let all = options.read_only && options.read_only_below;
        mount.set(Attributes { read_only: all, propagation, ..Attributes::default() }, scope).context(describe)?;
        if options.read_only && !all {
            mount.set(Attributes { read_only: true, ..Attributes::default() }, Scope::One).context(describe)?;
        }
        if let Some(namespace) = options.user_namespace {
            map_ids(&mount, namespace, scope, source);
        }
        // From the mount itself: the path may have changed meanwhile.
        let stat = rustix::fs::fstat(&mount).context(describe)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        let kind = if is_dir { EntryKind::Directory } else { EntryKind::File };
        let block = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => Some(true),
            FileType::CharacterDevice => Some(false),
            _ => None,
        };
        let device = block.map(|block| Device {
            block,
            major: rustix::fs::major(stat.st_rdev),
            minor: rustix::fs::minor(stat.st_rdev),
            read_only: options.read_only,
        });
        Ok(Self { name: name.clone(), source: Source::Host(mount), target: target.to_owned(), kind, device })
    }

    /// A volume in memory, to be mounted at `target`. Host side.
    pub(super) fn in_memory(
        name: &AcName,
        target: &Path,
        memory: Memory,
        options: MemoryOptions,
        read_only: bool,
    ) -> Self {
        let source = Source::Memory(InMemory { name: name.clone(), memory, options, read_only });
        Self { name: name.clone(), source, target: target.to_owned(), kind: EntryKind::Directory, device: None }
    }

    /// Mounts a volume that all apps share in the pod's mount namespace. Pod side.
    pub(super) fn share(&self) -> Result<()> {
        match &self.source {
            Source::Memory(memory) => memory.share().context(|| format!("volume {}", self.name)),
            Source::Host(_) => Ok(()),
        }
    }

    /// Mounts the volume in an app's root. Pod side.
    pub(super) fn attach(&self, root: &DetachedMount) -> Result<()> {
        let what = || format!("volume {}", self.name);
        let target = mount_point::of_kind(&what(), root, &self.target, self.kind)?;
        match &self.source {
            Source::Host(source) => source.attach(target, &self.target),
            Source::Memory(memory) => memory.open().and_then(|source| source.attach(target, &self.target)),
        }
        .context(what)
    }
}

/// Maps the ids of a volume as far as its file systems support that. Otherwise its files keep the host's owners, and a
/// warning says so: files that everybody may read or write can still be used.
fn map_ids(mount: &DetachedMount, namespace: BorrowedFd<'_>, scope: Scope, source: &Path) {
    let Err(error) = mount.map_ids(namespace, scope) else { return };
    let rest = match scope {
        Scope::Recursive if mount.map_ids(namespace, Scope::One).is_ok() => "what is mounted below ",
        _ => "",
    };
    log::warn!("{rest}volume source {source:?} keeps the host's owners: {}", error.one_line());
}

/// The metadata of the source of a host volume. Host side.
///
/// # Errors
/// It does not exist, or its path can't be searched.
pub(super) fn stat_source(source: &Path) -> Result<std::fs::Metadata> {
    std::fs::metadata(source).map_err(|error| match error.raw_os_error() {
        // The text that host managers of the rkt family expect.
        Some(errno) => Error::new(format!("Failed to stat {}: {}", source.display(), errno_words(errno))),
        None => Error::caused_by(format!("Failed to stat {}", source.display()), error),
    })
}

fn errno_words(errno: i32) -> &'static str {
    nix::errno::Errno::from_raw(errno).desc()
}
