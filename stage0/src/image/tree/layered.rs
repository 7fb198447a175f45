//! Making the tree of an image with layers again, and an application container image of all its layers.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};

use stage1::error::{Context, Error, Result};

use crate::fsutil::dir::{make_dir, sync_file_system};
use crate::image::archive;
use crate::image::archive::{Hashes, ImageId};
use crate::image::oci::config;
use crate::image::overlay_lookup::Merged;
use crate::image::store as images;
use crate::image::store::directory;
use crate::image::tree::checked_dir;
use crate::image::tree::image_layer;
use crate::image::tree::layer_store;
use crate::image::tree::location as trees;
use crate::store::Store;

/// The uncompressed archive of an image; for an image with layers a new one, packed from all of them. Reading a stored
/// archive to its end fails if its hash is not the image's id.
///
/// # Errors
/// The archive is missing, or can't be packed because the tree or a layer is damaged or the disk is full.
pub(crate) fn open_archive(store: &Store, id: &ImageId) -> Result<Box<dyn Read>> {
    match id.is_of_config() {
        true => packed(store, id).map(|file| Box::new(file) as Box<dyn Read>),
        false => images::open_archive(store, id).map(|archive| Box::new(archive) as Box<dyn Read>),
    }
}

/// Makes the tree of an image again that lies on its layers.
///
/// # Errors
/// The configuration or a layer is damaged, or the image is one tree without layers: only a new import repairs these.
/// Or the store can't be locked, read or written.
pub(crate) fn rebuild(store: &Store, id: &ImageId) -> Result<()> {
    let work = store.temporary_dir()?;
    let again = || format!("import or pull image {} again, which brings it back", id.short());
    let path = directory(store, id).join("config");
    let bytes = std::fs::read(&path).context(|| format!("read {path:?}"))?;
    if ImageId::of_config(&bytes) != *id {
        return Err(Error::new(format!("its configuration is damaged: {}", again())));
    }
    let config: config::Config = serde_json::from_slice(&bytes).context(|| "its configuration")?;
    let info = images::info(store, id)?;
    let stack: Vec<String> = info.layers.context(|| format!("it is one tree of all its layers: {}", again()))?;
    let mut described = None;
    for name in stack.iter().rev() {
        let dir = layer_store::directory(store, name);
        if let Some(fault) = checked_dir::quick_fault(&dir, trees::PROBES)? {
            return Err(Error::new(format!("{}; {}", trees::of_layer(name, &fault), again())));
        }
        if described.is_none() && checked_dir::info(&dir)?.is_some_and(|note| note.root) {
            described = Some(checked_dir::rootfs(&dir));
        }
    }
    let roots: Vec<PathBuf> =
        stack.iter().rev().map(|name| checked_dir::rootfs(&layer_store::directory(store, name))).collect();
    let files = Merged::open(roots.iter().map(PathBuf::as_path))?;
    let tree = work.path().join("tree");
    let rootfs = checked_dir::rootfs(&tree);
    make_dir(&rootfs, 0o755)?;
    image_layer::make(&files, described.as_deref(), Path::new(&config::working_directory(&config)), &rootfs)?;
    checked_dir::write(
        &tree,
        &Hashes::default(),
        checked_dir::DirRecord { layers: stack, ..checked_dir::DirRecord::default() },
    )?;
    sync_file_system(work.path())?;
    let _lock = store.lock_images()?;
    trees::place(store, &work, id)
}

/// Packs an image with layers into an application container image, a file that is deleted when it is closed.
fn packed(store: &Store, id: &ImageId) -> Result<File> {
    let work = store.temporary_dir()?;
    let image = images::load(store, id)?;
    let root = work.path().join("merged");
    make_dir(&root, 0o755)?;
    {
        // so that no process removes the tree or a layer meanwhile
        let _lock = store.share_images()?;
        if let Some(fault) = trees::quick_fault(store, id)? {
            let short = id.short();
            return Err(Error::new(format!("{fault}; \"podctl image verify {short}\" mends it if it can")));
        }
        trees::copy_stack(&trees::stack(store, id.as_str())?, &root, None)?;
    }
    let path = work.path().join("packed");
    let shown = || format!("write {path:?}");
    let mut out = BufWriter::with_capacity(1 << 17, File::create_new(&path).context(shown)?);
    archive::pack(&image.manifest, &root, &mut out, true)?;
    out.into_inner().context(shown)?;
    File::open(&path).context(|| format!("open {path:?}"))
}
