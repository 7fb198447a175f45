//! Opening the files of an image layout by name (OCI image-spec, image-layout.md).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};

use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};
use stage1::error::{Context, Error, Result};
use tar::EntryType;

use crate::image::archive::Entries;

/// The most links to follow from one name.
const MAX_LINKS: usize = 8;
/// The most names in a tar file, which are kept in memory; a thousand layers have fewer.
const MAX_NAMES: usize = 20_000;

/// An image layout: a directory, or a tar file that is not unpacked.
#[derive(Debug)]
pub enum Layout {
    /// The open directory.
    Directory(OwnedFd),
    /// The open tar file, and its members by name.
    Tar(File, HashMap<String, ArchiveMember>),
}

/// A member of a tar file.
#[derive(Debug)]
pub enum ArchiveMember {
    /// A regular file: the offset and size of its content, in bytes.
    Content(u64, u64),
    /// A symbolic or hard link: the name of its target.
    Link(String),
}

impl Layout {
    /// Opens a directory.
    ///
    /// # Errors
    /// The path does not exist or is not a directory.
    pub fn in_directory(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::Directory(fs::open(path, flags, Mode::empty()).context(|| format!("open directory {path:?}"))?))
    }

    /// Reads the names in an uncompressed tar file.
    ///
    /// # Errors
    /// The file can't be read or is not a tar file, has more than 20000 names, a name that leaves the layout, or an
    /// entry that is not a file, directory or link.
    pub fn in_tar(file: File) -> Result<Self> {
        let mut names = HashMap::new();
        let mut entries = Entries::of_file(file.try_clone().context(|| "duplicate a descriptor")?)?;
        while let Some(entry) = entries.next_entry()? {
            let raw = String::from_utf8_lossy(&entry.path).into_owned();
            let shown = || format!("archive entry {raw:?}");
            let name = normal("", &raw).context(shown)?;
            let place = match entry.kind {
                EntryType::Regular | EntryType::Continuous if entry.segments == [(0, entry.size)] => {
                    ArchiveMember::Content(entries.position(), entry.size)
                }
                EntryType::Symlink => {
                    let above = name.rsplit_once('/').map_or("", |(above, _)| above);
                    ArchiveMember::Link(normal(above, &String::from_utf8_lossy(&entry.link)).context(shown)?)
                }
                EntryType::Link => {
                    ArchiveMember::Link(normal("", &String::from_utf8_lossy(&entry.link)).context(shown)?)
                }
                EntryType::Directory => continue,
                _ => return Err(Error::new(format!("{}: neither a file nor a link", shown()))),
            };
            names.insert(name, place);
            if names.len() > MAX_NAMES {
                return Err(Error::new(format!("the archive has more than {MAX_NAMES} files, too many for an image")));
            }
        }
        Ok(Self::Tar(file, names))
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// The file is missing, can't be opened, is not a regular file, or too many links lead to it.
    pub fn open(&self, name: &str) -> Result<Box<dyn Read + '_>> {
        match self {
            Self::Directory(_) => Ok(Box::new(self.open_in_directory(name)?)),
            Self::Tar(file, _) => {
                let (offset, size) = self.find_in_tar(name)?;
                Ok(Box::new(Part { file, offset, left: size }))
            }
        }
    }

    /// Fails unless the file exists and has the size in bytes, if one is given.
    ///
    /// # Errors
    /// As [`Self::size`], or the file has another size.
    pub fn must_have(&self, name: &str, size: Option<u64>) -> Result<()> {
        let found = self.size(name)?;
        match size {
            Some(size) if size != found => Err(Error::new(format!("{name:?} has {found} bytes, not {size}"))),
            _ => Ok(()),
        }
    }

    /// The size of a file, in bytes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn size(&self, name: &str) -> Result<u64> {
        match self {
            Self::Directory(_) => {
                Ok(self.open_in_directory(name)?.metadata().context(|| format!("stat {name:?}"))?.len())
            }
            Self::Tar(..) => Ok(self.find_in_tar(name)?.1),
        }
    }

    fn open_in_directory(&self, name: &str) -> Result<File> {
        let Self::Directory(dir) = self else { return Err(Error::new("not a directory")) };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file =
            fs::openat2(dir, name, flags, Mode::empty(), resolve).context(|| format!("open {name:?} in the image"))?;
        let stat = fs::fstat(&file).context(|| format!("stat {name:?}"))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Error::new(format!("{name:?} is not a regular file")));
        }
        Ok(file.into())
    }

    fn find_in_tar(&self, name: &str) -> Result<(u64, u64)> {
        let Self::Tar(_, names) = self else { return Err(Error::new("not an archive")) };
        let mut at = normal("", name)?;
        for _ in 0..MAX_LINKS {
            match names.get(&at) {
                Some(ArchiveMember::Content(offset, size)) => return Ok((*offset, *size)),
                Some(ArchiveMember::Link(to)) => at.clone_from(to),
                None => return Err(Error::new(format!("{name:?} is missing in the archive"))),
            }
        }
        Err(Error::new(format!("{name:?}: too many levels of links")))
    }
}

/// The path of `name`, relative to the directory `above`, with `.` and `..` resolved textually.
fn normal(above: &str, name: &str) -> Result<String> {
    let mut parts: Vec<String> = above.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => parts.pop().map(drop).context(|| "leaves the image by \"..\"")?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err(Error::new("an absolute name")),
        }
    }
    Ok(parts.join("/"))
}

/// A reader of a range of a file.
struct Part<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = self.file.read_at(&mut buffer[..want], self.offset)?;
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}
