//! The tree store: images rendered to directories, once, as the lower layers of all pods that use them.
//!
//! `trees/<id>/rootfs`; the id of a tree is its image's. A tree appears whole, by one rename.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use stage1::error::{Context, Result};

use crate::archive::{ImageId, Limits, unpack};
use crate::images;
use crate::store::{PRIVATE, Store, TemporaryDir, make_dir, sync_file_system};

/// The root file system of a rendered tree; it is read-only for everybody.
pub fn rootfs(store: &Store, tree: &str) -> PathBuf {
    store.trees().join(tree).join("rootfs")
}

/// Makes sure that the tree of an image is there. Gives back the tree's id.
///
/// # Errors
/// The image's archive is missing or damaged.
pub fn ensure(store: &Store, id: &ImageId) -> Result<String> {
    if !rootfs(store, id.as_str()).exists() {
        let work = store.temporary_dir()?;
        let _lock = store.lock_images()?;
        render(store, &work, images::open_archive(store, id)?, id)
            .context(|| format!("render image {}", id.short()))?;
    }
    Ok(id.as_str().to_owned())
}

/// Renders an archive that is not in the store yet; the caller holds the lock. Gives back the image's manifest.
pub(crate) fn render_archive(store: &Store, work: &TemporaryDir, archive: &Path, id: &ImageId) -> Result<Vec<u8>> {
    let file = File::open(archive).context(|| format!("open {archive:?}"))?;
    render(store, work, BufReader::with_capacity(1 << 17, file), id)
}

fn render(store: &Store, work: &TemporaryDir, archive: impl Read, id: &ImageId) -> Result<Vec<u8>> {
    let dir = work.path().join("tree");
    let root = dir.join("rootfs");
    make_dir(&root, 0o755)?;
    let fd = File::open(&root).context(|| format!("open {root:?}"))?;
    let manifest = unpack(archive, fd.as_fd(), Limits::default())?;
    make_dir(&store.trees(), PRIVATE)?;
    let to = store.trees().join(id.as_str());
    if !to.exists() {
        sync_file_system(&dir)?;
        std::fs::rename(&dir, &to).context(|| format!("rename {dir:?} to {to:?}"))?;
        sync_file_system(&to)?;
    }
    Ok(manifest)
}
