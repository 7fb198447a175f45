//! The list of a rendered tree, with one line per file ([`super::mtree`]), and checking the tree by it.
//!
//! Lines are in the order of a walk that sorts names. The full check reads every byte of the tree; the quick check
//! reads the metadata of a bounded number of files, others each time.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use stage1::error::{Context, Error, Result};

use super::mtree::{Entry, HEADER};
use crate::fsutil::digest::hex;
use crate::image::archive::{Hashes, MAX_DEPTH, OPAQUE, is_kept, sorted_names, xattr, xattr_names};
use crate::interrupt;

/// How much of the list the quick check reads at each place, in bytes.
const PROBE_BYTES: usize = 8 << 10;
/// How many consecutive files the quick check examines at each place.
const PER_PLACE: usize = 2;

/// The newest status change (`st_ctime`) of a tree's files: seconds since 1970, and nanoseconds.
pub type Newest = (i64, i64);

/// Writes the list of the tree at `root` to `to`; returns the tree's newest change. `hashes` has the hashes of files
/// that are known already.
///
/// # Errors
/// The tree can't be read, is nested more than 512 deep, or `to` can't be written.
pub fn write(root: &Path, hashes: &Hashes, to: &mut impl Write) -> Result<Newest> {
    let shown = || "write the list of a tree";
    let mut newest = (0, 0);
    to.write_all(HEADER.as_bytes()).context(shown)?;
    walk(root, hashes, &mut |entry, stat| {
        newest = newest.max(changed(stat));
        writeln!(to, "{entry}").context(shown)?;
        Ok(true)
    })?;
    Ok(newest)
}

/// The full check of the tree at `root`: returns the first difference from the list, or `None`.
///
/// # Errors
/// The list can't be read or has an invalid line, or the tree can't be read for a reason other than damage.
pub fn check(root: &Path, list: impl Read) -> Result<Option<String>> {
    let mut list = BufReader::new(list);
    let mut line = Vec::new();
    let mut next = || -> Result<Option<Entry>> {
        loop {
            line.clear();
            if list.read_until(b'\n', &mut line).context(|| "read the list of the tree")? == 0 {
                return Ok(None);
            }
            let line = String::from_utf8_lossy(&line);
            if is_of_file(&line) {
                return Entry::parse(&line).context(|| format!("the list of the tree is damaged: {line:?}")).map(Some);
            }
        }
    };
    let mut fault = None;
    let walked = walk(root, &Hashes::default(), &mut |found, _| {
        fault = difference(next()?.as_ref(), found);
        Ok(fault.is_none())
    });
    match walked {
        Err(error) if error.errno().is_none_or(|errno| is_damage(Errno::from_raw_os_error(errno))) => {
            return Ok(Some(error.one_line()));
        }
        other => other?,
    }
    if fault.is_none()
        && let Some(entry) = next()?
    {
        fault = Some(format!("/{} is missing", entry.path.display()));
    }
    Ok(fault)
}

/// The quick check of the tree at `root`: compares the metadata of two files at each of `places` places of the list
/// with it, and their status change with `newest`. Returns a difference, or `None`.
///
/// # Errors
/// The list can't be read, or the tree can't be read for a reason other than damage.
pub fn probe(root: &Path, list: &File, newest: Newest, places: usize) -> Result<Option<String>> {
    let size = list.metadata().context(|| "stat the list of the tree")?.len();
    let dir = match crate::fsutil::dir::open_dir(root)? {
        Some(dir) => dir,
        None => return Ok(Some("its root is missing".into())),
    };
    let mut buffer = [0; PROBE_BYTES];
    let read = |buffer: &mut [u8], at| list.read_at(buffer, at).context(|| "read the list of the tree");
    if size < PROBE_BYTES as u64 {
        let n = read(&mut buffer, 0)?;
        let text = String::from_utf8_lossy(&buffer[..n]);
        let lines: Vec<&str> = text.split_inclusive('\n').filter(|line| is_of_file(line)).collect();
        // all files, or, if there are too many, those after a random one
        let start = usize::try_from(random()).unwrap_or_default() % lines.len().max(1);
        for line in lines.iter().cycle().skip(start).take(lines.len().min(PER_PLACE * places)) {
            if let Some(fault) = probe_line(dir.as_fd(), line, newest)? {
                return Ok(Some(fault));
            }
        }
        return Ok(lines.is_empty().then(|| "its list is empty".to_owned()));
    }
    for place in 0..places {
        let at = if place == 0 { 0 } else { random() % size };
        let n = read(&mut buffer, at)?;
        let text = String::from_utf8_lossy(&buffer[..n]);
        // skip the end of a line before the first newline
        let lines = text.split_inclusive('\n').skip(usize::from(at > 0)).filter(|line| line.ends_with('\n'));
        for line in lines.filter(|line| is_of_file(line)).take(PER_PLACE) {
            if let Some(fault) = probe_line(dir.as_fd(), line, newest)? {
                return Ok(Some(fault));
            }
        }
    }
    Ok(None)
}

fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

/// Whether a line of a list describes a file; other lines are its header.
fn is_of_file(line: &str) -> bool {
    !line.starts_with(['#', '/'])
}

fn probe_line(root: BorrowedFd<'_>, line: &str, newest: Newest) -> Result<Option<String>> {
    let Some(listed) = Entry::parse(line) else { return Ok(Some("its list is damaged".into())) };
    let name = listed.path.display();
    let path = if listed.path.as_os_str().is_empty() { Path::new(".") } else { &listed.path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = fs::openat2(root, path, flags, Mode::empty(), resolve).or_else(|errno| {
        // RESOLVE_NO_SYMLINKS refuses to open a symbolic link itself
        if errno == Errno::LOOP {
            fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH)
        } else {
            Err(errno)
        }
    });
    let file = match file {
        Ok(file) => file,
        Err(errno) if is_damage(errno) => return Ok(Some(format!("/{name} is missing"))),
        Err(errno) => return Err(Error::caused_by(format!("open {path:?}"), errno)),
    };
    let stat = fs::fstat(&file).context(|| format!("stat {path:?}"))?;
    if let Some(what) = listed.metadata_difference(&Entry::of(path, &stat)) {
        return Ok(Some(format!("/{name} is not as it was rendered: its {what} differs")));
    }
    if changed(&stat) > newest {
        return Ok(Some(format!("/{name} has been changed since it was rendered")));
    }
    Ok(None)
}

/// Whether an error means that a file is damaged, and not that this process or the machine has run out of descriptors
/// or memory, for example.
pub(crate) fn is_damage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::STALE
    )
}

/// The difference between a file in the list and the file found in its place.
fn difference(listed: Option<&Entry>, found: &Entry) -> Option<String> {
    let name = found.path.display();
    let Some(listed) = listed else { return Some(format!("/{name} should not be there")) };
    if listed.path != found.path {
        return Some(format!("/{} should come where /{name} is", listed.path.display()));
    }
    listed.difference(found).map(|what| format!("/{name}: its {what} differs"))
}

fn changed(stat: &Stat) -> Newest {
    (stat.st_ctime, stat.st_ctime_nsec.cast_signed())
}

type Each<'a> = dyn FnMut(&Entry, &Stat) -> Result<bool> + 'a;

/// Calls `each` with every file of the tree, until it returns `false`.
fn walk(root: &Path, hashes: &Hashes, each: &mut Each<'_>) -> Result<()> {
    let dir = crate::fsutil::dir::open_dir(root)?.context(|| format!("{root:?} is missing"))?;
    let stat = fs::fstat(&dir).context(|| format!("stat {root:?}"))?;
    let mut walker = Walker { seen: HashMap::new(), hashes, each };
    walker.directory(dir.into(), &stat, Path::new("")).map(drop)
}

struct Walker<'a, 'b> {
    /// The first name and the hash of each file with hard links, by device and inode.
    seen: HashMap<(u64, u64), (PathBuf, Option<String>)>,
    hashes: &'a Hashes,
    each: &'a mut Each<'b>,
}

impl Walker<'_, '_> {
    fn directory(&mut self, dir: OwnedFd, stat: &Stat, path: &Path) -> Result<bool> {
        if path.components().count() > MAX_DEPTH {
            return Err(Error::new(format!("{path:?} is deeper than {MAX_DEPTH} directories")));
        }
        let shown = || format!("list {path:?}");
        let attributes = attributes(dir.as_fd()).context(shown)?;
        if !self.hand(&Entry { attributes, ..Entry::of(path, stat) }, stat)? {
            return Ok(false);
        }
        for name in sorted_names(dir.as_fd()).context(shown)? {
            if !self.child(dir.as_fd(), &name, &path.join(&name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn child(&mut self, dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<bool> {
        let shown = || format!("list {path:?}");
        let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).context(shown)?;
        let open = |flags| fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let mut entry = Entry::of(path, &stat);
        if entry.kind.is_dir() {
            return self.directory(open(OFlags::RDONLY | OFlags::DIRECTORY).context(shown)?, &stat, path);
        }
        let several = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        if let Some((first, hash)) = several.and_then(|file| self.seen.get(&file)) {
            (entry.first, entry.hash) = (Some(first.clone()), hash.clone());
            return self.hand(&entry, &stat);
        }
        match entry.kind {
            FileType::RegularFile => {
                let known = self.hashes.get(stat.st_ino);
                entry.hash = known.map(|known| hex(&known.hash));
                if known.is_none_or(|known| !known.is_bare) {
                    let file = open(OFlags::RDONLY | OFlags::NONBLOCK).context(shown)?;
                    entry.attributes = attributes(file.as_fd()).context(shown)?;
                    if entry.hash.is_none() {
                        entry.hash = Some(hash(File::from(file)).context(shown)?);
                    }
                }
            }
            FileType::Symlink => {
                let target = fs::readlinkat(dir, name, Vec::new()).context(shown)?;
                entry.target = Some(OsStr::from_bytes(target.as_bytes()).into());
            }
            _ => {}
        }
        if let Some(file) = several {
            self.seen.insert(file, (entry.path.clone(), entry.hash.clone()));
        }
        self.hand(&entry, &stat)
    }

    fn hand(&mut self, entry: &Entry, stat: &Stat) -> Result<bool> {
        interrupt::check()?;
        (self.each)(entry, stat)
    }
}

fn hash(mut file: File) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).context(|| "read")? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// The names of the extended attributes that belong to an image, with the SHA-256 of each value.
fn attributes(fd: BorrowedFd<'_>) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for name in xattr_names(fd).context(|| "flistxattr")? {
        if is_kept(&name) || name == OPAQUE {
            let value = xattr(fd, &name).context(|| format!("fgetxattr({name:?})"))?;
            found.push((name, hex(&Sha256::digest(&value))));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        std::fs::create_dir_all(root.join("a dir\n\\x")).unwrap();
        std::fs::write(root.join("a dir\n\\x/file"), "content").unwrap();
        std::fs::hard_link(root.join("a dir\n\\x/file"), root.join("same")).unwrap();
        std::os::unix::fs::symlink("/outside", root.join("link")).unwrap();
        base
    }

    #[test]
    fn every_change_is_found_and_named() {
        type Change = fn(&Path);
        let changes: &[(&str, Change)] = &[
            ("content differs", |root| {
                let file = File::options().write(true).open(root.join("same")).unwrap();
                let time = file.metadata().unwrap().modified().unwrap();
                file.write_all_at(b"X", 3).unwrap();
                file.set_modified(time).unwrap();
            }),
            ("mode differs", |root| {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(root.join("same"), PermissionsExt::from_mode(0o4755)).unwrap();
            }),
            ("/link should come where /new is", |root| {
                std::fs::write(root.join("new"), "").unwrap();
                std::fs::remove_file(root.join("link")).unwrap();
            }),
            ("/same", |root| std::fs::remove_file(root.join("same")).unwrap()),
            ("/zz should not be there", |root| std::fs::write(root.join("zz"), "").unwrap()),
        ];
        for (want, change) in changes {
            let base = tree();
            let root = base.path().join("root");
            let mut list = Vec::new();
            let newest = write(&root, &Hashes::default(), &mut list).unwrap();
            let path = base.path().join("list");
            std::fs::write(&path, &list).unwrap();
            let file = File::open(&path).unwrap();
            assert_eq!(check(&root, &list[..]).unwrap(), None);
            assert_eq!(probe(&root, &file, newest, 64).unwrap(), None);
            // the kernel's clock ticks in steps
            std::thread::sleep(std::time::Duration::from_millis(20));
            let time = root.metadata().unwrap().modified().unwrap();
            change(&root);
            File::open(&root).unwrap().set_modified(time).unwrap();
            let found = check(&root, &list[..]).unwrap().unwrap_or_default();
            assert!(found.contains(want), "{want}: {found}");
            assert!(probe(&root, &file, newest, 64).unwrap().is_some(), "{want}");
        }
    }

    /// A line as earlier versions wrote it, before mtree(5).
    fn tabbed(entry: &Entry) -> String {
        let escape = |path: &Path| {
            let bytes = path.as_os_str().as_bytes().iter();
            bytes
                .map(|byte| {
                    if byte.is_ascii_alphabetic() || *byte == b'/' {
                        char::from(*byte).into()
                    } else {
                        format!("\\{byte:02x}")
                    }
                })
                .collect::<String>()
        };
        let kind = match entry.kind {
            FileType::Directory => "directory",
            FileType::Symlink => "link",
            _ => "file",
        };
        let content = match (&entry.first, &entry.target, &entry.hash) {
            (Some(first), ..) => format!("= {}", escape(first)),
            (_, Some(target), _) => escape(target),
            (.., Some(hash)) => format!("{} {hash}", entry.size.unwrap_or_default()),
            _ => "-".into(),
        };
        let (name, Entry { mode, owner, group, modified, .. }) = (escape(&entry.path), entry);
        format!("{name}\t{kind}\t{mode:o}\t{owner}\t{group}\t{}.{:09}\t{content}\t-\n", modified.0, modified.1)
    }

    #[test]
    fn lists_of_earlier_versions_still_count() {
        let base = tree();
        let root = base.path().join("root");
        let (mut list, mut old) = (Vec::new(), String::new());
        let newest = write(&root, &Hashes::default(), &mut list).unwrap();
        walk(&root, &Hashes::default(), &mut |entry, _| {
            old.push_str(&tabbed(entry));
            Ok(true)
        })
        .unwrap();
        assert!(list.starts_with(b"#mtree\n") && old.contains("\t= "), "{old}");
        let path = base.path().join("list");
        std::fs::write(&path, &old).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(check(&root, old.as_bytes()).unwrap(), None);
        assert_eq!(probe(&root, &file, newest, 64).unwrap(), None);
        std::fs::write(root.join("same"), "CONTENT").unwrap();
        assert!(check(&root, old.as_bytes()).unwrap().is_some());
        assert!(probe(&root, &file, newest, 64).unwrap().is_some());
    }
}
