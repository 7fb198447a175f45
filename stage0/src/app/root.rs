//! The root directory of an app, opened from outside: as its processes see it while it runs, else its files on disk.
//!
//! The app controls everything below it, so paths are resolved with [`stage1::sys::dir`], which never leaves the root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::sched::CloneFlags;
use stage1::appc::AcName;
use stage1::error::{Context, Error, Result};
use stage1::sys::{dir, mount, process};
use stage1::{layout, uid_range::UidRange};

use crate::app::files::AppFiles;
use crate::app::processes;
use crate::image::tree::location;
use crate::poddir::find::{Pod, State};
use crate::poddir::uid_range;
use crate::rootfs::{Roots, overlay};
use crate::store::{Store, TemporaryDir};

/// An app's root directory.
#[derive(Debug)]
pub struct AppRoot {
    directory: OwnedFd,
    /// Whether files may be written: only while the pod runs.
    writable: bool,
    ids: Option<UidRange>,
    _shown: Option<Shown>,
}

/// An overlay that is mounted in a mount namespace of this process.
#[derive(Debug)]
struct Shown(TemporaryDir);

impl Drop for Shown {
    fn drop(&mut self) {
        // before the directory is removed, which would remove what is mounted there
        if let Err(error) = mount::detach(self.0.path()) {
            log::warn!("{}", error.one_line());
        }
    }
}

impl AppRoot {
    /// The root that the app's processes see, with volumes; for an app that does not run, its root file system alone.
    ///
    /// # Errors
    /// The app's root can't be opened or mounted, or the pod's records or cgroup can't be read.
    pub fn open(store: &Store, pod: &Pod, app: &AcName) -> Result<Self> {
        match of_process(pod, app)? {
            Some(directory) => Ok(Self { directory, writable: true, ids: uid_range::of_pod(pod.dir())?, _shown: None }),
            None => Self::of_files(store, pod, app),
        }
    }

    /// The root file system alone, without mounts in it. If the overlay is not mounted, this moves the calling process
    /// to a new mount namespace and mounts it there, read-only.
    ///
    /// # Errors
    /// The app's root can't be opened or mounted, or the pod's records can't be read.
    pub fn of_files(store: &Store, pod: &Pod, app: &AcName) -> Result<Self> {
        let ids = uid_range::of_pod(pod.dir())?;
        let kept = pod.dir().join(layout::app_rootfs(app));
        let overlays = Roots::of(pod.dir())?.are_overlays();
        if !overlays || mount::is_mount_point(&kept)? {
            let writable = pod.state() == State::Running;
            return Ok(Self { directory: dir::open_dir_for_reading(&kept)?, writable, ids, _shown: None });
        }
        // a mount namespace of this process, so that the mount ends with the process
        process::unshare(CloneFlags::CLONE_NEWNS)?;
        mount::make_all_private()?;
        let shown = Shown(store.temporary_dir()?);
        overlay::show(&layers(store, pod, app)?, shown.0.path())?;
        let directory = dir::open_dir_for_reading(shown.0.path())?;
        Ok(Self { directory, writable: false, ids, _shown: Some(shown) })
    }

    /// Fails if files must not be written there.
    ///
    /// # Errors
    /// The pod does not run.
    pub fn must_be_writable(&self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(Error::new("the files of a pod that does not run can only be read"))
    }

    /// The pod's UID range, which the files' owners are shifted to; `None` if the pod has no user namespace of its own.
    pub fn ids(&self) -> Option<UidRange> {
        self.ids
    }
}

impl AsFd for AppRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The layers of an app's root file system: the upper directory, and the lower directories of its image, the uppermost
/// first. `None` if the pod uses copies.
///
/// # Errors
/// The pod's records can't be read, or the layers of the app's tree can't be found.
pub fn overlay_of(store: &Store, pod: &Pod, app: &AcName) -> Result<Option<(PathBuf, Vec<PathBuf>)>> {
    if !Roots::of(pod.dir())?.are_overlays() {
        return Ok(None);
    }
    let tree = AppFiles::new(pod.dir(), app).tree()?.context(|| format!("app {app} has no tree"))?;
    Ok(Some((pod.dir().join(layout::overlay_upper(&tree, Some(app))), location::stack(store, &tree)?)))
}

fn layers(store: &Store, pod: &Pod, app: &AcName) -> Result<Vec<PathBuf>> {
    let (upper, mut lower) = overlay_of(store, pod, app)?.context(|| "the pod has no overlays")?;
    if upper.is_dir() {
        lower.insert(0, upper);
    }
    Ok(lower)
}

/// The root of the app's oldest process; `None` if the app has no process, or that one has just ended and another
/// process may have its PID.
fn of_process(pod: &Pod, app: &AcName) -> Result<Option<OwnedFd>> {
    if pod.state() != State::Running || !pod.dir().join(layout::SUBCGROUP).exists() {
        return Ok(None);
    }
    let Some(first) = processes::list(pod, Some(app))?.into_iter().next() else { return Ok(None) };
    let Ok(pidfd) = process::pidfd_open(first.pid) else { return Ok(None) };
    let root = dir::open_dir(format!("/proc/{}/root", first.pid));
    let is_still_there = processes::list(pod, Some(app))?.iter().any(|member| member.pid == first.pid);
    if !is_still_there || process::pidfd_wait_end(&pidfd, Duration::ZERO)? {
        return Ok(None);
    }
    root.map(Some)
}
