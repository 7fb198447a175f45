//! A checked directory: the files in `rootfs`, their list `sums` ([`crate::image::tree::list`]), and the record `info`.
//! Layers and trees are checked directories.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stage1::error::{Context, Error, Result};

use crate::fsutil::digest;
use crate::image::archive::Hashes;
use crate::image::tree::list as manifest;
use crate::image::tree::list::Newest;

/// The record `info` of a checked directory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DirRecord {
    /// The SHA-256 of the list.
    pub(crate) sums: String,
    /// The newest status change of a file when the directory was made.
    pub(crate) newest: Newest,
    /// For a tree, the names of the layers that it lies on, the lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<String>,
    /// For a layer, the total size of its files, in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) size: u64,
    /// For a layer, whether it has directories that its archive does not describe; then it can only be the lowest.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) implied: bool,
    /// For a layer, whether its archive describes the root.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) root: bool,
}

// serde's skip_serializing_if passes references
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The path of the files of a checked directory.
pub(crate) fn rootfs(dir: &Path) -> PathBuf {
    dir.join("rootfs")
}

/// Writes the list of `dir`, then the record: `info` with the list's hash and the newest change. `hashes` has the
/// hashes of files that are known already.
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

/// The record of `dir`; `None` if it is missing or damaged.
///
/// # Errors
/// The file can't be read.
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

/// The quick check: whether list and record exist, and some files, others each time, are there and unchanged. It reads
/// the list at `places` random places. Returns the first fault.
///
/// # Errors
/// A file can't be read for a reason other than damage.
pub(crate) fn quick_fault(dir: &Path, places: usize) -> Result<Option<String>> {
    let Some((list, info)) = open(dir)? else { return Ok(Some("it is not whole".into())) };
    manifest::probe(&rootfs(dir), &list, info.newest, places)
}

/// The full check, which reads every byte. Returns the first fault.
///
/// # Errors
/// A file can't be read for a reason other than damage.
pub(crate) fn full_fault(dir: &Path) -> Result<Option<String>> {
    let Some((list, info)) = open(dir)? else { return Ok(Some("it is not whole".into())) };
    if digest::of_file(&dir.join("sums"))? != info.sums {
        return Ok(Some("its list is damaged".into()));
    }
    manifest::check(&rootfs(dir), list)
}
