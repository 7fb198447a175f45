//! The tree store: images rendered to directories, once, as the lower layers of all pods that use them.
//!
//! `trees/<id>/` holds `rootfs`, the list of what is in it (`sums`, see [`crate::image::tree_list`]) and `info`; the id of a tree
//! is its image's. A tree appears whole, by one rename. One that fails its quick check when a pod is about to use it
//! is rendered again, with a warning; pods that use the old one keep it until they are gone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};
use stage1::appc::ImageManifest;
use stage1::error::{Context, Error, Result};
use stage1::sys::dir;

use crate::fsutil::dir::{PRIVATE, make_dir, sync_file_system};
use crate::fsutil::remove;
use crate::image::archive::{ImageId, Limits, Whitelist, unpack_over};
use crate::image::store as images;
use crate::image::tree_list::{self, Newest};
use crate::store::{Store, TemporaryDir};

/// Images below images below images: so many are enough.
const MAX_DEPENDENCIES: usize = 64;

/// A tree that is whole, and stays as long as this is held: nobody removes it meanwhile.
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

/// What is noted of a tree beside its list.
#[derive(Serialize, Deserialize)]
struct Info {
    /// SHA-256 of the list.
    sums: String,
    /// The newest change in the tree when it was rendered.
    newest: Newest,
}

/// The root file system of a rendered tree; it is read-only for everybody.
pub fn rootfs(store: &Store, tree: &str) -> PathBuf {
    directory(store, tree).join("rootfs")
}

pub(crate) fn directory(store: &Store, tree: &str) -> PathBuf {
    store.trees().join(tree)
}

/// Makes sure that the tree of an image is there and, as far as a quick look tells, whole.
///
/// # Errors
/// The tree is missing or damaged, and so is the image's archive.
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
    Err(Error::new(format!("the tree of image {} is damaged again and again", id.short())))
}

/// Copies the files of an image to the new directory `to`, which appears whole.
///
/// # Errors
/// It is there already, can't be made, or the tree can't be had.
pub fn copy_out(store: &Store, id: &ImageId, to: &Path) -> Result<()> {
    if to.symlink_metadata().is_ok() {
        return Err(Error::new(format!("{to:?} is there already")));
    }
    let tree = ensure(store, id)?;
    let from = rootfs(store, tree.id());
    let above = to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = above.join(format!(".podctl-render-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&temporary).context(|| format!("make directory {temporary:?}"))?;
    let copy = || {
        let (from, copy) = (dir::open_dir_for_reading(&from)?, dir::open_dir_for_reading(&temporary)?);
        stage1::rootfs::copy::tree(&from, &copy, None)?;
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(CWD, &temporary, CWD, to, flags).context(|| format!("rename to {to:?}"))
    };
    copy().or_else(|error| remove::tree(&temporary).and(Err(error)))
}

/// Like [`ensure`], for the tree that a pod has noted. One that another host manager has made is taken as it is.
///
/// # Errors
/// As [`ensure`].
pub fn ensure_noted(store: &Store, tree: &str) -> Result<Option<Tree>> {
    match ImageId::new(tree) {
        Ok(id) => ensure(store, &id).map(Some),
        Err(_) => Ok(None),
    }
}

/// What a quick look finds wrong with a tree: a missing file of the store's own, or one of at most about a hundred
/// entries, others each time, that is missing or has been changed.
///
/// # Errors
/// The store can't be read.
pub fn quick_fault(store: &Store, id: &ImageId) -> Result<Option<String>> {
    let Some((list, info)) = open_list(store, id)? else { return Ok(Some("it is not whole".into())) };
    tree_list::probe(&rootfs(store, id.as_str()), &list, info.newest)
}

/// What is wrong with a tree, after a look at every byte of it.
///
/// # Errors
/// The store can't be read.
pub fn full_fault(store: &Store, id: &ImageId) -> Result<Option<String>> {
    let Some((list, info)) = open_list(store, id)? else { return Ok(Some("it is not whole".into())) };
    let path = directory(store, id.as_str()).join("sums");
    if crate::fsutil::digest::of_file(&path)? != info.sums {
        return Ok(Some("its list is damaged".into()));
    }
    tree_list::check(&rootfs(store, id.as_str()), list)
}

fn open_list(store: &Store, id: &ImageId) -> Result<Option<(File, Info)>> {
    let dir = directory(store, id.as_str());
    let info = match std::fs::read(dir.join("info")) {
        Ok(info) => info,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::caused_by(format!("read {:?}", dir.join("info")), error)),
    };
    let Ok(info) = serde_json::from_slice(&info) else { return Ok(None) };
    match File::open(dir.join("sums")) {
        Ok(list) => Ok(Some((list, info))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::caused_by(format!("open {:?}", dir.join("sums")), error)),
    }
}

/// Renders the tree of an image in the store again, whatever is there.
///
/// # Errors
/// The image's archive is missing or damaged, or one that it depends on is.
pub fn rebuild(store: &Store, id: &ImageId) -> Result<()> {
    let work = store.temporary_dir()?;
    let image = images::load(store, id)?;
    let known = Some(image.info.dependencies.iter().cloned().collect());
    let limits = Limits { devices: true, ..Limits::default() };
    render(store, &work, images::open_archive(store, id)?, &image.parsed, known, limits)?;
    sync_file_system(work.path())?;
    let _lock = store.lock_images()?;
    place(store, &work, id)
}

/// Renders an archive, and what it depends on, to `tree` in the working directory. Gives back the ids of the images
/// that it depends on, in the order in which they are met; `known` are those of an earlier time.
pub(crate) fn render(
    store: &Store,
    work: &TemporaryDir,
    archive: impl Read,
    manifest: &ImageManifest,
    known: Option<VecDeque<ImageId>>,
    mut limits: Limits,
) -> Result<Vec<ImageId>> {
    let dir = work.path().join("tree");
    let root = dir.join("rootfs");
    make_dir(&root, 0o755)?;
    let fd = File::open(&root).context(|| format!("open {root:?}"))?;

    let mut plan = Plan { store, known, met: Vec::new(), steps: Vec::new() };
    let whitelists = plan.below(manifest, &[])?;
    let mut over = false;
    for (id, whitelists) in &plan.steps {
        let whitelists: Vec<&Whitelist> = whitelists.iter().map(Rc::as_ref).collect();
        let archive = images::open_archive(store, id)?;
        unpack_over(archive, fd.as_fd(), &mut limits, &whitelists, over).context(|| format!("image {}", id.short()))?;
        over = true;
    }
    let whitelists: Vec<&Whitelist> = whitelists.iter().map(Rc::as_ref).collect();
    let mut archive = archive;
    unpack_over(&mut archive, fd.as_fd(), &mut limits, &whitelists, over)?;
    // a damage behind the archive's end is one, too
    std::io::copy(&mut archive, &mut std::io::sink()).context(|| "read the archive")?;
    note(&dir, &root)?;
    Ok(plan.met)
}

/// Writes the list of a tree beside it.
fn note(dir: &Path, root: &Path) -> Result<()> {
    let path = dir.join("sums");
    let shown = || format!("write {path:?}");
    let mut out = BufWriter::new(File::create_new(&path).context(shown)?);
    let newest = tree_list::write(root, &mut out)?;
    out.flush().context(shown)?;
    let info = Info { sums: crate::fsutil::digest::of_file(&path)?, newest };
    let path = dir.join("info");
    std::fs::write(&path, serde_json::to_vec(&info).context(|| "write tree info")?)
        .context(|| format!("write {path:?}"))
}

/// Puts the tree in the working directory into the store; the caller holds the lock. What is there is moved aside if
/// a pod uses it.
pub(crate) fn place(store: &Store, work: &TemporaryDir, id: &ImageId) -> Result<()> {
    make_dir(&store.trees(), PRIVATE)?;
    let (from, to) = (work.path().join("tree"), directory(store, id.as_str()));
    if to.exists() {
        let old = if images::users(store)?.contains_key(id.as_str()) {
            store.trees().join(format!("{id}.old-{}", uuid::Uuid::new_v4()))
        } else {
            work.path().join("old-tree")
        };
        std::fs::rename(&to, &old).context(|| format!("rename {to:?} to {old:?}"))?;
    }
    std::fs::rename(&from, &to).context(|| format!("rename {from:?} to {to:?}"))?;
    crate::fsutil::dir::sync_dir(&store.trees())
}

struct Plan<'a> {
    store: &'a Store,
    /// Which images were met when this was planned before.
    known: Option<VecDeque<ImageId>>,
    met: Vec<ImageId>,
    /// What is unpacked, the lowest first.
    steps: Vec<(ImageId, Vec<Rc<Whitelist>>)>,
}

impl Plan<'_> {
    /// Plans what goes below an image. Gives back the whitelists for the image itself.
    fn below(&mut self, manifest: &ImageManifest, above: &[Rc<Whitelist>]) -> Result<Vec<Rc<Whitelist>>> {
        let mut whitelists = above.to_vec();
        whitelists.extend(Whitelist::new(&manifest.path_whitelist)?.map(Rc::new));
        for dependency in &manifest.dependencies {
            let id = match &mut self.known {
                Some(known) => known.pop_front().context(|| "the store's note of its dependencies is damaged")?,
                None => images::find_dependency(self.store, dependency)?,
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
