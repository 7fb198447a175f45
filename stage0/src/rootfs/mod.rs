//! The root file systems of a pod and its apps: overlays of the trees that everybody shares, or copies of them.
//!
//! A pod has overlays if the data directory's file system takes them, and nobody asked for copies: that is noted by
//! a file in its directory. Whether it does is found out by mounting the first one. A pod with ids of its own has
//! them in its files too: the overlay lies on the tree as an id-mapped mount shows it, or the copy is made with them.

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

/// How the roots of one pod are made.
#[derive(Debug)]
pub struct Roots<'a> {
    pod: &'a Path,
    overlays: bool,
    /// What is written to the overlays need not get to the disk.
    volatile: bool,
    ids: Option<UidRange>,
}

impl<'a> Roots<'a> {
    /// Those of the pod in this directory, as it has noted.
    ///
    /// # Errors
    /// Its notes can't be read.
    pub fn of(pod: &'a Path) -> Result<Self> {
        let overlays = pod.join(layout::OVERLAY_PREPARED).exists();
        let volatile = pod.join(layout::OVERLAY_VOLATILE).exists();
        Ok(Self { pod, overlays, volatile, ids: uid_range::of_pod(pod)? })
    }

    /// Whether they are overlays.
    pub fn are_overlays(&self) -> bool {
        self.overlays
    }

    /// Notes, before the first root is made, that the pod in this directory is removed at its end: nothing that is
    /// written to its roots need get to the disk, neither while it runs nor as its overlays are unmounted, which would
    /// write all that the whole file system has not yet written.
    ///
    /// # Errors
    /// The note can't be written.
    pub fn throw_away(pod: &Path) -> Result<()> {
        let note = pod.join(layout::OVERLAY_VOLATILE);
        std::fs::write(&note, "").context(|| format!("write {note:?}"))
    }

    /// Makes the root of the pod, or of an app, out of a tree that the caller holds, so that nobody renders it anew or
    /// removes it meanwhile.
    ///
    /// # Errors
    /// The mount or the copy failed.
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

    /// Makes the root of the pod like [`Self::make`], of a tree that it holds itself; by copying, from now on, if the
    /// file system takes no overlay.
    ///
    /// # Errors
    /// The tree is damaged beyond repair, or the mount or the copy failed.
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
