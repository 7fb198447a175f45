//! The overlay mounts of a pod in the host's mount namespace, and unmounting everything below a path.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use stage1::error::{Context, Error, Result};
use stage1::sys::mount::{Attributes, DetachedMount, Propagation, Scope};
use stage1::sys::userns;
use stage1::uid_range::UidRange;

use crate::fsutil::dir::{make_dir, names_in};

/// mount(2) accepts at most one page of options, with its NUL byte.
const OPTION_BYTES: usize = 4095;

/// The directories and options of an overlay, as in the kernel's filesystems/overlayfs.rst.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    /// `lowerdir`: the read-only trees, the uppermost first.
    pub lower: &'a [PathBuf],
    /// `upperdir`: takes all writes; made, with its parents, if it is missing.
    pub upper: &'a Path,
    /// `workdir`: for the kernel, on the same file system as `upper`; made, with its parents, if it is missing.
    pub work: &'a Path,
    /// `volatile`: the kernel need not write the files to disk. Such an overlay can't be mounted again, because nothing
    /// tells whether the machine crashed meanwhile.
    pub volatile: bool,
}

/// Mounts an overlay at `target`. With `ids`, a file whose owner is UID N in the tree has the owner `ids.first` + N in
/// the overlay; likewise groups.
///
/// # Errors
/// The overlay was mounted `volatile` before, a directory can't be made, or the mount fails. [`is_refusal`] tells
/// whether the file system or the kernel supports no such overlay.
pub fn mount(layers: Layers<'_>, target: &Path, ids: Option<UidRange>) -> Result<()> {
    // the kernel makes this directory for a volatile mount, and refuses to mount the overlay again
    if layers.work.join("work/incompat/volatile").exists() {
        return Err(Error::new(format!(
            "mount overlay at {target:?}: its pod was to be removed at its end, so what was written is not kept"
        )));
    }
    match ids {
        None => mount_on(layers, target),
        Some(ids) => {
            let mapped = Mapped::new(layers.lower, layers.work, ids)?;
            let mounted = mount_on(Layers { lower: &mapped.roots, ..layers }, target);
            // the overlay keeps its own reference to the mapped mounts
            mapped.remove().and(mounted)
        }
    }
}

/// Mounts `layers`, the uppermost first, read-only at the directory `target`: an overlay, or a bind mount of a single
/// layer.
///
/// # Errors
/// A mount fails.
pub fn show(layers: &[PathBuf], target: &Path) -> Result<()> {
    if let [only] = layers {
        let mount = DetachedMount::clone_path(only, Scope::One)?;
        mount.set(Attributes { read_only: true, ..Attributes::default() }, Scope::One)?;
        return mount.attach_path(target);
    }
    mount_with(layers, target, MountFlags::RDONLY, lower_option)
}

/// [`show`] with owners shifted by `ids`, as in [`mount`].
///
/// # Errors
/// A mount fails, or can't have its ids mapped.
pub fn show_mapped(layers: &[PathBuf], target: &Path, ids: Option<UidRange>) -> Result<()> {
    let Some(ids) = ids else { return show(layers, target) };
    forget_mapped(target)?;
    let mapped = Mapped::new(layers, target, ids)?;
    let shown = show(&mapped.roots, target);
    mapped.remove().and(shown)
}

/// Whether an error of [`mount`] means that this file system, or this kernel, does not support such an overlay.
pub fn is_refusal(error: &Error) -> bool {
    const REFUSALS: [Errno; 5] = [Errno::NODEV, Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM];
    error.errno().is_some_and(|found| REFUSALS.iter().any(|errno| errno.raw_os_error() == found))
}

/// Temporary id-mapped mounts of trees, beside the work directory of the overlay that is to lie on them. Trees of the
/// same store directory, as layers are, share one mount.
struct Mapped {
    at: PathBuf,
    /// The paths of the trees in these mounts, in the order of the trees.
    roots: Vec<PathBuf>,
}

impl Mapped {
    fn new(trees: &[PathBuf], work: &Path, ids: UidRange) -> Result<Self> {
        let users = userns::new(ids.first, ids.count)?;
        let mut mapped = Self { at: Self::beside(work), roots: Vec::new() };
        match mapped.attach(trees, &users) {
            Ok(()) => Ok(mapped),
            Err(error) => mapped.remove().and(Err(error)),
        }
    }

    fn attach(&mut self, trees: &[PathBuf], users: &OwnedFd) -> Result<()> {
        let private = Attributes { propagation: Some(Propagation::Private), ..Attributes::default() };
        let mut mounted: Vec<(&Path, PathBuf)> = Vec::new();
        for tree in trees {
            // STORE of STORE/NAME/rootfs
            let store = tree.ancestors().nth(2).context(|| format!("{tree:?} does not lie in a store"))?;
            let at = match mounted.iter().find(|(other, _)| *other == store) {
                Some((_, at)) => at.clone(),
                None => {
                    let mount = DetachedMount::clone_path(store, Scope::One)?;
                    mount.set(private, Scope::One)?;
                    mount.map_ids(users, Scope::One).context(|| format!("map the ids of {store:?}"))?;
                    let at = self.at.join(mounted.len().to_string());
                    make_dir(&at, 0o700)?;
                    mount.attach_path(&at)?;
                    mounted.push((store, at.clone()));
                    at
                }
            };
            self.roots.push(tree.strip_prefix(store).map_or_else(|_| at.clone(), |inside| at.join(inside)));
        }
        Ok(())
    }

    fn beside(work: &Path) -> PathBuf {
        let mut at = work.as_os_str().to_owned();
        at.push(".lower");
        at.into()
    }

    fn remove(self) -> Result<()> {
        // an earlier version mounted the tree at `at` itself
        unmount(&self.at)?;
        for name in names_in(&self.at)? {
            let root = self.at.join(name);
            unmount(&root)?;
            std::fs::remove_dir(&root).context(|| format!("remove {root:?}"))?;
        }
        match std::fs::remove_dir(&self.at) {
            // NotFound: the first mount point could not be made
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::caused_by(format!("remove {:?}", self.at), error))
            }
            _ => Ok(()),
        }
    }
}

/// Removes the id-mapped mounts that a killed [`mount`] left beside the work directory.
///
/// # Errors
/// A mount point can't be unmounted or removed.
pub fn forget_mapped(work: &Path) -> Result<()> {
    let mapped = Mapped { at: Mapped::beside(work), roots: Vec::new() };
    if mapped.at.symlink_metadata().is_ok() { mapped.remove() } else { Ok(()) }
}

fn mount_on(layers: Layers<'_>, target: &Path) -> Result<()> {
    let Layers { lower, upper, work, .. } = layers;
    let top = lower.first().context(|| "an overlay needs a tree to lie on")?;
    let like = top.metadata().context(|| format!("look at the tree {top:?}"))?;
    make_dir(target, 0o755)?;
    make_dir(work, 0o750)?;
    make_dir(upper.parent().unwrap_or(upper), 0o750)?;
    match std::fs::DirBuilder::new().mode(0o700).create(upper) {
        // the root of an overlay shows the owner and mode of its upper directory
        Ok(()) => {
            std::os::unix::fs::chown(upper, Some(like.uid()), Some(like.gid()))
                .context(|| format!("chown({upper:?})"))?;
            std::fs::set_permissions(upper, std::fs::Permissions::from_mode(like.mode() & 0o7777))
                .context(|| format!("chmod({upper:?})"))?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::caused_by(format!("make directory {upper:?}"), error)),
    }
    let with = |volatile| {
        let options = |lower: &[PathBuf]| options(Layers { lower, volatile, ..layers });
        mount_with(lower, target, MountFlags::empty(), options)
    };
    match with(layers.volatile) {
        // kernels before Linux 5.10 refuse the option `volatile`
        Err(error) if layers.volatile && error.errno() == Some(Errno::INVAL.raw_os_error()) => with(false),
        mounted => mounted,
    }
}

/// Mounts an overlay with the options that `options` makes from the lower directories. If they are too long, the lower
/// directories are named from a descriptor of the directory that holds all of them, or else each by its own descriptor.
fn mount_with(
    lower: &[PathBuf],
    target: &Path,
    flags: MountFlags,
    options: impl Fn(&[PathBuf]) -> OsString,
) -> Result<()> {
    let top = lower.first().context(|| "an overlay needs a tree to lie on")?;
    let open = |path: &Path| File::open(path).context(|| format!("open directory {path:?}"));
    let mut data = options(lower);
    let mut opened: Vec<File> = Vec::new();
    if data.len() > OPTION_BYTES {
        let above = common_ancestor(lower);
        let dir = open(above)?;
        data = options(&lower.iter().map(|path| named_from(&dir, path, above)).collect::<Vec<_>>());
        opened.push(dir);
    }
    if data.len() > OPTION_BYTES {
        opened = lower.iter().map(|path| open(path)).collect::<Result<_>>()?;
        data = options(&lower.iter().zip(&opened).map(|(path, dir)| named_from(dir, path, path)).collect::<Vec<_>>());
    }
    if data.len() > OPTION_BYTES {
        return Err(Error::new(format!("mount overlay at {target:?}: the paths are too long; use a shorter --dir")));
    }
    let data = stage1::sys::dir::c_string(data.as_bytes())?;
    let mounted = rustix::mount::mount("overlay", target, "overlay", flags, data.as_c_str());
    drop(opened);
    mounted.map_err(|errno| {
        let hint = match errno {
            Errno::NODEV => " (the kernel has no overlay file system)",
            Errno::INVAL => " (the file system of the data directory can't carry an overlay)",
            Errno::NOSPC => " (the limit of mounts, fs.mount-max, is reached)",
            _ => "",
        };
        let below = lower.len() - 1;
        let on = if below > 0 { format!("{top:?} and {below} layers") } else { format!("{top:?}") };
        Error::caused_by(format!("mount overlay of {on} at {target:?}{hint}"), errno)
    })
}

/// The longest path that all of `paths` are at or below.
fn common_ancestor(paths: &[PathBuf]) -> &Path {
    let first = paths.first().map_or(Path::new(""), PathBuf::as_path);
    first.ancestors().find(|above| paths.iter().all(|path| path.starts_with(above))).unwrap_or(first)
}

/// The name of `path` from the descriptor of the directory `above`, which it is at or below.
fn named_from(dir: &File, path: &Path, above: &Path) -> PathBuf {
    // joining an empty path would add a slash
    let descriptor = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    match path.strip_prefix(above) {
        Ok(rest) if !rest.as_os_str().is_empty() => descriptor.join(rest),
        _ => descriptor,
    }
}

fn lower_option(lower: &[PathBuf]) -> OsString {
    let mut option = OsString::from("lowerdir=");
    for (number, path) in lower.iter().enumerate() {
        if number > 0 {
            option.push(":");
        }
        option.push(escaped(path));
    }
    option
}

fn options(layers: Layers<'_>) -> OsString {
    let Layers { lower, upper, work, volatile } = layers;
    let mut options = lower_option(lower);
    options.push(",upperdir=");
    options.push(escaped(upper));
    options.push(",workdir=");
    options.push(escaped(work));
    if volatile {
        options.push(",volatile");
    }
    options
}

/// A path in an overlay option, with the separators of options and layers escaped by a backslash.
fn escaped(path: &Path) -> OsString {
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'\\' | b',' | b':') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    OsString::from_vec(out)
}

/// Unmounts everything at and below `path`, the last mounted first. A busy mount is detached (`MNT_DETACH` in
/// umount2(2)).
///
/// # Errors
/// The mount table can't be read, or a mount can't be unmounted; the others are unmounted nevertheless.
pub fn unmount_below(path: &Path) -> Result<()> {
    let table = std::fs::read("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
    let mut first_error = None;
    for point in mount_points_below(&table, path).iter().rev() {
        if let Err(error) = unmount(point) {
            log::warn!("{}", error.one_line());
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

fn unmount(point: &Path) -> Result<()> {
    match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => rustix::mount::unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
            .context(|| format!("detach {point:?}")),
        // another process, or propagation from a peer group, has unmounted it
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::caused_by(format!("unmount {point:?}"), errno)),
    }
}

/// The mount points at and below `path` in the text of mountinfo (proc_pid_mountinfo(5)), in its order.
fn mount_points_below(table: &[u8], path: &Path) -> Vec<PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescaped(field))))
        .filter(|point| point.starts_with(path))
        .collect()
}

/// Decodes the kernel's octal escapes of space, tab, newline and backslash.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [byte, tail @ ..] = rest {
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use stage1::sys::mount::is_mount_point;

    #[test]
    fn finds_mounts_by_whole_path_components() {
        let table = b"1 0 8:1 / / rw - ext4 a rw\n\
            2 1 8:1 / /data/pods/a\\040b rw - overlay o rw\n\
            3 1 8:1 / /data/pods/a\\040b/x rw - overlay o rw\n\
            4 1 8:1 / /data/pods/a\\040bc rw - overlay o rw\n";
        let found = mount_points_below(table, Path::new("/data/pods/a b"));
        assert_eq!(found, [Path::new("/data/pods/a b"), Path::new("/data/pods/a b/x")]);
    }

    #[test]
    fn names_directories_from_the_one_that_holds_them() {
        let paths = ["/data/trees/a/rootfs", "/data/layers/b/rootfs", "/data/layers/c/rootfs"].map(PathBuf::from);
        assert_eq!(common_ancestor(&paths), Path::new("/data"));
        assert_eq!(common_ancestor(&paths[1..]), Path::new("/data/layers"));
        assert_eq!(common_ancestor(&paths[..1]), paths[0]);
        let dir = File::open("/").unwrap();
        let descriptor = format!("/proc/self/fd/{}", dir.as_raw_fd());
        assert_eq!(
            named_from(&dir, &paths[1], Path::new("/data")).to_str(),
            Some(&*format!("{descriptor}/layers/b/rootfs"))
        );
        assert_eq!(named_from(&dir, &paths[1], &paths[1]).to_str(), Some(&*descriptor));
    }

    #[test]
    fn mounts_whatever_the_paths_are_called_and_unmounts_all() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting takes root");
            return;
        }
        let base = tempfile::tempdir().unwrap();
        let odd = base.path().canonicalize().unwrap().join("a,b:c\\d e\"f");
        let lower = odd.join("lower");
        std::fs::create_dir_all(&lower).unwrap();
        std::fs::write(lower.join("file"), "below").unwrap();
        std::fs::set_permissions(&lower, std::fs::Permissions::from_mode(0o711)).unwrap();
        let target = odd.join("target");
        let (upper, work) = (odd.join("o/upper/app"), odd.join("o/work/app"));
        let layers = Layers { lower: std::slice::from_ref(&lower), upper: &upper, work: &work, volatile: false };
        mount(layers, &target, None).unwrap();
        assert!(is_mount_point(&target).unwrap());
        assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "below");
        assert_eq!(target.metadata().unwrap().mode() & 0o7777, 0o711);
        std::fs::write(target.join("file"), "changed").unwrap();
        let busy = std::fs::File::open(target.join("file")).unwrap();
        unmount_below(&odd).unwrap();
        drop(busy);
        assert!(!is_mount_point(&target).unwrap());
        assert_eq!(std::fs::read_to_string(lower.join("file")).unwrap(), "below");
        assert_eq!(std::fs::read_to_string(odd.join("o/upper/app/file")).unwrap(), "changed");
        // An overlay can be mounted again with its files, but not after a volatile mount.
        for (volatile, again) in [(false, true), (true, true), (true, false), (false, false)] {
            let mounted = mount(Layers { volatile, ..layers }, &target, None);
            assert_eq!(mounted.is_ok(), again, "{mounted:?}");
            match mounted {
                Ok(()) => assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "changed"),
                Err(error) => assert!(error.one_line().contains("to be removed") && !is_refusal(&error), "{error:?}"),
            }
            unmount_below(&odd).unwrap();
        }
    }
}
