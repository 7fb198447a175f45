//! The pin of a pod's network namespace: a name by which plugins find it, and which keeps it when the pod's processes
//! have ended. Host side.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::mount::{self, Attributes, DetachedMount, Propagation, Scope};

/// Pins the network namespace of the process `pid` for the pod `uuid`, and returns the path of the pin.
///
/// # Errors
/// The pin exists already, or can't be made.
pub fn pin(uuid: &str, pid: i32) -> Result<String> {
    let path = layout::network_namespace(uuid);
    make(layout::NETWORK_NAMESPACES, 0o755)?;
    share(Path::new(layout::NETWORK_NAMESPACES))?;
    File::create_new(&path).context(|| format!("create {path:?}"))?;
    let pinned = DetachedMount::clone_path(format!("/proc/{pid}/ns/net"), Scope::One)
        .and_then(|namespace| namespace.attach_path(&path));
    if let Err(error) = pinned {
        std::fs::remove_file(&path).map_err(|also| Error::new(format!("{}; {also}", error.one_line())))?;
        return Err(error);
    }
    text(&path)
}

/// Mounts the directory of named network namespaces on itself, as ip-netns(8) does at its first use. If ip-netns(8) did
/// that later, its mount would hide the names that exist already, which could then not be unmounted or removed.
fn share(names: &Path) -> Result<()> {
    make(layout::HOST_LOCK, 0o700)?;
    let lock = File::open(layout::HOST_LOCK).context(|| format!("open {}", layout::HOST_LOCK))?;
    lock.lock().context(|| format!("flock({})", layout::HOST_LOCK))?;
    if mount::is_mount_point(names)? {
        return Ok(());
    }
    let mount = DetachedMount::clone_path(names, Scope::Recursive)?;
    mount.set(Attributes { propagation: Some(Propagation::Shared), ..Attributes::default() }, Scope::Recursive)?;
    mount.attach_path(names)
}

fn make(directory: &str, mode: u32) -> Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(directory).context(|| format!("mkdir {directory}"))
}

/// The path of the pin of the pod's network namespace; `None` if the namespace is not pinned.
///
/// # Errors
/// statfs(2) fails for another reason than a missing file.
pub fn pinned(uuid: &str) -> Result<Option<String>> {
    const NSFS: i64 = 0x6e73_6673;
    let path = layout::network_namespace(uuid);
    match rustix::fs::statfs(&path) {
        Ok(fs) if fs.f_type == NSFS => text(&path).map(Some),
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("statfs({path:?})")),
    }
}

/// Removes the pin. A missing one is not an error.
///
/// # Errors
/// The pin can't be unmounted or removed.
pub fn unpin(uuid: &str) -> Result<()> {
    let path = layout::network_namespace(uuid);
    while mount::detach(&path)? {}
    match std::fs::remove_file(&path) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error).context(|| format!("remove {path:?}")),
        _ => Ok(()),
    }
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).context(|| format!("{path:?} is not UTF-8"))
}
