//! The files of an app in its pod's directory: making them and removing them.
//!
//! Files inside the pod's root are opened relative to a descriptor of that root, without following symbolic links that
//! the pod could have made.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{self, OFlags};
use rustix::io::Errno;
use stage1::appc::{AcName, RuntimeApp};
use stage1::error::{Context, Error, Result};
use stage1::launch::env;
use stage1::layout;
use stage1::sys::dir;

use crate::fsutil::atomic::{self, Attributes, write};
use crate::fsutil::dir::make_dir;
use crate::fsutil::remove;
use crate::image::store::Image;
use crate::image::tree::{self as trees, Tree};
use crate::poddir::{manifest, uid_range};
use crate::rootfs::Roots;
use crate::rootfs::overlay;
use crate::store::Store;
use crate::volume::fill;

/// The directory, in a pod's directory, that holds upper directories of replaced apps.
const SET_ASIDE: &str = "set-aside";

/// An app's upper directory that was set aside: its path now, and the one it had. `None` if there is none.
pub(super) struct SetAside(Option<(PathBuf, PathBuf)>);

impl SetAside {
    /// That of an app whose upper directory was `upper`, relative to the pod's directory.
    pub(super) fn of(pod: &Path, app: &AcName, upper: Option<&Path>) -> Self {
        let kept = pod.join(SET_ASIDE).join(app.as_ref());
        Self(upper.filter(|_| kept.exists()).map(|upper| (kept, pod.join(upper))))
    }

    /// Whether no upper directory was set aside.
    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Removes the upper directory.
    ///
    /// # Errors
    /// It can't be removed.
    pub(super) fn forget(self) -> Result<()> {
        self.0.map_or(Ok(()), |(kept, _)| remove::tree(&kept))
    }

    /// Moves the upper directory back. Call it before the app is added again.
    ///
    /// # Errors
    /// It can't be moved.
    pub(super) fn put_back(self) -> Result<()> {
        let Some((kept, upper)) = self.0 else { return Ok(()) };
        // the remains of the new app with this name
        remove::tree(&upper)?;
        make_dir(upper.parent().unwrap_or(&upper), 0o750)?;
        std::fs::rename(&kept, &upper).context(|| format!("rename {kept:?} to {upper:?}"))
    }
}

/// The files of one app of one pod.
pub struct AppFiles<'a> {
    pod: &'a Path,
    app: &'a AcName,
}

impl<'a> AppFiles<'a> {
    /// The files of `app` in the pod directory `pod`.
    pub fn new(pod: &'a Path, app: &'a AcName) -> Self {
        Self { pod, app }
    }

    fn info(&self) -> PathBuf {
        self.pod.join(layout::app_info(self.app))
    }

    fn app_dir(&self) -> PathBuf {
        self.pod.join(layout::app_dir(self.app))
    }

    fn layer(&self, tree: &str, kind: &str) -> PathBuf {
        self.pod.join("overlay").join(tree).join(kind).join(self.app.as_ref())
    }

    /// Whether any of them exists.
    pub fn exist(&self) -> bool {
        [self.info(), self.app_dir()].iter().any(|path| path.symlink_metadata().is_ok())
    }

    /// Writes the app's image manifest and tree id, which suffice to mount its root again. Returns the tree, which was
    /// verified and is held.
    ///
    /// # Errors
    /// The tree is damaged and can't be rendered again, or a file can't be written.
    pub fn write_info(&self, store: &Store, image: &Image) -> Result<Tree> {
        let tree = trees::ensure(store, &image.id)?;
        make_dir(&self.info(), 0o750)?;
        write(&self.pod.join(layout::app_image_manifest(self.app)), &image.manifest, 0o640)?;
        write(&self.pod.join(layout::app_tree(self.app)), tree.id().as_bytes(), 0o640)?;
        Ok(tree)
    }

    /// Makes the app's root file system and its environment file from the files that [`Self::write_info`] wrote and
    /// from the manifest, and fills its empty volumes. Verifies the tree unless the caller passes it as `held`.
    ///
    /// # Errors
    /// [`Self::write_info`] was not called, the tree is damaged and can't be rendered again, or the root file system or
    /// a file can't be made.
    pub fn put_in_place(&self, store: &Store, app: &RuntimeApp, held: Option<Tree>) -> Result<()> {
        let tree = self.tree()?.context(|| format!("app {} has no tree", self.app))?;
        let image = self.pod.join(layout::app_image_manifest(self.app));
        let image = std::fs::read(&image).context(|| format!("read {image:?}"))?;
        make_dir(&self.app_dir(), 0o750)?;
        write(&self.app_dir().join("manifest"), &image, 0o640)?;
        if let Some(ids) = uid_range::of_pod(self.pod)? {
            // the pod's root, which reads it, has this UID on the host
            std::os::unix::fs::chown(self.app_dir(), Some(ids.first), Some(ids.first))
                .context(|| format!("chown({:?})", self.app_dir()))?;
        }
        let held = held.map_or_else(|| trees::ensure_noted(store, &tree), |held| Ok(Some(held)))?;
        Roots::of(self.pod)?.make(store, &tree, Some(self.app))?;
        drop(held);
        let root = self.pod.join(layout::app_rootfs(self.app));
        fill::first_content(store, &manifest::read(self.pod)?, app, &root, uid_range::of_pod(self.pod)?)?;
        let mut environment = Vec::new();
        for variable in app.app.iter().flat_map(|app| &app.environment) {
            env::set(&mut environment, &variable.name, &variable.value);
        }
        env::set(&mut environment, "AC_APP_NAME", self.app.as_ref());
        self.replace_in_pod(&layout::env_file(self.app), env::to_file(&environment)?.as_bytes())
    }

    /// Mounts the app's root again, with all files written to it. In a pod without overlays it does nothing: the root
    /// is a copy.
    ///
    /// # Errors
    /// The app has no tree id, or the mount fails.
    pub fn mount_again(&self, store: &Store) -> Result<()> {
        let roots = Roots::of(self.pod)?;
        if !roots.are_overlays() {
            return Ok(());
        }
        let tree = self.tree()?.context(|| format!("app {} has no tree", self.app))?;
        overlay::forget_mapped(&self.layer(&tree, "work"))?;
        roots.make(store, &tree, Some(self.app))
    }

    /// The id of the app's tree; `None` if it was not written, or is not a file name.
    ///
    /// # Errors
    /// The file with the id can't be read.
    pub fn tree(&self) -> Result<Option<String>> {
        let path = self.pod.join(layout::app_tree(self.app));
        let tree = match std::fs::read_to_string(&path) {
            Ok(tree) => tree.trim().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::caused_by(format!("read {path:?}"), error)),
        };
        let is_name = !tree.is_empty() && !tree.contains('/') && !tree.starts_with('.');
        Ok(is_name.then_some(tree))
    }

    /// Writes the marker `APP-created`, which says that the app was added.
    ///
    /// # Errors
    /// The marker can't be written into the pod.
    pub fn mark_created(&self) -> Result<()> {
        self.replace_in_pod(&self.status_file("-created"), b"")
    }

    /// Writes the marker `APP-started`, which says that the app was started; its time is the time of the start.
    ///
    /// # Errors
    /// As [`Self::mark_created`].
    pub fn mark_started(&self) -> Result<()> {
        self.replace_in_pod(&self.status_file("-started"), b"")
    }

    /// Removes the marker `APP-started`.
    ///
    /// # Errors
    /// The marker can't be removed.
    pub fn unmark_started(&self) -> Result<()> {
        self.remove_in_pod(&self.status_file("-started"))
    }

    /// Removes the exit status and the exit details; the details first, because a stop makes the status from them.
    ///
    /// # Errors
    /// A file can't be removed.
    pub fn forget_exit(&self) -> Result<()> {
        self.remove_in_pod(&self.exit_details())?;
        self.remove_in_pod(&self.status_file(""))
    }

    fn exit_details(&self) -> PathBuf {
        layout::status_dir().join(layout::exit_details(self.app))
    }

    fn status_file(&self, suffix: &str) -> PathBuf {
        layout::status_dir().join(format!("{}{suffix}", self.app))
    }

    /// The app's upper directory, relative to the pod's directory. `None` in a pod without overlays.
    ///
    /// # Errors
    /// The app's tree can't be read.
    pub(super) fn upper(&self) -> Result<Option<PathBuf>> {
        match (self.tree()?, Roots::of(self.pod)?.are_overlays()) {
            (Some(tree), true) => Ok(Some(layout::overlay_upper(&tree, Some(self.app)))),
            _ => Ok(None),
        }
    }

    /// Sets the app's upper directory aside, with all files that the app wrote to its root. Call it after app-rm. In a
    /// pod without overlays it does nothing.
    ///
    /// # Errors
    /// The root can't be unmounted, or the upper directory can't be moved.
    pub(super) fn set_aside(&self) -> Result<SetAside> {
        let kept = self.pod.join(SET_ASIDE).join(self.app.as_ref());
        remove::tree(&kept)?;
        let Some(upper) = self.upper()?.map(|upper| self.pod.join(upper)) else { return Ok(SetAside(None)) };
        overlay::unmount_below(&self.app_dir())?;
        make_dir(&self.pod.join(SET_ASIDE), 0o700)?;
        std::fs::rename(&upper, &kept).context(|| format!("rename {upper:?} to {kept:?}"))?;
        Ok(SetAside(Some((kept, upper))))
    }

    /// Unmounts the app's root and removes all its files that exist.
    ///
    /// # Errors
    /// A mount can't be unmounted or a file can't be removed. It stops there; a later call goes on.
    pub fn remove(&self) -> Result<()> {
        // the markers first: without them the app counts as half removed
        for name in layout::status_files(self.app) {
            self.remove_in_pod(&layout::status_dir().join(name))?;
        }
        overlay::unmount_below(&self.app_dir())?;
        self.remove_layers()?;
        self.remove_in_pod(&layout::env_file(self.app))?;
        remove::tree(&self.app_dir())?;
        remove::tree(&self.info())
    }

    /// Removes the upper and work directories, and their parents if no other app uses the same tree.
    fn remove_layers(&self) -> Result<()> {
        let Some(tree) = self.tree()? else { return Ok(()) };
        overlay::forget_mapped(&self.layer(&tree, "work"))?;
        for kind in ["upper", "work"] {
            remove::tree(&self.layer(&tree, kind))?;
        }
        let top = self.pod.join("overlay").join(&tree);
        for dir in [top.join("upper"), top.join("work"), top] {
            match fs::rmdir(&dir) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => return Err(Error::caused_by(format!("rmdir({dir:?})"), errno)),
            }
        }
        Ok(())
    }

    /// Opens the parent directory of a file in the pod's root; returns it with the file's name.
    fn parent_in_pod<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr)> {
        let inside =
            path.strip_prefix(layout::STAGE1_ROOTFS).context(|| format!("{path:?} is not in the pod's root"))?;
        let (parent, _) = dir::split(inside)?;
        let name = path.file_name().context(|| format!("{path:?} names no file"))?;
        let root = dir::open_dir(self.pod.join(layout::STAGE1_ROOTFS))?;
        Ok((dir::open_beneath(root, parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    fn replace_in_pod(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let shown = || format!("write {path:?}");
        let (parent, name) = self.parent_in_pod(path).context(shown)?;
        let owner = uid_range::of_pod(self.pod)?.map(|ids| (ids.first, ids.first));
        atomic::replace(&parent, name, bytes, Attributes { mode: 0o640, owner, synced: false }).context(shown)
    }

    fn remove_in_pod(&self, path: &Path) -> Result<()> {
        let shown = || format!("remove {path:?}");
        // the root of an ended pod may be unmounted
        if !self.pod.join(layout::status_dir()).exists() {
            return Ok(());
        }
        let (parent, name) = self.parent_in_pod(path).context(shown)?;
        // a killed writer may have left it
        remove::file(&parent, &atomic::temporary_name(name)).context(shown)?;
        remove::file(&parent, name).context(shown)
    }
}
