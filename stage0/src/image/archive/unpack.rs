//! Unpacking an image archive into a directory, without ever leaving the directory.
//!
//! The kernel resolves every path inside the new root file system (openat2(2) with `RESOLVE_IN_ROOT`), so no `..`,
//! absolute name or symbolic link in the archive reaches a file outside.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use stage1::error::{Context, Error, Result};
use tar::EntryType;

use super::UnpackLimits;
use super::entries::{Entries, Entry};
use super::entry_files::{Standing, Unpacker};
use super::hashes::Hashes;

/// The size limit of an image manifest, in bytes.
const MANIFEST_BYTES: u64 = 4 << 20;

/// The only paths that an image and its dependencies may bring (`pathWhitelist` in appc), with their parent
/// directories.
#[derive(Debug, Default)]
pub struct Whitelist(HashSet<PathBuf>);

impl Whitelist {
    /// Takes the absolute paths of a manifest; `None` if the list is empty, which allows all paths.
    ///
    /// # Errors
    /// A path contains `..`.
    pub fn new(paths: &[String]) -> Result<Option<Self>> {
        let mut found = HashSet::from([PathBuf::new()]);
        for path in paths {
            let components = normal_components(path.as_bytes()).context(|| format!("pathWhitelist: {path:?}"))?;
            let whole: PathBuf = components.into_iter().collect();
            found.extend(whole.ancestors().map(Path::to_owned));
        }
        Ok((!paths.is_empty()).then_some(Self(found)))
    }
}

/// Unpacks the uncompressed archive `source`: makes its `rootfs/…` in the empty directory `root`, and returns its
/// manifest.
///
/// It keeps owners (as root), modes with set-user-ID bits, modification times, extended attributes, hard links and
/// holes. It makes device nodes, which takes root, if `limits` allows them. A later entry replaces an earlier one of
/// the same name.
///
/// # Errors
/// The archive is damaged, exceeds `limits`, has no manifest or no rootfs, or has an entry that leaves the image or
/// can't be made. The files unpacked so far stay in `root`.
pub fn unpack(source: impl Read, root: BorrowedFd<'_>, mut limits: UnpackLimits) -> Result<Vec<u8>> {
    unpack_over(source, root, &mut limits, &[], false)
}

/// [`unpack`] over the files that are in `root` already if `over` is set. Leaves out paths that are not in all
/// `whitelists`. Subtracts what it unpacks from `limits`.
///
/// # Errors
/// As [`unpack`].
pub fn unpack_over(
    source: impl Read,
    root: BorrowedFd<'_>,
    limits: &mut UnpackLimits,
    whitelists: &[&Whitelist],
    over: bool,
) -> Result<Vec<u8>> {
    let mut unpacker = Unpacker::new(root, limits, over)?;
    let mut manifest = None;
    let mut has_rootfs = false;
    each_entry(source, &mut unpacker, |unpacker, entry, content| {
        match place(&entry.path)? {
            EntryTarget::Root => {}
            EntryTarget::Manifest => manifest = Some(read_manifest(entry, content)?),
            EntryTarget::Rootfs(path) => {
                has_rootfs = true;
                if whitelists.iter().all(|list| list.0.contains(&path)) {
                    unpacker.entry(entry, content, &path, in_rootfs)?;
                }
            }
        }
        Ok(())
    })?;
    unpacker.finish_directories()?;
    if !has_rootfs {
        return Err(Error::new("the archive has no rootfs"));
    }
    manifest.context(|| "the archive has no manifest")
}

/// The manifest of an uncompressed image archive.
///
/// # Errors
/// The archive is damaged, or has no manifest or one that is too large.
pub fn manifest(source: impl Read) -> Result<Vec<u8>> {
    let mut entries = Entries::new(source);
    let mut found = None;
    while let Some(entry) = entries.next_entry()? {
        if place(&entry.path).is_ok_and(|place| place == EntryTarget::Manifest) {
            let manifest = read_manifest(&entry, &mut entries.content()).context(|| "archive entry \"manifest\"")?;
            // a later entry replaces an earlier one
            found = Some(manifest);
        }
    }
    found.context(|| "the archive has no manifest")
}

/// Unpacks an uncompressed plain archive of a root file system into the empty directory `root`. Subtracts what it
/// unpacks from `limits`.
///
/// # Errors
/// The archive is empty, damaged or exceeds `limits`, or has an entry that leaves the image or can't be made.
pub fn unpack_plain(source: impl Read, root: BorrowedFd<'_>, limits: &mut UnpackLimits) -> Result<()> {
    let mut unpacker = Unpacker::new(root, limits, false)?;
    let mut is_empty = true;
    each_entry(source, &mut unpacker, |unpacker, entry, content| {
        is_empty = false;
        let path = normal_components(&entry.path)?.into_iter().collect::<PathBuf>();
        unpacker.entry(entry, content, &path, in_layer)
    })?;
    if is_empty {
        return Err(Error::new("the archive is empty"));
    }
    unpacker.finish_directories()
}

/// Unpacks an uncompressed archive of any files into the empty directory `root`. `check` is asked before each entry is
/// made.
///
/// # Errors
/// The archive is damaged or exceeds `limits`, `check` fails, or an entry leaves the directory or can't be made.
pub(crate) fn unpack_files(
    source: impl Read,
    root: BorrowedFd<'_>,
    mut limits: UnpackLimits,
    check: impl Fn(&Entry) -> Result<()>,
) -> Result<()> {
    let mut unpacker = Unpacker::new(root, &mut limits, false)?;
    each_entry(source, &mut unpacker, |unpacker, entry, content| {
        check(entry)?;
        let path = normal_components(&entry.path)?.into_iter().collect::<PathBuf>();
        unpacker.entry(entry, content, &path, in_layer)
    })?;
    unpacker.finish_directories()
}

/// The name that a whiteout at `path` removes (OCI image-spec, layer.md); `None` if it is not a whiteout.
fn whited_out(path: &Path) -> Option<&OsStr> {
    path.file_name()?.as_bytes().strip_prefix(b".wh.").map(OsStr::from_bytes)
}

/// Unpacks an uncompressed layer of an OCI image over the lower layers in `root`; whiteouts remove files of those.
/// `first` says that it is the lowest. Subtracts what it unpacks from `limits`.
///
/// # Errors
/// The archive is damaged or exceeds `limits`, or has an entry that leaves the image or can't be made.
pub fn unpack_layer(source: impl Read, root: BorrowedFd<'_>, limits: &mut UnpackLimits, first: bool) -> Result<()> {
    let mut unpacker = Unpacker::new(root, limits, !first)?;
    each_entry(source, &mut unpacker, |unpacker, entry, content| {
        let path = normal_components(&entry.path)?.into_iter().collect::<PathBuf>();
        match whited_out(&path) {
            None => unpacker.entry(entry, content, &path, in_layer),
            Some(hidden) => unpacker.white_out(path.parent().unwrap_or(Path::new("")), hidden),
        }
    })?;
    unpacker.finish_directories()
}

/// Facts about a layer that was unpacked alone.
#[derive(Debug, Default)]
pub struct Alone {
    /// Whether it has directories that its archive does not describe, so that their metadata depends on lower layers.
    pub implied: bool,
    /// Whether its archive describes the root.
    pub root: bool,
    /// The hashes of its files.
    pub hashes: Hashes,
}

/// Unpacks an uncompressed layer of an OCI image into the empty directory `root`, without the lower layers. Whiteouts
/// become overlayfs's marks. Computes the files' hashes on the way, and subtracts what it unpacks from `limits`.
///
/// # Errors
/// As [`unpack_layer`]; or an entry needs the lower layers: a hard link to one of their files, for example.
pub fn unpack_alone(source: impl Read, root: BorrowedFd<'_>, limits: &mut UnpackLimits) -> Result<Alone> {
    let mut unpacker = Unpacker::new(root, limits, false)?;
    unpacker.alone = Some(Standing::default());
    each_entry(source, &mut unpacker, |unpacker, entry, content| {
        let path = normal_components(&entry.path)?.into_iter().collect::<PathBuf>();
        match whited_out(&path) {
            None => unpacker.entry(entry, content, &path, in_layer),
            Some(hidden) => unpacker.mark_hidden(path.parent().unwrap_or(Path::new("")), hidden),
        }
    })?;
    unpacker.finish_directories()?;
    let standing = unpacker.alone.take().unwrap_or_default();
    Ok(Alone { implied: !standing.implied.is_empty(), root: standing.root, hashes: standing.hashes })
}

/// Calls `with` with every entry; adds the entry's name to its errors.
fn each_entry<'a, R: Read>(
    source: R,
    unpacker: &mut Unpacker<'a>,
    mut with: impl FnMut(&mut Unpacker<'a>, &Entry, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let allowed = unpacker.limits.entries;
    let mut entries = Entries::new(source);
    while let Some(entry) = entries.next_entry()? {
        unpacker.limits.entries = unpacker
            .limits
            .entries
            .checked_sub(1)
            .context(|| format!("the archive has more than {allowed} entries"))?;
        with(unpacker, &entry, &mut entries.content())
            .context(|| format!("archive entry {:?}", OsStr::from_bytes(&entry.path)))?;
    }
    Ok(())
}

/// The path of a hard link's target in an image archive, relative to the root file system.
fn in_rootfs(raw: &[u8]) -> Result<PathBuf> {
    match place(raw)? {
        EntryTarget::Rootfs(target) => Ok(target),
        _ => Err(Error::new("outside rootfs/")),
    }
}

/// The path of a hard link's target in a layer, relative to the root file system.
fn in_layer(raw: &[u8]) -> Result<PathBuf> {
    Ok(normal_components(raw)?.into_iter().collect())
}

/// The part of the image that an archive entry belongs to.
#[derive(Debug, PartialEq)]
enum EntryTarget {
    Root,
    Manifest,
    /// A path in the root file system; empty for the root itself.
    Rootfs(PathBuf),
}

fn place(raw: &[u8]) -> Result<EntryTarget> {
    let mut parts = normal_components(raw)?.into_iter();
    let Some(first) = parts.next() else { return Ok(EntryTarget::Root) };
    let rest: PathBuf = parts.collect();
    match first.as_bytes() {
        b"manifest" if rest.as_os_str().is_empty() => Ok(EntryTarget::Manifest),
        b"rootfs" => Ok(EntryTarget::Rootfs(rest)),
        _ => Err(Error::new("neither the manifest nor below rootfs/")),
    }
}

/// The components of a path in an archive, without a leading `./` or `/`; `..` is an error.
fn normal_components(raw: &[u8]) -> Result<Vec<OsString>> {
    Path::new(OsStr::from_bytes(raw))
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(Ok(name.to_owned())),
            Component::ParentDir => Some(Err(Error::new("leaves the image by \"..\""))),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn read_manifest(entry: &Entry, content: &mut dyn Read) -> Result<Vec<u8>> {
    if !matches!(entry.kind, EntryType::Regular | EntryType::Continuous) {
        return Err(Error::new("not a regular file"));
    }
    if entry.size > MANIFEST_BYTES {
        return Err(Error::new(format!("larger than {MANIFEST_BYTES} bytes")));
    }
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).context(|| "read")?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
