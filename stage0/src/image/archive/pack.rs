//! Packing a manifest and a directory into an image archive. The same tree always gives the same bytes.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use stage1::error::{Context, Error, Result};
use stage1::uid_range::UidRange;
use tar::{Builder, EntryType, Header};

use super::MAX_DEPTH;
use super::entry_files::{NO_DEVICES, is_harmless, warn_once};
use super::sparse::Sparse;
use super::xattrs::{is_kept, xattr, xattr_names};

/// Writes to `to` an archive with `manifest` and, below `rootfs/`, the tree at `directory`.
///
/// It sorts entries by name and keeps owners, modes, modification times (whole seconds), hard links, devices and
/// extended attributes. It leaves out sockets and the content of mount points; and below /dev all devices but null,
/// zero, full, random, urandom, tty and ptmx, unless `devices` is set.
///
/// # Errors
/// A file in the tree can't be read or is replaced or truncated meanwhile, directories are nested more than 512 deep,
/// or `to` can't be written.
pub fn pack(manifest: &[u8], directory: &Path, to: impl Write, devices: bool) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(directory, flags, Mode::empty()).context(|| format!("open directory {directory:?}"))?;
    Packer::new(to, devices).image(manifest, root)
}

/// [`pack`] for an open directory, with all devices, and with the holes of files as holes, wherever the file system has
/// them. With `ids`, owners are written as a user namespace with this UID range sees them.
///
/// # Errors
/// As [`pack`].
pub(crate) fn pack_image(
    manifest: &[u8],
    directory: BorrowedFd<'_>,
    ids: Option<UidRange>,
    to: impl Write,
) -> Result<()> {
    let root = directory.try_clone_to_owned().context(|| "dup")?;
    Packer { ids, holes: true, ..Packer::new(to, true) }.image(manifest, root)
}

/// Writes a tar archive with the entries `names` of a directory and all files below them, without sockets; the content
/// of mount points only if `mounts` is set. Holes of files stay holes. With `ids`, owners are written as a user
/// namespace with this UID range sees them.
///
/// # Errors
/// As [`pack`].
pub(crate) fn pack_files(
    directory: BorrowedFd<'_>,
    names: &[OsString],
    ids: Option<UidRange>,
    mounts: bool,
    to: impl Write,
) -> Result<()> {
    let mut packer = Packer::new(to, true);
    packer.ids = ids;
    packer.holes = true;
    packer.only_on = if mounts { None } else { Some(fs::fstat(directory).context(|| "fstat")?.st_dev) };
    names.iter().try_for_each(|name| packer.child(directory, name, Path::new(name)))?;
    packer.out.finish().context(|| "write the archive")
}

struct Packer<W: Write> {
    out: Builder<W>,
    /// The first name of each file with hard links, by device and inode.
    seen: HashMap<(u64, u64), PathBuf>,
    /// The only device (`st_dev`) whose directories are read; any if `None`.
    only_on: Option<u64>,
    /// Whether all device nodes below /dev are packed.
    devices: bool,
    /// The UID range to shift owners back from.
    ids: Option<UidRange>,
    /// Whether holes of files stay holes. Where they are depends on the file system, and with it the archive's bytes.
    holes: bool,
}

impl<W: Write> Packer<W> {
    fn new(to: W, devices: bool) -> Self {
        Self { out: Builder::new(to), seen: HashMap::new(), only_on: None, devices, ids: None, holes: false }
    }

    fn directory(&mut self, dir: OwnedFd, stat: &Stat, path: &Path) -> Result<()> {
        let shown = || format!("pack {path:?}");
        if path.components().count() > MAX_DEPTH + 1 {
            return Err(Error::new(format!("{}: deeper than {MAX_DEPTH} directories", shown())));
        }
        let records = self.xattrs(dir.as_fd()).context(shown)?;
        self.describe(&records).context(shown)?;
        let mut header = self.header(stat, EntryType::Directory);
        let mut name = path.as_os_str().to_owned();
        name.push("/");
        self.out.append_data(&mut header, &name, std::io::empty()).context(shown)?;
        if self.only_on.is_some_and(|device| device != stat.st_dev) {
            return Ok(());
        }
        for name in sorted_names(dir.as_fd()).context(shown)? {
            self.child(dir.as_fd(), &name, &path.join(&name))?;
        }
        Ok(())
    }

    fn child(&mut self, dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<()> {
        let shown = || format!("pack {path:?}");
        let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).context(shown)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !kind.is_dir() && stat.st_nlink > 1 {
            if let Some(first) = self.seen.get(&(stat.st_dev, stat.st_ino)) {
                let mut header = self.header(&stat, EntryType::Link);
                return self.out.append_link(&mut header, path, first).context(shown);
            }
            self.seen.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        let open = |flags| fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        match kind {
            FileType::Directory => {
                let child = open(OFlags::RDONLY | OFlags::DIRECTORY).context(shown)?;
                self.directory(child, &stat, path)
            }
            FileType::RegularFile => {
                let file = open(OFlags::RDONLY | OFlags::NONBLOCK).context(shown)?;
                // the status of the opened file: another file may have taken the name meanwhile
                let stat = fs::fstat(&file).context(shown)?;
                if !FileType::from_raw_mode(stat.st_mode).is_file() {
                    return Err(Error::new(format!("{}: another file has just replaced it", shown())));
                }
                let mut records = self.xattrs(file.as_fd()).context(shown)?;
                let size = stat.st_size.cast_unsigned();
                let sparse = if self.holes { Sparse::of(&file, size).context(shown)? } else { None };
                let file = std::fs::File::from(file);
                let Some(sparse) = sparse else {
                    self.describe(&records).context(shown)?;
                    let mut header = self.header(&stat, EntryType::Regular);
                    header.set_size(size);
                    return self.out.append_data(&mut header, path, Exactly { file, left: size }).context(shown);
                };
                records.extend(sparse.records(path));
                self.describe(&records).context(shown)?;
                // GNU tar takes the map for data in an entry that has its own magic
                let mut header = self.fill(Header::new_ustar(), &stat, EntryType::Regular);
                Sparse::name(&mut header, path, stat.st_ino).context(shown)?;
                let (stored, content) = sparse.content(file);
                header.set_size(stored);
                header.set_cksum();
                self.out.append(&header, content).context(shown)
            }
            FileType::Symlink => {
                let target = fs::readlinkat(dir, name, Vec::new()).context(shown)?;
                let mut header = self.header(&stat, EntryType::Symlink);
                let target = OsString::from_vec(target.into_bytes());
                self.out.append_link(&mut header, path, target).context(shown)
            }
            FileType::Fifo => self.node(path, self.header(&stat, EntryType::Fifo)),
            FileType::CharacterDevice => self.device(path, &stat, EntryType::Char),
            FileType::BlockDevice => self.device(path, &stat, EntryType::Block),
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    fn device(&mut self, path: &Path, stat: &Stat, kind: EntryType) -> Result<()> {
        let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        if path.starts_with("rootfs/dev") && !self.devices && !is_harmless(kind, major, minor) {
            warn_once(NO_DEVICES.into());
            return Ok(());
        }
        let mut header = self.header(stat, kind);
        let shown = || format!("pack device {path:?}");
        header.set_device_major(major).context(shown)?;
        header.set_device_minor(minor).context(shown)?;
        self.node(path, header)
    }

    fn node(&mut self, path: &Path, mut header: Header) -> Result<()> {
        self.out.append_data(&mut header, path, std::io::empty()).context(|| format!("pack {path:?}"))
    }

    /// Writes `manifest` and, below `rootfs/`, the files of `root`.
    fn image(mut self, manifest: &[u8], root: OwnedFd) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(manifest.len() as u64);
        header.set_entry_type(EntryType::Regular);
        self.out.append_data(&mut header, "manifest", manifest).context(|| "write the manifest")?;
        let stat = fs::fstat(&root).context(|| "fstat")?;
        self.only_on = Some(stat.st_dev);
        self.directory(root, &stat, Path::new("rootfs"))?;
        self.out.finish().context(|| "write the archive")
    }

    fn header(&self, stat: &Stat, kind: EntryType) -> Header {
        self.fill(Header::new_gnu(), stat, kind)
    }

    fn fill(&self, mut header: Header, stat: &Stat, kind: EntryType) -> Header {
        let seen = |id: u32| self.ids.and_then(|ids| ids.to_inside(id).ok()).unwrap_or(id);
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(seen(stat.st_uid).into());
        header.set_gid(seen(stat.st_gid).into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        header
    }

    /// The pax records of a file's extended attributes.
    fn xattrs(&self, fd: BorrowedFd<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        let mut attributes = Vec::new();
        for name in xattr_names(fd).context(|| "flistxattr")? {
            if is_kept(&name) {
                let mut value = xattr(fd, &name).context(|| format!("fgetxattr({name:?})"))?;
                if let Some(ids) = self.ids {
                    unshift_capability(&name, &mut value, ids);
                }
                attributes.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        attributes.sort();
        Ok(attributes)
    }

    /// Writes pax records of the next entry.
    fn describe(&mut self, records: &[(String, Vec<u8>)]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let records = records.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.out.append_pax_extensions(records).context(|| "write pax records")
    }
}

/// Turns file capabilities that belong to the root of this user namespace (version 3 in capabilities(7)) into plain
/// ones (version 2).
fn unshift_capability(name: &str, value: &mut Vec<u8>, ids: UidRange) {
    let is_its =
        name == "security.capability" && value.len() == 24 && value[3] == 3 && value[20..] == ids.first.to_le_bytes();
    if is_its {
        value[3] = 2;
        value.truncate(20);
    }
}

/// Reads exactly `left` bytes of a file, as its header says; fails if the file has become shorter.
struct Exactly {
    file: std::fs::File,
    left: u64,
}

impl std::io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read(&mut buffer[..want])?;
        if n == 0 && want > 0 {
            return Err(std::io::Error::other("the file has just become shorter"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// The names of a directory's entries, in the order of their bytes.
pub(crate) fn sorted_names(dir: BorrowedFd<'_>) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).context(|| "read directory")? {
        let name = entry.context(|| "read directory")?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}
