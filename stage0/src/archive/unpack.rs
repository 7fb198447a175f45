//! Taking an image archive apart into a directory that nothing can leave.
//!
//! Every path is resolved by the kernel inside the root file system being made (`openat2` with `RESOLVE_IN_ROOT`),
//! so neither `..` nor an absolute name nor a symbolic link in the archive reaches anything outside of it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};
use tar::{Archive, Entry, EntryType};

use super::Limits;

/// An image manifest beyond this is refused.
const MANIFEST_BYTES: u64 = 4 << 20;

/// Unpacks the archive `source` (uncompressed): `rootfs/…` below `root`, which is an empty directory; the manifest
/// is handed back.
///
/// Owners, modes (with the setuid bits), modification times, extended attributes and hard links are kept. Device
/// nodes are made, which takes root. Of an entry that comes twice the last one counts.
///
/// # Errors
/// The archive is damaged, goes beyond `limits`, has no manifest or no rootfs, or has an entry that can't be made as it says. What
/// was unpacked until then is left in `root`.
pub fn unpack(source: impl Read, root: BorrowedFd<'_>, limits: Limits) -> Result<Vec<u8>> {
    let mut unpacker = Unpacker {
        root,
        privileged: rustix::process::geteuid().is_root(),
        limits,
        directories: Vec::new(),
        parent: None,
    };
    let mut manifest = None;
    let mut has_rootfs = false;
    let mut archive = Archive::new(source);
    for entry in archive.entries().context(|| "read the archive")? {
        let mut entry = entry.context(|| "read the archive (is it a tar file?)")?;
        let raw = entry.path_bytes().into_owned();
        let shown = || format!("archive entry {:?}", OsStr::from_bytes(&raw));
        unpacker.limits.entries = unpacker
            .limits
            .entries
            .checked_sub(1)
            .context(|| format!("the archive has more than {} entries", limits.entries))?;
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            continue;
        }
        match place(&raw).context(shown)? {
            Place::Root => {}
            Place::Manifest => manifest = Some(read_manifest(&mut entry).context(shown)?),
            Place::Rootfs(path) => {
                has_rootfs = true;
                unpacker.entry(&mut entry, &path).context(shown)?;
            }
        }
    }
    unpacker.finish_directories()?;
    if !has_rootfs {
        return Err(Error::new("the archive has no rootfs"));
    }
    manifest.context(|| "the archive has no manifest")
}

/// Where in the image an archive entry belongs.
#[derive(Debug, PartialEq)]
enum Place {
    Root,
    Manifest,
    /// Below the root file system; empty for the root itself.
    Rootfs(PathBuf),
}

fn place(raw: &[u8]) -> Result<Place> {
    let mut parts = normal_components(raw)?.into_iter();
    let Some(first) = parts.next() else { return Ok(Place::Root) };
    let rest: PathBuf = parts.collect();
    match first.as_bytes() {
        b"manifest" if rest.as_os_str().is_empty() => Ok(Place::Manifest),
        b"rootfs" => Ok(Place::Rootfs(rest)),
        _ => Err(Error::new("neither the manifest nor below rootfs/")),
    }
}

/// The components of a path in an archive; a leading `./` or `/` is ignored, `..` is an error.
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

fn read_manifest(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>> {
    if !entry.header().entry_type().is_file() {
        return Err(Error::new("not a regular file"));
    }
    if entry.size() > MANIFEST_BYTES {
        return Err(Error::new(format!("larger than {MANIFEST_BYTES} bytes")));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).context(|| "read")?;
    Ok(bytes)
}

/// What of an entry's header is set on what is made.
struct Metadata {
    mode: Mode,
    owner: Option<(Uid, Gid)>,
    times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Metadata {
    fn of(entry: &mut Entry<'_, impl Read>, privileged: bool) -> Result<Self> {
        let header = entry.header();
        let mode = Mode::from_raw_mode(header.mode().context(|| "mode")? & 0o7777);
        let id = |what: &str, value: io::Result<u64>| -> Result<u32> {
            let value = value.context(|| what.to_owned())?;
            u32::try_from(value).ok().filter(|id| *id != u32::MAX).context(|| format!("{what} {value} is not an id"))
        };
        let owner = (id("uid", header.uid())?, id("gid", header.gid())?);
        let seconds = header.mtime().context(|| "modification time")?;
        let stamp =
            Timespec { tv_sec: i64::try_from(seconds).context(|| format!("modification time {seconds}"))?, tv_nsec: 0 };
        Ok(Self {
            mode,
            owner: privileged.then(|| (Uid::from_raw(owner.0), Gid::from_raw(owner.1))),
            times: Timestamps { last_access: stamp, last_modification: stamp },
            xattrs: xattrs(entry)?,
        })
    }

    /// Sets all of it; the owner first, for a change of owner clears setuid bits and capabilities.
    fn apply(&self, fd: BorrowedFd<'_>) -> Result<()> {
        if let Some((uid, gid)) = self.owner {
            fs::fchown(fd, Some(uid), Some(gid)).context(|| format!("fchown({uid}, {gid})"))?;
        }
        fs::fchmod(fd, self.mode).context(|| format!("fchmod({:o})", self.mode))?;
        for (name, value) in &self.xattrs {
            fs::fsetxattr(fd, name.as_str(), value, fs::XattrFlags::empty())
                .context(|| format!("fsetxattr({name:?})"))?;
        }
        fs::futimens(fd, &self.times).context(|| "futimens")
    }
}

/// The extended attributes that an entry asks for and may have.
fn xattrs(entry: &mut Entry<'_, impl Read>) -> Result<Vec<(String, Vec<u8>)>> {
    let Some(extensions) = entry.pax_extensions().context(|| "pax header")? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for extension in extensions {
        let extension = extension.context(|| "pax header")?;
        let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") else { continue };
        let name = std::str::from_utf8(name).context(|| "name of an extended attribute")?;
        match name.split_once('.') {
            Some(("user", _)) => {}
            // the kernel computes or replaces these by its own policy
            Some(("security", rest)) if rest != "capability" => continue,
            Some(("security", _)) => {}
            Some(("system", "posix_acl_access" | "posix_acl_default")) => {}
            // overlayfs reads its own trusted attributes: they would redirect it out of the image
            _ => return Err(Error::new(format!("extended attribute {name:?} is not allowed in an image"))),
        }
        found.push((name.to_owned(), extension.value_bytes().to_vec()));
    }
    Ok(found)
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    privileged: bool,
    /// What is left of the limits.
    limits: Limits,
    /// Directories get their metadata last: files are still made in them.
    directories: Vec<(PathBuf, Metadata)>,
    /// The directory that the last entry went into.
    parent: Option<(PathBuf, OwnedFd)>,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<()> {
        let kind = entry.header().entry_type();
        let metadata = Metadata::of(entry, self.privileged)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return match kind {
                EntryType::Directory => {
                    self.directories.push((PathBuf::new(), metadata));
                    Ok(())
                }
                _ => Err(Error::new("rootfs is not a directory")),
            };
        };
        self.enter_parent(path.parent().unwrap_or(Path::new("")))?;
        match kind {
            EntryType::Directory => {
                self.make_directory(&name)?;
                self.directories.push((path.to_owned(), metadata));
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.clear(&name)?;
                self.make_file(entry, &name, &metadata)
            }
            EntryType::Link => self.make_hard_link(entry, &name),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context(|| "symbolic link without a target")?.into_owned();
                self.clear(&name)?;
                fs::symlinkat(OsStr::from_bytes(&target), self.parent(), &name).context(|| "symlinkat")?;
                self.finish_node(&name, &metadata)
            }
            EntryType::Fifo => self.make_node(&name, FileType::Fifo, 0, &metadata),
            EntryType::Char | EntryType::Block if !self.privileged => {
                Err(Error::new("a device node, which only root can make"))
            }
            EntryType::Char => self.make_node(&name, FileType::CharacterDevice, device(entry)?, &metadata),
            EntryType::Block => self.make_node(&name, FileType::BlockDevice, device(entry)?, &metadata),
            other => Err(Error::new(format!("unknown kind {:?} of entry", other.as_byte() as char))),
        }
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or(self.root, |(_, fd)| fd.as_fd())
    }

    /// Makes the directory `path` the one that entries are made in; missing ones are made on the way.
    fn enter_parent(&mut self, path: &Path) -> Result<()> {
        if self.parent.as_ref().is_some_and(|(at, _)| at == path) {
            return Ok(());
        }
        self.parent = Some((path.to_owned(), self.open_making(path)?));
        Ok(())
    }

    fn open_making(&self, path: &Path) -> Result<OwnedFd> {
        match open_directory(self.root, path) {
            Err(Errno::NOENT) => {}
            other => return other.context(|| format!("open directory {path:?} inside the image")),
        }
        // only reached below the root, which exists: there is a name and a parent
        let (Some(name), Some(above)) = (path.file_name(), path.parent()) else {
            return Err(Error::new("the root of the image has vanished"));
        };
        let above = self.open_making(above)?;
        match fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Error::new(format!("{path:?} is a link to nowhere, not a directory"))),
            Err(errno) => return Err(Error::caused_by(format!("mkdirat({path:?})"), errno)),
        }
        open_directory(self.root, path).context(|| format!("open directory {path:?} inside the image"))
    }

    /// Removes what an earlier entry of the same name made.
    fn clear(&mut self, name: &OsStr) -> Result<()> {
        let removed = match fs::unlinkat(self.parent(), name, AtFlags::empty()) {
            Err(Errno::ISDIR) => fs::unlinkat(self.parent(), name, AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY) => Err(Error::new("comes twice, first as a directory with something in it")),
            Err(errno) => Err(Error::caused_by(format!("unlinkat({name:?})"), errno)),
        }
    }

    fn make_directory(&mut self, name: &OsStr) -> Result<()> {
        let there = fs::statat(self.parent(), name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
            return Ok(());
        }
        self.clear(name)?;
        // writable until its metadata is set, so that files can be made in it
        fs::mkdirat(self.parent(), name, Mode::from_raw_mode(0o755)).context(|| "mkdirat")
    }

    fn make_file(&mut self, entry: &mut Entry<'_, impl Read>, name: &OsStr, metadata: &Metadata) -> Result<()> {
        let size = entry.size();
        self.limits.bytes =
            self.limits.bytes.checked_sub(size).context(|| "the files of the archive are larger than allowed")?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(self.parent(), name, flags, Mode::from_raw_mode(0o600)).context(|| "create")?;
        copy_sparse(entry, file.as_fd(), size)?;
        metadata.apply(file.as_fd())
    }

    fn make_hard_link(&mut self, entry: &mut Entry<'_, impl Read>, name: &OsStr) -> Result<()> {
        let raw = entry.link_name_bytes().context(|| "hard link without a target")?.into_owned();
        let shown = || format!("hard link to {:?}", OsStr::from_bytes(&raw));
        let Place::Rootfs(target) = place(&raw).context(shown)? else {
            return Err(Error::new(format!("{}, which is outside rootfs/", shown())));
        };
        let Some(target_name) = target.file_name() else {
            return Err(Error::new(format!("{}, which is the root", shown())));
        };
        let above = open_directory(self.root, target.parent().unwrap_or(Path::new(""))).context(shown)?;
        let stat = |dir: BorrowedFd<'_>, name: &OsStr| fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let found = stat(above.as_fd(), target_name).context(shown)?;
        if stat(self.parent(), name).is_ok_and(|at| (at.st_dev, at.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        self.clear(name)?;
        fs::linkat(&above, target_name, self.parent(), name, AtFlags::empty()).context(shown)
    }

    fn make_node(&mut self, name: &OsStr, kind: FileType, device: u64, metadata: &Metadata) -> Result<()> {
        self.clear(name)?;
        fs::mknodat(self.parent(), name, kind, Mode::from_raw_mode(0o600), device).context(|| "mknodat")?;
        fs::chmodat(self.parent(), name, metadata.mode, AtFlags::empty()).context(|| "chmodat")?;
        self.finish_node(name, metadata)?;
        // a change of owner clears setuid bits
        fs::chmodat(self.parent(), name, metadata.mode, AtFlags::empty()).context(|| "chmodat")
    }

    /// Owner and times of what can't be opened to set them.
    fn finish_node(&self, name: &OsStr, metadata: &Metadata) -> Result<()> {
        if let Some((uid, gid)) = metadata.owner {
            fs::chownat(self.parent(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context(|| "chownat")?;
        }
        fs::utimensat(self.parent(), name, &metadata.times, AtFlags::SYMLINK_NOFOLLOW).context(|| "utimensat")
    }

    /// Sets the metadata of directories, the deepest first, as setting a child's changes its parent's times.
    fn finish_directories(&mut self) -> Result<()> {
        self.parent = None;
        let mut directories = std::mem::take(&mut self.directories);
        directories.sort_by_key(|(path, _)| path.components().count());
        for (path, metadata) in directories.iter().rev() {
            let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match fs::openat2(self.root, dot(path), how, Mode::empty(), inside()) {
                Ok(fd) => metadata.apply(fd.as_fd()).context(|| format!("directory {path:?}"))?,
                // a later entry has put something else there
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(Error::caused_by(format!("open directory {path:?}"), errno)),
            }
        }
        Ok(())
    }
}

fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

fn open_directory(root: BorrowedFd<'_>, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    fs::openat2(root, dot(path), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), inside())
}

/// The root itself has no name: `.`
fn dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn device(entry: &Entry<'_, impl Read>) -> Result<u64> {
    let number = |what: &str, value: io::Result<Option<u32>>| -> Result<u32> {
        value.context(|| what.to_owned())?.context(|| format!("a device node without a {what} number"))
    };
    let header = entry.header();
    Ok(fs::makedev(number("major", header.device_major())?, number("minor", header.device_minor())?))
}

/// Copies exactly `size` bytes; what is zero for a whole block becomes a hole.
fn copy_sparse(from: &mut impl Read, to: BorrowedFd<'_>, size: u64) -> Result<()> {
    let mut buffer = vec![0; size.clamp(1, 1 << 16) as usize];
    let mut offset = 0;
    while offset < size {
        let want = (size - offset).min(buffer.len() as u64) as usize;
        match from.read_exact(&mut buffer[..want]) {
            Ok(()) => {}
            Err(error) => return Err(Error::caused_by(format!("the archive ends within a file, at {offset}"), error)),
        }
        let mut block = &buffer[..want];
        if block.iter().any(|byte| *byte != 0) {
            let mut at = offset;
            while !block.is_empty() {
                let n = rustix::io::pwrite(to, block, at).context(|| "write")?;
                block = &block[n..];
                at += n as u64;
            }
        }
        offset += want as u64;
    }
    fs::ftruncate(to, size).context(|| format!("ftruncate({size})"))
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
