//! What a rendered tree holds, one line per file, and whether it still does.
//!
//! A line is the name, kind, mode, owner, group, modification time, what is in it (the size and SHA-256 of a file, the
//! target of a link, the number of a device) and the extended attributes, divided by tabs; lines are in the order of
//! a walk that sorts names. Two checks read them: a full one, which looks at every byte of the tree, and a quick one,
//! which looks at the metadata of a bounded number of files, others each time.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use stage1::error::{Context, Error, Result};

use crate::fsutil::digest::hex;
use crate::image::archive::{Hashes, MAX_DEPTH, OPAQUE, is_kept, sorted_names, xattr, xattr_names};
use crate::interrupt;

/// How much of the list it reads at each.
const PROBE_BYTES: usize = 8 << 10;

/// When the newest change to a tree's files was made, by the kernel's own mark: seconds and nanoseconds.
pub type Newest = (i64, i64);

/// Writes the list of the tree at `root`; `hashes` are known already. Gives back the newest change in it.
///
/// # Errors
/// The tree can't be read or the list can't be written.
pub fn write(root: &Path, hashes: &Hashes, to: &mut impl Write) -> Result<Newest> {
    let mut newest = (0, 0);
    walk(root, hashes, &mut |line, stat| {
        newest = newest.max(changed(stat));
        to.write_all(line.as_bytes()).context(|| "write the list of a tree")?;
        Ok(true)
    })?;
    Ok(newest)
}

/// Looks at every byte of the tree at `root`. Gives back what differs from the list first, or nothing.
///
/// # Errors
/// The list can't be read.
pub fn check(root: &Path, list: impl Read) -> Result<Option<String>> {
    let mut list = BufReader::new(list);
    let mut next = || -> Result<Option<String>> {
        let mut line = Vec::new();
        let n = list.read_until(b'\n', &mut line).context(|| "read the list of the tree")?;
        Ok((n > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
    };
    let mut fault = None;
    let walked = walk(root, &Hashes::default(), &mut |found, _| {
        fault = difference(next()?.as_deref(), found);
        Ok(fault.is_none())
    });
    match walked {
        Err(error) if error.errno().is_none_or(|errno| is_damage(Errno::from_raw_os_error(errno))) => {
            return Ok(Some(error.one_line()));
        }
        other => other?,
    }
    if fault.is_none()
        && let Some(line) = next()?
    {
        fault = Some(format!("/{} is missing", name_of(&line)));
    }
    Ok(fault)
}

/// Looks at the metadata of some files of the tree at `root`, from so many places of the list. Gives back a difference
/// from the list, or nothing.
///
/// # Errors
/// The list can't be read.
pub fn probe(root: &Path, list: &File, newest: Newest, places: usize) -> Result<Option<String>> {
    let size = list.metadata().context(|| "stat the list of the tree")?.len();
    let dir = match crate::fsutil::dir::open_dir(root)? {
        Some(dir) => dir,
        None => return Ok(Some("its root is missing".into())),
    };
    let mut buffer = vec![0; PROBE_BYTES];
    for probe in 0..places {
        let random = uuid::Uuid::new_v4().as_u64_pair().1;
        let at = if probe == 0 || size < PROBE_BYTES as u64 { 0 } else { random % size };
        let n = list.read_at(&mut buffer, at).context(|| "read the list of the tree")?;
        let text = String::from_utf8_lossy(&buffer[..n]);
        // what comes before the first line break is the end of a line
        let lines = text.split_inclusive('\n').skip(usize::from(at > 0)).filter(|line| line.ends_with('\n'));
        let all = size < PROBE_BYTES as u64;
        let lines: Vec<&str> = lines.collect();
        // of a short list all, unless there are many such
        let (most, start) = if all { (2 * places, random as usize % lines.len().max(1)) } else { (2, 0) };
        for line in lines.iter().cycle().skip(start).take(most.min(lines.len())) {
            if let Some(fault) = probe_line(dir.as_fd(), line, newest)? {
                return Ok(Some(fault));
            }
        }
        if all {
            break;
        }
    }
    Ok((size == 0).then(|| "its list is empty".to_owned()))
}

fn probe_line(root: BorrowedFd<'_>, line: &str, newest: Newest) -> Result<Option<String>> {
    let name = name_of(line);
    let Some(path) = unescape(name) else { return Ok(Some("its list is damaged".into())) };
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = fs::openat2(root, path, flags, Mode::empty(), resolve).or_else(|errno| {
        // a symbolic link itself is opened without forbidding them
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
    let as_listed = line.split('\t').skip(1).take(5).eq(metadata(&stat));
    let size_fits = match line.split('\t').nth(6).and_then(|detail| detail.split_once(' ')) {
        Some((size, _)) if line.split('\t').nth(1) == Some("file") && size != "=" => size == stat.st_size.to_string(),
        _ => true,
    };
    if !as_listed || !size_fits {
        return Ok(Some(format!("/{name} is not as it was rendered")));
    }
    if changed(&stat) > newest {
        return Ok(Some(format!("/{name} has been changed since it was rendered")));
    }
    Ok(None)
}

/// Whether a failed look at a file says something of the file, and not of this process or the machine, which may have
/// run out of descriptors or memory.
pub(crate) fn is_damage(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::IO | Errno::UCLEAN | Errno::BADMSG | Errno::STALE
    )
}

/// How the line that should be there and the one found differ.
fn difference(listed: Option<&str>, found: &str) -> Option<String> {
    let Some(listed) = listed else { return Some(format!("/{} should not be there", name_of(found))) };
    if listed == found {
        return None;
    }
    let (expected, name) = (name_of(listed), name_of(found));
    if expected != name {
        return Some(format!("/{expected} should come where /{name} is"));
    }
    let fields = ["name", "kind", "mode", "owner", "group", "modification time", "content", "extended attributes"];
    let differ = fields.iter().zip(listed.split('\t').zip(found.split('\t'))).find(|(_, (a, b))| a != b);
    Some(format!("/{name}: its {} differs", differ.map_or("description", |(field, _)| field)))
}

fn name_of(line: &str) -> &str {
    line.split('\t').next().unwrap_or_default()
}

fn changed(stat: &Stat) -> Newest {
    (stat.st_ctime, stat.st_ctime_nsec.cast_signed())
}

type Each<'a> = dyn FnMut(&str, &Stat) -> Result<bool> + 'a;

/// Hands every line of the tree to `each`, until that says no.
fn walk(root: &Path, hashes: &Hashes, each: &mut Each<'_>) -> Result<()> {
    let dir = crate::fsutil::dir::open_dir(root)?.context(|| format!("{root:?} is missing"))?;
    let stat = fs::fstat(&dir).context(|| format!("stat {root:?}"))?;
    let mut walker = Walker { seen: HashMap::new(), hashes, each };
    walker.directory(dir.into(), &stat, Path::new("")).map(drop)
}

struct Walker<'a, 'b> {
    /// Files with several names, by device and inode: the first of the names.
    seen: HashMap<(u64, u64), String>,
    hashes: &'a Hashes,
    each: &'a mut Each<'b>,
}

impl Walker<'_, '_> {
    fn directory(&mut self, dir: OwnedFd, stat: &Stat, path: &Path) -> Result<bool> {
        if path.components().count() > MAX_DEPTH {
            return Err(Error::new(format!("{path:?} is deeper than {MAX_DEPTH} directories")));
        }
        let shown = || format!("list {path:?}");
        if !self.line(path, stat, "-", &attributes(dir.as_fd()).context(shown)?)? {
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
        let kind = FileType::from_raw_mode(stat.st_mode);
        let open = |flags| fs::openat(dir, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        if kind.is_dir() {
            return self.directory(open(OFlags::RDONLY | OFlags::DIRECTORY).context(shown)?, &stat, path);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.seen.get(&(stat.st_dev, stat.st_ino)) {
                let detail = format!("= {first}");
                return self.line(path, &stat, &detail, "-");
            }
            self.seen.insert((stat.st_dev, stat.st_ino), escape(path.as_os_str().as_bytes()));
        }
        let (detail, attributes) = match kind {
            FileType::RegularFile => {
                let known = self.hashes.get(stat.st_ino);
                let (hash, attributes) = match known {
                    Some(known) if known.is_bare => (hex(&known.hash), "-".to_owned()),
                    _ => {
                        let file = open(OFlags::RDONLY | OFlags::NONBLOCK).context(shown)?;
                        let attributes = attributes(file.as_fd()).context(shown)?;
                        let hash = match known {
                            Some(known) => hex(&known.hash),
                            None => hash(File::from(file)).context(shown)?,
                        };
                        (hash, attributes)
                    }
                };
                (format!("{} {hash}", stat.st_size), attributes)
            }
            FileType::Symlink => {
                let target = fs::readlinkat(dir, name, Vec::new()).context(shown)?;
                (escape(target.as_bytes()), "-".to_owned())
            }
            _ => (format!("{}:{}", fs::major(stat.st_rdev), fs::minor(stat.st_rdev)), "-".to_owned()),
        };
        self.line(path, &stat, &detail, &attributes)
    }

    fn line(&mut self, path: &Path, stat: &Stat, detail: &str, attributes: &str) -> Result<bool> {
        let name = escape(path.as_os_str().as_bytes());
        let line = format!("{name}\t{}\t{detail}\t{attributes}\n", metadata(stat).join("\t"));
        interrupt::check()?;
        (self.each)(&line, stat)
    }
}

/// Kind, mode, owner, group and modification time.
fn metadata(stat: &Stat) -> [String; 5] {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "link",
        FileType::CharacterDevice => "character",
        FileType::BlockDevice => "block",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Unknown => "unknown",
    };
    [
        kind.to_owned(),
        format!("{:o}", stat.st_mode & 0o7777),
        stat.st_uid.to_string(),
        stat.st_gid.to_string(),
        format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec),
    ]
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

/// The extended attributes that an image brings.
fn attributes(fd: BorrowedFd<'_>) -> Result<String> {
    let mut found = Vec::new();
    for name in xattr_names(fd).context(|| "flistxattr")? {
        if is_kept(&name) || name == OPAQUE {
            let value = xattr(fd, &name).context(|| format!("fgetxattr({name:?})"))?;
            found.push(format!("{}={}", escape(name.as_bytes()), hex(&Sha256::digest(&value))));
        }
    }
    found.sort();
    Ok(if found.is_empty() { "-".into() } else { found.join(",") })
}

/// A name without what divides lines and fields.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'!'..=b'[' | b']'..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:02x}")),
        }
    }
    text
}

fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        if *byte == b'\\' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*byte);
            rest = tail;
        }
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
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

    #[test]
    fn names_survive_the_list() {
        for name in ["", "a b", "tab\tline\nback\\slash", "\u{e4}"] {
            let text = escape(name.as_bytes());
            assert!(!text.contains(['\t', '\n', ' ']), "{text}");
            assert_eq!(unescape(&text), Some(PathBuf::from(name)));
        }
        assert_eq!(unescape("\\4"), None);
    }
}
