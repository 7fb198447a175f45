//! The root directory of an app, opened from outside: as its processes see it while it runs, else as it is kept.
//!
//! All that is below it is hostile: paths are resolved with [`stage1::sys::dir`], which knows no way out of a root.

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
    /// Whether the pod runs: nothing is written to the files of others, which are as they were at its end.
    writable: bool,
    ids: Option<UidRange>,
    _shown: Option<Shown>,
}

/// An overlay that is mounted for this process alone.
#[derive(Debug)]
struct Shown(TemporaryDir);

impl Drop for Shown {
    fn drop(&mut self) {
        // before the directory is removed, and what is in it with it
        if let Err(error) = mount::detach(self.0.path()) {
            log::warn!("{}", error.one_line());
        }
    }
}

impl AppRoot {
    /// What the processes of the app see, volumes included; of an app that does not run its root file system.
    ///
    /// # Errors
    /// The app's files are not there, or can't be opened.
    pub fn open(store: &Store, pod: &Pod, app: &AcName) -> Result<Self> {
        match of_process(pod, app)? {
            Some(directory) => Ok(Self { directory, writable: true, ids: uid_range::of_pod(pod.dir())?, _shown: None }),
            None => Self::of_files(store, pod, app),
        }
    }

    /// The root file system alone, without what is mounted in it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn of_files(store: &Store, pod: &Pod, app: &AcName) -> Result<Self> {
        let ids = uid_range::of_pod(pod.dir())?;
        let kept = pod.dir().join(layout::app_rootfs(app));
        let overlays = Roots::of(pod.dir())?.are_overlays();
        if !overlays || mount::is_mount_point(&kept)? {
            let writable = pod.state() == State::Running;
            return Ok(Self { directory: dir::open_dir_for_reading(&kept)?, writable, ids, _shown: None });
        }
        // in a mount namespace of this process, so that it ends with it
        process::unshare(CloneFlags::CLONE_NEWNS)?;
        mount::make_all_private()?;
        let shown = Shown(store.temporary_dir()?);
        overlay::show(&layers(store, pod, app)?, shown.0.path())?;
        let directory = dir::open_dir_for_reading(shown.0.path())?;
        Ok(Self { directory, writable: false, ids, _shown: Some(shown) })
    }

    /// Fails if nothing may be written there.
    ///
    /// # Errors
    /// The pod has ended.
    pub fn must_be_writable(&self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(Error::new("the files of a pod that does not run can only be read"))
    }

    /// The pod's user namespace, if it has one of its own: the files have its ids, shifted.
    pub fn ids(&self) -> Option<UidRange> {
        self.ids
    }
}

impl AsFd for AppRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The directories whose files an app's root file system has, the uppermost first: that of its own changes, and those of
/// its image. `None` if the pod has copies.
///
/// # Errors
/// The pod's records can't be read.
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

/// The root of the app's first process; `None` if it has none. A process that has just ended, whose number may be another
/// process's, is none of the app's any more.
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
