//! A directory of files with a note beside it: `rootfs`, the list of what is in it (`sums`, see
//! [`crate::image::tree::list`]), and `info`. Layers and trees are such.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stage1::error::{Context, Error, Result};

use crate::fsutil::digest;
use crate::image::archive::Hashes;
use crate::image::tree::list as manifest;
use crate::image::tree::list::Newest;

/// The record beside the list of a checked directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DirRecord {
    /// SHA-256 of the list.
    pub(crate) sums: String,
    /// The newest change in the directory when it was made.
    pub(crate) newest: Newest,
    /// Of a tree: digests of the layers that it lies on, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<String>,
    /// Of a layer: bytes of its files.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) size: u64,
    /// Of a layer: it has directories that its archive does not describe, and so can only be the lowest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) implied: bool,
    /// Of a layer: its archive describes the root.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) root: bool,
}

// serde hands over references
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Where the files of a checked directory are.
pub(crate) fn rootfs(dir: &Path) -> PathBuf {
    dir.join("rootfs")
}

/// Writes the list of `dir` and, with that, the note. `hashes` are those of files that are known already.
pub(crate) fn write(dir: &Path, hashes: &Hashes, info: DirRecord) -> Result<DirRecord> {
    let path = dir.join("sums");
    let shown = || format!("write {path:?}");
    let mut out = BufWriter::with_capacity(1 << 16, File::create_new(&path).context(shown)?);
    let newest = manifest::write(&rootfs(dir), hashes, &mut out)?;
    out.flush().context(shown)?;
    let info = DirRecord { sums: digest::of_file(&path)?, newest, ..info };
    let path = dir.join("info");
    std::fs::write(&path, serde_json::to_vec(&info).context(|| "write a note")?)
        .context(|| format!("write {path:?}"))?;
    Ok(info)
}

/// The note of `dir` alone; `None` if there is none, or it means nothing.
///
/// # Errors
/// It can't be read.
pub(crate) fn info(dir: &Path) -> Result<Option<DirRecord>> {
    let path = dir.join("info");
    match std::fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::caused_by(format!("read {path:?}"), error)),
    }
}

fn open(dir: &Path) -> Result<Option<(File, DirRecord)>> {
    let Some(info) = info(dir)? else { return Ok(None) };
    let path = dir.join("sums");
    match File::open(&path) {
        Ok(list) => Ok(Some((list, info))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::caused_by(format!("open {path:?}"), error)),
    }
}

/// What a quick look finds wrong: a missing file of the store's own, or one of some entries, others each time, that is
/// missing or has been changed. `places` of the list are looked at.
///
/// # Errors
/// The store can't be read.
pub(crate) fn quick_fault(dir: &Path, places: usize) -> Result<Option<String>> {
    let Some((list, info)) = open(dir)? else { return Ok(Some("it is not whole".into())) };
    manifest::probe(&rootfs(dir), &list, info.newest, places)
}

/// What is wrong, after a look at every byte.
///
/// # Errors
/// The store can't be read.
pub(crate) fn full_fault(dir: &Path) -> Result<Option<String>> {
    let Some((list, info)) = open(dir)? else { return Ok(Some("it is not whole".into())) };
    if digest::of_file(&dir.join("sums"))? != info.sums {
        return Ok(Some("its list is damaged".into()));
    }
    manifest::check(&rootfs(dir), list)
}
