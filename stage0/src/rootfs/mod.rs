//! The root file systems of a pod and its apps: overlays on the trees that all pods share, or copies of the trees.
//!
//! A pod uses overlays unless the user asked for copies or the data directory's file system supports no overlay, which
//! mounting the first one shows. A file in the pod's directory records the choice. In a pod with its own UID range the
//! overlay lies on an id-mapped mount of the tree, or the copy gets the shifted ids.

pub mod overlay;

use std::path::{Path, PathBuf};

use stage1::appc::AcName;
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::uid_range::UidRange;

use crate::fsutil::dir::make_dir;
use crate::fsutil::remove;
use crate::image::tree as trees;
use crate::image::tree::location;
use crate::poddir::uid_range;
use crate::store::Store;
use overlay::Layers;

/// How to make the root file systems of one pod.
#[derive(Debug)]
pub struct Roots<'a> {
    pod: &'a Path,
    overlays: bool,
    /// Whether to mount the overlays with the option `volatile`.
    volatile: bool,
    ids: Option<UidRange>,
}

impl<'a> Roots<'a> {
    /// The choices recorded in the directory `pod` of a pod.
    ///
    /// # Errors
    /// The pod's UID range can't be read.
    pub fn of(pod: &'a Path) -> Result<Self> {
        let overlays = pod.join(layout::OVERLAY_PREPARED).exists();
        let volatile = pod.join(layout::OVERLAY_VOLATILE).exists();
        Ok(Self { pod, overlays, volatile, ids: uid_range::of_pod(pod)? })
    }

    /// Whether the root file systems are overlays.
    pub fn are_overlays(&self) -> bool {
        self.overlays
    }

    /// Records that the pod in the directory `pod` will be removed when it ends, so that its overlays are mounted
    /// `volatile`: the kernel then need not write their files to disk, and unmounting them does not sync the whole file
    /// system. Call it before the first root is made.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn throw_away(pod: &Path) -> Result<()> {
        let note = pod.join(layout::OVERLAY_VOLATILE);
        std::fs::write(&note, "").context(|| format!("write {note:?}"))
    }

    /// Makes the root file system of an app, or of the pod itself if `app` is `None`, from a tree. The caller must hold
    /// the tree, so that no other process removes or replaces it meanwhile.
    ///
    /// # Errors
    /// The tree's layers can't be found, or the mount or the copy fails.
    pub fn make(&self, store: &Store, tree: &str, app: Option<&AcName>) -> Result<()> {
        let lower = location::stack(store, tree)?;
        let target = self.target(app);
        if !self.overlays {
            make_dir(&target, 0o700)?;
            return location::copy_stack(&lower, &target, self.ids)
                .context(|| format!("copy the files of {:?} to {target:?}", trees::rootfs(store, tree)));
        }
        let layers = Layers {
            lower: &lower,
            upper: &self.pod.join(layout::overlay_upper(tree, app)),
            work: &self.pod.join(layout::overlay_work(tree, app)),
            volatile: self.volatile,
        };
        overlay::mount(layers, &target, self.ids)
    }

    /// Makes the root file system of the pod itself like [`Self::make`], but holds the tree by itself. If the file
    /// system does not support overlays, it copies the tree, and records that the pod uses copies.
    ///
    /// # Errors
    /// The tree is damaged and can't be rendered again, or the mount or the copy fails.
    pub fn make_first(&mut self, store: &Store, tree: &str) -> Result<()> {
        let _held = trees::ensure_noted(store, tree)?;
        match self.make(store, tree, None) {
            Err(error) if self.overlays && overlay::is_refusal(&error) => {
                log::warn!("the pod's files are copied: {}", error.one_line());
                self.give_up_overlays()?;
                self.make(store, tree, None)
            }
            other => other,
        }
    }

    /// Makes the files of a tree appear read-only at `target`: as a mount, or in a pod without overlays as a copy that is
    /// made once. The caller must hold the tree.
    ///
    /// # Errors
    /// The tree's layers can't be found, or the mount or the copy fails.
    pub fn show(&self, store: &Store, tree: &str, target: &Path) -> Result<()> {
        let lower = location::stack(store, tree)?;
        if self.overlays {
            make_dir(target, 0o755)?;
            return overlay::show_mapped(&lower, target, self.ids);
        }
        if target.exists() {
            return Ok(());
        }
        make_dir(target, 0o755)?;
        location::copy_stack(&lower, target, self.ids)
            .context(|| format!("copy the files of {:?} to {target:?}", trees::rootfs(store, tree)))
    }

    fn give_up_overlays(&mut self) -> Result<()> {
        let mark = self.pod.join(layout::OVERLAY_PREPARED);
        std::fs::remove_file(&mark).context(|| format!("remove {mark:?}"))?;
        remove::tree(&self.pod.join(layout::OVERLAY))?;
        remove::tree(&self.target(None))?;
        self.overlays = false;
        Ok(())
    }

    fn target(&self, app: Option<&AcName>) -> PathBuf {
        self.pod.join(app.map_or_else(|| PathBuf::from(layout::STAGE1_ROOTFS), layout::app_rootfs))
    }
}
