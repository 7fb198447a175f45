//! The tree store: each image is rendered once, to a directory that all pods using it share as a lower layer.
//!
//! `trees/<id>/` is a checked directory ([`checked_dir`]) with the id of its image. It may lie on layers
//! ([`layer_store`]), which its record lists. A tree appears by one rename. If it fails the quick check when a pod is
//! about to use it, podctl warns and renders it again; pods that use the old tree keep it until they are removed.

pub(crate) mod checked_dir;
pub(crate) mod image_layer;
pub(crate) mod layer_store;
pub(crate) mod layered;
pub mod list;
pub(crate) mod location;
mod mtree;

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{CWD, RenameFlags};
use stage1::appc::ImageManifest;
use stage1::error::{Context, Error, Result};

use crate::fsutil::dir::{make_dir, sync_file_system};
use crate::fsutil::remove;
use crate::image::archive::{Hashes, ImageId, UnpackLimits, Whitelist, unpack_over};
use crate::image::store as images;
use crate::image::store::find;
use crate::image::tree::location::{copy_stack, stack};
pub(crate) use crate::image::tree::location::{directory, place};
pub use crate::image::tree::location::{full_fault, quick_fault, rootfs};
use crate::store::{Store, TemporaryDir};

/// The most images that an image depends on, directly or not.
const MAX_DEPENDENCIES: usize = 64;

/// A tree that passed the quick check. The shared lock of the store keeps other processes from removing it.
#[derive(Debug)]
pub struct Tree {
    id: String,
    _lock: File,
}

impl Tree {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Holds the tree of an image; renders it again first if it is missing or fails the quick check.
///
/// # Errors
/// The tree can't be rendered ([`rebuild`]), or the store can't be locked or read.
pub fn ensure(store: &Store, id: &ImageId) -> Result<Tree> {
    for _ in 0..3 {
        let lock = store.share_images()?;
        match quick_fault(store, id)? {
            None => {
                images::touch(store, id)?;
                return Ok(Tree { id: id.as_str().to_owned(), _lock: lock });
            }
            Some(fault) if directory(store, id.as_str()).exists() => {
                log::warn!("the tree of image {} is damaged and is rendered again: {fault}", id.short());
            }
            Some(_) => {}
        }
        drop(lock);
        rebuild(store, id).context(|| format!("render image {}", id.short()))?;
    }
    Err(Error::new(format!("the tree of image {} is damaged again each time it is rendered", id.short())))
}

/// Copies the files of an image to the new directory `to`, which appears by one rename.
///
/// # Errors
/// `to` exists or can't be made, or the tree can't be rendered or copied; the temporary directory is removed then.
pub fn copy_out(store: &Store, id: &ImageId, to: &Path) -> Result<()> {
    if to.symlink_metadata().is_ok() {
        return Err(Error::new(format!("{to:?} already exists")));
    }
    let tree = ensure(store, id)?;
    let from = stack(store, tree.id())?;
    let above = to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = above.join(format!(".podctl-render-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&temporary).context(|| format!("make directory {temporary:?}"))?;
    let copy = || {
        copy_stack(&from, &temporary, None)?;
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(CWD, &temporary, CWD, to, flags).context(|| format!("rename to {to:?}"))
    };
    copy().or_else(|error| remove::tree(&temporary).and(Err(error)))
}

/// [`ensure`] for the tree id in a pod's record. `None` for the tree of another host manager, which is not checked.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_noted(store: &Store, tree: &str) -> Result<Option<Tree>> {
    match ImageId::new(tree) {
        Ok(id) => ensure(store, &id).map(Some),
        Err(_) => Ok(None),
    }
}

/// Renders the tree of an image again and replaces the one in the store.
///
/// # Errors
/// The archive of the image or of one it depends on, its configuration or a layer is missing or damaged, or the store
/// can't be locked or written.
pub fn rebuild(store: &Store, id: &ImageId) -> Result<()> {
    if id.is_of_config() {
        return layered::rebuild(store, id);
    }
    let work = store.temporary_dir()?;
    let image = images::load(store, id)?;
    let known = Some(image.info.dependencies.iter().cloned().collect());
    let limits = UnpackLimits { devices: true, ..UnpackLimits::default() };
    render(store, &work, layered::open_archive(store, id)?, &image.parsed, known, limits)?;
    sync_file_system(work.path())?;
    let _lock = store.lock_images()?;
    place(store, &work, id)
}

/// Renders an archive and its dependencies (appc, "Dependency Matching") to `tree` in the working directory. Returns
/// the ids of the images that it depends on, in the order in which it meets them; `known` are those of an earlier
/// rendering, to be used again.
pub(crate) fn render(
    store: &Store,
    work: &TemporaryDir,
    archive: impl Read,
    manifest: &ImageManifest,
    known: Option<VecDeque<ImageId>>,
    mut limits: UnpackLimits,
) -> Result<Vec<ImageId>> {
    let dir = work.path().join("tree");
    let root = dir.join("rootfs");
    make_dir(&root, 0o755)?;
    let fd = File::open(&root).context(|| format!("open {root:?}"))?;

    let mut plan = RenderPlan { store, known, met: Vec::new(), steps: Vec::new() };
    let whitelists = plan.below(manifest, &[])?;
    let mut over = false;
    for (id, whitelists) in &plan.steps {
        let whitelists: Vec<&Whitelist> = whitelists.iter().map(Rc::as_ref).collect();
        let archive = layered::open_archive(store, id)?;
        unpack_over(archive, fd.as_fd(), &mut limits, &whitelists, over).context(|| format!("image {}", id.short()))?;
        over = true;
    }
    let whitelists: Vec<&Whitelist> = whitelists.iter().map(Rc::as_ref).collect();
    let mut archive = archive;
    unpack_over(&mut archive, fd.as_fd(), &mut limits, &whitelists, over)?;
    // read to the end, so that the hash of the whole archive is verified
    std::io::copy(&mut archive, &mut std::io::sink()).context(|| "read the archive")?;
    checked_dir::write(&dir, &Hashes::default(), checked_dir::DirRecord::default())?;
    Ok(plan.met)
}

/// The images to unpack below an image.
struct RenderPlan<'a> {
    store: &'a Store,
    /// The images that an earlier rendering met, in its order.
    known: Option<VecDeque<ImageId>>,
    met: Vec<ImageId>,
    /// The images to unpack, the lowest first, each with its whitelists.
    steps: Vec<(ImageId, Vec<Rc<Whitelist>>)>,
}

impl RenderPlan<'_> {
    /// Adds the dependencies of an image; returns the whitelists for the image itself.
    fn below(&mut self, manifest: &ImageManifest, above: &[Rc<Whitelist>]) -> Result<Vec<Rc<Whitelist>>> {
        let mut whitelists = above.to_vec();
        whitelists.extend(Whitelist::new(&manifest.path_whitelist)?.map(Rc::new));
        for dependency in &manifest.dependencies {
            let id = match &mut self.known {
                Some(known) => known.pop_front().context(|| "the record of its dependencies is damaged")?,
                None => find::find_dependency(self.store, dependency)?,
            };
            if self.met.len() == MAX_DEPENDENCIES {
                return Err(Error::new(format!("it depends on more than {MAX_DEPENDENCIES} images, or on itself")));
            }
            self.met.push(id.clone());
            let image = images::load(self.store, &id).context(|| "dependency")?;
            let its = self.below(&image.parsed, &whitelists)?;
            self.steps.push((id, its));
        }
        Ok(whitelists)
    }
}
