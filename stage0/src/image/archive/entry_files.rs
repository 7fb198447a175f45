//! Making the files of an archive's entries, below the descriptor of one directory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use stage1::error::{Context, Error, Result};
use tar::EntryType;

use super::entries::Entry;
use super::hashes::{Hashes, Known};
use super::lower::{remove_lower, remove_lower_contents};
use super::metadata::Metadata;
use super::whiteouts::{OPAQUE, is_whiteout};
use super::xattrs::has_attributes;
use super::{MAX_DEPTH, UnpackLimits};
use crate::fsutil::space::Room;

/// The limit of the memory for metadata of directories that is not set yet, in bytes.
const PENDING_BYTES: usize = 256 << 20;
/// The devices that give no access to hardware or data: null, zero, full, random, urandom, tty and ptmx.
const HARMLESS: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];

/// The size of the blocks in which content is copied, in bytes.
const COPY_BYTES: usize = 1 << 17;

/// The most different warnings of [`warn_once`].
const MAX_WARNINGS: usize = 16;
pub(super) const NO_DEVICES: &str = "device nodes below /dev are left out: an app has a /dev of its own";
/// The warnings that were logged.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Logs a warning that may apply to many entries of many layers, once per process.
pub(super) fn warn_once(text: String) {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() < MAX_WARNINGS && !told.contains(&text) {
        log::warn!("{text}");
        told.insert(text);
    }
}

/// Facts about a layer that is being unpacked alone.
#[derive(Default)]
pub(super) struct Standing {
    /// The directories that no entry has described yet.
    pub(super) implied: BTreeSet<PathBuf>,
    /// Whether an entry has described the root.
    pub(super) root: bool,
    pub(super) hashes: Hashes,
}

pub(super) struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    privileged: bool,
    /// The remaining limits.
    pub(super) limits: &'a mut UnpackLimits,
    /// Checks the free space of the disk.
    room: Room,
    /// The metadata of directories, set last, because making files in a directory changes it.
    directories: BTreeMap<PathBuf, Metadata>,
    /// The memory that `directories` takes, in bytes.
    pending: usize,
    /// The parent directory of the last entry.
    parent: Option<(PathBuf, OwnedFd)>,
    /// For blocks of content.
    buffer: Vec<u8>,
    /// Set for a layer that is unpacked alone.
    pub(super) alone: Option<Standing>,
    /// Set if lower layers are in the directory: the inodes that this archive has made or described.
    made: Option<BTreeSet<u64>>,
}

impl<'a> Unpacker<'a> {
    /// Unpacks into `root`; `over` says that it holds files of lower layers.
    pub(super) fn new(root: BorrowedFd<'a>, limits: &'a mut UnpackLimits, over: bool) -> Result<Self> {
        let mut directories = BTreeMap::new();
        if !over {
            directories.insert(PathBuf::new(), Metadata::of_implied());
        }
        let privileged = rustix::process::geteuid().is_root();
        let room = Room::of(root.try_clone_to_owned().context(|| "dup")?);
        Ok(Self {
            root,
            privileged,
            limits,
            room,
            directories,
            pending: 0,
            parent: None,
            buffer: vec![0; COPY_BYTES],
            alone: None,
            made: over.then(BTreeSet::new),
        })
    }

    /// Makes the file of an entry at `path`; `target` resolves the target of a hard link.
    pub(super) fn entry(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
        path: &Path,
        target: fn(&[u8]) -> Result<PathBuf>,
    ) -> Result<()> {
        let kind = entry.kind;
        if path.components().count() > MAX_DEPTH {
            return Err(Error::new(format!("deeper than {MAX_DEPTH} directories")));
        }
        self.room.take(entry.size)?;
        let metadata = Metadata::of(entry, self.privileged, |name| {
            warn_once(format!("the extended attribute {name:?} is not supported: left out"));
        })?;
        if self.leaves_out(entry, path) {
            return Ok(());
        }
        if let Some(alone) = self.alone.as_mut().filter(|_| kind == EntryType::Directory) {
            alone.implied.remove(path);
            alone.root |= path.as_os_str().is_empty();
        }
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return match kind {
                EntryType::Directory => self.describe(path, metadata),
                _ => Err(Error::new("the root of the image is not a directory")),
            };
        };
        self.enter_parent(path.parent().unwrap_or(Path::new("")))?;
        match kind {
            EntryType::Directory => {
                self.make_directory(&name)?;
                self.describe(path, metadata)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.make_file(entry, content, &name, &metadata)
            }
            EntryType::Link => self.make_hard_link(&entry.link, &name, target),
            EntryType::Symlink => {
                if entry.link.is_empty() {
                    return Err(Error::new("a symbolic link without a target"));
                }
                let target = OsStr::from_bytes(&entry.link);
                self.replacing(&name, |parent| fs::symlinkat(target, parent, &name))?.context(|| "symlinkat")?;
                self.finish_node(&name, &metadata)
            }
            EntryType::Fifo => self.make_node(&name, FileType::Fifo, 0, &metadata),
            EntryType::Char => self.make_node(&name, FileType::CharacterDevice, self.device(entry)?, &metadata),
            EntryType::Block => self.make_node(&name, FileType::BlockDevice, self.device(entry)?, &metadata),
            other => Err(Error::new(format!("unknown kind {:?} of entry", other.as_byte() as char))),
        }?;
        self.note(&name)
    }

    /// Whether to leave an entry out: a device below /dev, which an app's own /dev hides.
    fn leaves_out(&self, entry: &Entry, path: &Path) -> bool {
        let device = entry.device.filter(|_| matches!(entry.kind, EntryType::Char | EntryType::Block));
        let out = device.is_some_and(|(major, minor)| {
            path.starts_with("dev") && !self.limits.devices && !is_harmless(entry.kind, major, minor)
        });
        if out {
            warn_once(NO_DEVICES.into());
        }
        out
    }

    /// The number of a device; fails if it must not be made.
    fn device(&self, entry: &Entry) -> Result<u64> {
        let (major, minor) = entry.device.context(|| "a device node without a number")?;
        if !is_harmless(entry.kind, major, minor) && !self.limits.devices {
            let kind = if entry.kind == EntryType::Char { "character" } else { "block" };
            return Err(Error::new(format!(
                "the {kind} device {major}:{minor}, and device nodes are only taken when asked for (--devices)"
            )));
        }
        if !self.privileged {
            return Err(Error::new("a device node, which only root can make"));
        }
        Ok(fs::makedev(major, minor))
    }

    /// Records the metadata of a directory, to be set by [`Self::finish_directories`].
    fn describe(&mut self, path: &Path, metadata: Metadata) -> Result<()> {
        self.pending += metadata.bytes() + path.as_os_str().len();
        if self.pending > PENDING_BYTES {
            return Err(Error::new(format!("the directories of the archive take more than {PENDING_BYTES} bytes")));
        }
        self.directories.insert(path.to_owned(), metadata);
        Ok(())
    }

    /// Records that this archive has made or described `name`.
    fn note(&mut self, name: &OsStr) -> Result<()> {
        if self.made.is_none() {
            return Ok(());
        }
        let stat = fs::statat(self.parent(), name, AtFlags::SYMLINK_NOFOLLOW).context(|| "stat")?;
        self.made.get_or_insert_default().insert(stat.st_ino);
        Ok(())
    }

    /// Removes `hidden` of lower layers from a directory; for an opaque whiteout, all their files in it.
    pub(super) fn white_out(&mut self, directory: &Path, hidden: &OsStr) -> Result<()> {
        let opaque = match hidden.as_bytes() {
            b".wh..opq" => true,
            // metadata of aufs
            other if other.starts_with(b".wh.") => return Ok(()),
            b"" | b"." | b".." => return Err(Error::new("a whiteout of nothing")),
            _ => false,
        };
        if self.made.is_none() {
            return Ok(());
        }
        let dir = match open_directory(self.root, directory) {
            Ok(dir) => dir,
            // lower layers do not have the directory
            Err(Errno::NOENT | Errno::NOTDIR) if !opaque => return Ok(()),
            Err(Errno::NOENT) => return self.enter_parent(directory),
            other => other.context(|| format!("open directory {directory:?} inside the image"))?,
        };
        // records the directory's times, which the removal changes
        self.enter_parent(directory)?;
        let made = self.made.as_ref().unwrap_or(const { &BTreeSet::new() });
        if opaque {
            remove_lower_contents(dir.as_fd(), made, 0).map(drop)
        } else {
            remove_lower(dir.as_fd(), hidden, made, 0).map(drop)
        }
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or(self.root, |(_, fd)| fd.as_fd())
    }

    /// Makes `path` the parent directory of the next entry; makes missing directories.
    fn enter_parent(&mut self, path: &Path) -> Result<()> {
        if self.parent.as_ref().is_some_and(|(at, _)| at == path) {
            return Ok(());
        }
        self.keep_times(path)?;
        let dir = self.open_making(path)?;
        self.parent = Some((path.to_owned(), dir));
        Ok(())
    }

    /// Records the metadata of lower layers' directories in which files are about to change, so that it is restored.
    fn keep_times(&mut self, path: &Path) -> Result<()> {
        if self.made.is_none() {
            return Ok(());
        }
        for path in path.ancestors().filter(|path| !self.directories.contains_key(*path)).collect::<Vec<_>>() {
            if let Ok(dir) = open_directory(self.root, path) {
                let stat = fs::fstat(&dir).context(|| format!("stat {path:?}"))?;
                self.describe(path, Metadata::of_existing(&stat))?;
            }
        }
        Ok(())
    }

    fn open_making(&mut self, path: &Path) -> Result<OwnedFd> {
        match open_directory(self.root, path) {
            Err(Errno::NOENT) => {}
            other => return other.context(|| format!("open directory {path:?} inside the image")),
        }
        // the root exists, so the path has a name and a parent
        let (Some(name), Some(above)) = (path.file_name(), path.parent()) else {
            return Err(Error::new("the root of the image has vanished"));
        };
        let above = self.open_making(above)?;
        match fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                self.describe(path, Metadata::of_implied())?;
                if let Some(alone) = &mut self.alone {
                    alone.implied.insert(path.to_owned());
                }
            }
            Err(Errno::EXIST) => return Err(Error::new(format!("{path:?} is a link to nowhere, not a directory"))),
            Err(errno) => return Err(Error::caused_by(format!("mkdirat({path:?})"), errno)),
        }
        open_directory(self.root, path).context(|| format!("open directory {path:?} inside the image"))
    }

    /// Removes the file that an earlier entry, or a lower layer, made under this name.
    fn clear(&mut self, name: &OsStr) -> Result<()> {
        let removed = match fs::unlinkat(self.parent(), name, AtFlags::empty()) {
            Err(Errno::ISDIR) => fs::unlinkat(self.parent(), name, AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY) if self.made.is_some() => {
                let made = self.made.take().unwrap_or_default();
                let gone = remove_lower(self.parent(), name, &made, 0);
                self.made = Some(made);
                gone?.then_some(()).context(|| "comes twice, first as a directory with something in it")
            }
            Err(Errno::NOTEMPTY) => Err(Error::new("comes twice, first as a directory with something in it")),
            Err(errno) => Err(Error::caused_by(format!("unlinkat({name:?})"), errno)),
        }
    }

    /// Calls `make`; if the name exists, removes it and calls `make` again.
    fn replacing<T>(
        &mut self,
        name: &OsStr,
        make: impl Fn(BorrowedFd<'_>) -> std::result::Result<T, Errno>,
    ) -> Result<std::result::Result<T, Errno>> {
        match make(self.parent()) {
            Err(Errno::EXIST) => {
                self.clear(name)?;
                Ok(make(self.parent()))
            }
            made => Ok(made),
        }
    }

    fn make_directory(&mut self, name: &OsStr) -> Result<()> {
        // writable until its own mode is set, so that files can be made in it
        let mode = Mode::from_raw_mode(0o755);
        match fs::mkdirat(self.parent(), name, mode) {
            Err(Errno::EXIST) => {}
            made => return made.context(|| "mkdirat"),
        }
        let there = fs::statat(self.parent(), name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
            return Ok(());
        }
        let replaces = self.alone.is_some() && there.is_ok_and(|stat| is_whiteout(&stat));
        self.clear(name)?;
        fs::mkdirat(self.parent(), name, mode).context(|| "mkdirat")?;
        if replaces { self.make_opaque(name) } else { Ok(()) }
    }

    /// Makes overlayfs's mark for a whiteout: hides `hidden` in a directory; for an opaque whiteout, all files of lower
    /// layers in it.
    pub(super) fn mark_hidden(&mut self, directory: &Path, hidden: &OsStr) -> Result<()> {
        match hidden.as_bytes() {
            b".wh..opq" if directory.as_os_str().is_empty() => {
                return Err(Error::new("overlayfs has no mark for an opaque root"));
            }
            b".wh..opq" => {
                self.enter_parent(directory)?;
                return self.make_opaque(".".as_ref());
            }
            // metadata of aufs
            other if other.starts_with(b".wh.") => return Ok(()),
            b"" | b"." | b".." => return Err(Error::new("a whiteout of nothing")),
            _ => {}
        }
        self.enter_parent(directory)?;
        match fs::statat(self.parent(), hidden, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => self.make_opaque(hidden),
            // the file that this layer made under that name hides it
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                self.room.take(0)?;
                fs::mknodat(self.parent(), hidden, FileType::CharacterDevice, Mode::empty(), 0)
                    .context(|| "make a whiteout: mknodat")
            }
            Err(errno) => Err(Error::caused_by("stat", errno)),
        }
    }

    fn make_opaque(&self, name: &OsStr) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = fs::openat(self.parent(), name, flags, Mode::empty()).context(|| "open directory")?;
        fs::fsetxattr(&dir, OPAQUE, b"y", fs::XattrFlags::empty()).context(|| format!("fsetxattr({OPAQUE:?})"))
    }

    fn make_file(&mut self, entry: &Entry, content: &mut dyn Read, name: &OsStr, metadata: &Metadata) -> Result<()> {
        self.limits.bytes =
            self.limits.bytes.checked_sub(entry.size).context(|| "the files of the archive are larger than allowed")?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // set-user-ID bits are set last, after the owner
        let mode = metadata.mode & Mode::from_raw_mode(0o777);
        let file = self.replacing(name, |parent| fs::openat(parent, name, flags, mode))?.context(|| "create")?;
        // the hash of a sparse file covers its holes too: it is computed later, from disk
        let is_plain = entry.segments == [(0, entry.size)];
        let mut hasher = (is_plain && self.alone.is_some()).then(Sha256::new);
        let mut end = 0;
        for (offset, length) in &entry.segments {
            end = copy_sparse(content, file.as_fd(), *offset, *length, &mut self.buffer, hasher.as_mut())?.max(end);
        }
        if end != entry.size {
            fs::ftruncate(&file, entry.size).context(|| format!("ftruncate({})", entry.size))?;
        }
        let stat = fs::fstat(&file).context(|| "fstat")?;
        metadata.apply_to_new(file.as_fd(), &stat)?;
        if let Some(alone) = &mut self.alone {
            let is_bare = !has_attributes(file.as_fd()).context(|| "flistxattr")?;
            let hash = hasher.map(|hasher| Known { hash: hasher.finalize().into(), is_bare });
            alone.hashes.set(stat.st_ino, hash);
        }
        Ok(())
    }

    fn make_hard_link(&mut self, raw: &[u8], name: &OsStr, target: fn(&[u8]) -> Result<PathBuf>) -> Result<()> {
        let shown = || format!("hard link to {:?}", OsStr::from_bytes(raw));
        let target = target(raw).context(shown)?;
        let Some(target_name) = target.file_name() else {
            return Err(Error::new(format!("{}, which is the root", shown())));
        };
        let above = open_directory(self.root, target.parent().unwrap_or(Path::new(""))).context(shown)?;
        let stat = |dir: BorrowedFd<'_>, name: &OsStr| fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let found = stat(above.as_fd(), target_name).context(shown)?;
        if FileType::from_raw_mode(found.st_mode).is_dir() {
            return Err(Error::new(format!("{}, which is a directory", shown())));
        }
        if stat(self.parent(), name).is_ok_and(|at| (at.st_dev, at.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        self.clear(name)?;
        fs::linkat(&above, target_name, self.parent(), name, AtFlags::empty()).context(shown)
    }

    fn make_node(&mut self, name: &OsStr, kind: FileType, device: u64, metadata: &Metadata) -> Result<()> {
        if self.alone.is_some() && kind == FileType::CharacterDevice && device == 0 {
            return Err(Error::new("the device 0:0 would remove what lower layers have of that name"));
        }
        self.clear(name)?;
        fs::mknodat(self.parent(), name, kind, Mode::from_raw_mode(0o600), device).context(|| "mknodat")?;
        fs::chmodat(self.parent(), name, metadata.mode, AtFlags::empty()).context(|| "chmodat")?;
        self.finish_node(name, metadata)?;
        // chown(2) clears set-user-ID bits
        fs::chmodat(self.parent(), name, metadata.mode, AtFlags::empty()).context(|| "chmodat")
    }

    /// Sets owner and times by name, for files that can't be opened.
    fn finish_node(&self, name: &OsStr, metadata: &Metadata) -> Result<()> {
        if let Some((uid, gid)) = metadata.owner {
            fs::chownat(self.parent(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).context(|| "chownat")?;
        }
        fs::utimensat(self.parent(), name, &metadata.times, AtFlags::SYMLINK_NOFOLLOW).context(|| "utimensat")
    }

    /// Sets the metadata of all directories, the deepest first.
    pub(super) fn finish_directories(&mut self) -> Result<()> {
        self.parent = None;
        let mut directories: Vec<_> = std::mem::take(&mut self.directories).into_iter().collect();
        directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, metadata) in &directories {
            let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match fs::openat2(self.root, dot(path), how, Mode::empty(), inside()) {
                Ok(fd) => metadata.apply(fd.as_fd()).context(|| format!("directory {path:?}"))?,
                // a later entry has replaced the directory
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(Error::caused_by(format!("open directory {path:?}"), errno)),
            }
        }
        Ok(())
    }
}

pub(super) fn is_harmless(kind: EntryType, major: u32, minor: u32) -> bool {
    kind == EntryType::Char && HARMLESS.contains(&(major, minor))
}

fn inside() -> ResolveFlags {
    ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
}

fn open_directory(root: BorrowedFd<'_>, path: &Path) -> std::result::Result<OwnedFd, Errno> {
    fs::openat2(root, dot(path), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), inside())
}

/// `.` for the empty path, which is the root.
fn dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Copies exactly `size` bytes to the offset `at`; blocks of zeros become holes. Returns the offset after the last
/// block that was written, or 0 if none was.
fn copy_sparse(
    from: &mut dyn Read,
    to: BorrowedFd<'_>,
    at: u64,
    size: u64,
    buffer: &mut [u8],
    mut hasher: Option<&mut Sha256>,
) -> Result<u64> {
    let mut offset = 0;
    let mut end = 0;
    while offset < size {
        let want = (size - offset).min(buffer.len() as u64) as usize;
        from.read_exact(&mut buffer[..want]).context(|| format!("read the content, at {offset}"))?;
        let mut block = &buffer[..want];
        hasher.iter_mut().for_each(|hasher| hasher.update(block));
        if block.iter().any(|byte| *byte != 0) {
            let mut at = at + offset;
            while !block.is_empty() {
                let n = rustix::io::pwrite(to, block, at).context(|| "write")?;
                block = &block[n..];
                at += n as u64;
            }
            end = at;
        }
        offset += want as u64;
    }
    Ok(end)
}
