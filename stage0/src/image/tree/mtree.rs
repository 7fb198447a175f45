//! The description of one file of a tree, and its line in a list. This module reads no files.
//!
//! A list has the format of mtree(5), with full paths, so that `mtree -f sums -p rootfs` and other tools can check a
//! tree. Facts without a keyword in that format are in `tags`, which such tools ignore: `link:NAME` for the first name
//! of a file with hard links, `xattr:NAME=SHA256` for an extended attribute. Lists of earlier versions can still be
//! read.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{self, FileType, Stat};

/// The first lines of a list. Each further line stands for itself, without the lines before it.
pub(super) const HEADER: &str = "#mtree\n/set type=file uid=0 gid=0 mode=0644\n";
/// The mode of a file whose line has none, as in [`HEADER`].
const PLAIN_MODE: u32 = 0o644;

/// The description of a file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its path, relative to the root; empty for the root.
    pub(super) path: PathBuf,
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    /// The modification time: seconds since 1970, and nanoseconds.
    pub(super) modified: (i64, u32),
    /// The size of a regular file, in bytes.
    pub(super) size: Option<u64>,
    /// The SHA-256 of a regular file's content, as hexadecimal digits.
    pub(super) hash: Option<String>,
    /// For the further names of a file with hard links, its first name.
    pub(super) first: Option<PathBuf>,
    /// The target of a symbolic link.
    pub(super) target: Option<PathBuf>,
    /// The major and minor number of a device.
    pub(super) device: Option<(u32, u32)>,
    /// The names of extended attributes, with the SHA-256 of each value.
    pub(super) attributes: Vec<(String, String)>,
}

impl Entry {
    /// The description that stat(2) gives, without hash, link target and extended attributes.
    pub(super) fn of(path: &Path, stat: &Stat) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        Self {
            path: path.to_owned(),
            kind,
            mode: stat.st_mode & 0o7777,
            owner: stat.st_uid,
            group: stat.st_gid,
            modified: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or_default()),
            size: kind.is_file().then(|| stat.st_size.cast_unsigned()),
            hash: None,
            first: None,
            target: None,
            device: is_device.then(|| (fs::major(stat.st_rdev), fs::minor(stat.st_rdev))),
            attributes: Vec::new(),
        }
    }

    fn plain(path: PathBuf) -> Self {
        Self {
            path,
            kind: FileType::RegularFile,
            mode: PLAIN_MODE,
            owner: 0,
            group: 0,
            modified: (0, 0),
            size: None,
            hash: None,
            first: None,
            target: None,
            device: None,
            attributes: Vec::new(),
        }
    }

    /// Parses a line of a list; `None` if it is not the valid line of a file.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        if line.contains('\t') { Self::parse_tabbed(line) } else { Self::parse_words(line) }
    }

    fn parse_words(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut entry = Self::plain(path(words.next()?)?);
        for word in words {
            let (key, value) = word.split_once('=')?;
            match key {
                "type" => entry.kind = KINDS.iter().find(|(_, word)| *word == value)?.0,
                "mode" => entry.mode = u32::from_str_radix(value, 8).ok()?,
                "uid" => entry.owner = value.parse().ok()?,
                "gid" => entry.group = value.parse().ok()?,
                "time" => entry.modified = time(value)?,
                "size" => entry.size = Some(value.parse().ok()?),
                "sha256digest" => entry.hash = Some(value.to_owned()),
                "link" => entry.target = Some(unescaped(value, 3, 8)?),
                "device" => {
                    let (major, minor) = value.strip_prefix("native,")?.split_once(',')?;
                    entry.device = Some((major.parse().ok()?, minor.parse().ok()?));
                }
                "tags" => entry.take_tags(value)?,
                _ => {}
            }
        }
        Some(entry)
    }

    fn take_tags(&mut self, tags: &str) -> Option<()> {
        for tag in tags.split(',') {
            match tag.split_once(':')? {
                ("link", name) => self.first = Some(path(name)?),
                ("xattr", attribute) => {
                    let (name, hash) = attribute.split_once('=')?;
                    let name = unescaped(name, 3, 8)?.into_os_string().into_string().ok()?;
                    self.attributes.push((name, hash.to_owned()));
                }
                _ => {}
            }
        }
        Some(())
    }

    /// Parses a line of an earlier version: name, kind, mode, owner, group, modification time, content and extended
    /// attributes, separated by tabs; other bytes than letters are `\xx`.
    fn parse_tabbed(line: &str) -> Option<Self> {
        let [name, kind, mode, owner, group, modified, content, attributes] =
            line.split('\t').collect::<Vec<_>>().try_into().ok()?;
        let hexadecimal = |text: &str| unescaped(text, 2, 16);
        let mut entry = Self::plain(hexadecimal(name)?);
        entry.kind = match kind {
            "directory" => FileType::Directory,
            "character" => FileType::CharacterDevice,
            other => KINDS.iter().find(|(_, word)| *word == other)?.0,
        };
        entry.mode = u32::from_str_radix(mode, 8).ok()?;
        (entry.owner, entry.group) = (owner.parse().ok()?, group.parse().ok()?);
        entry.modified = time(modified)?;
        match (entry.kind, content.strip_prefix("= ")) {
            (FileType::Symlink, _) => entry.target = Some(hexadecimal(content)?),
            (_, Some(first)) => entry.first = Some(hexadecimal(first)?),
            (FileType::RegularFile, None) => {
                let (size, hash) = content.split_once(' ')?;
                (entry.size, entry.hash) = (Some(size.parse().ok()?), Some(hash.to_owned()));
            }
            (FileType::CharacterDevice | FileType::BlockDevice, None) => {
                let (major, minor) = content.split_once(':')?;
                entry.device = Some((major.parse().ok()?, minor.parse().ok()?));
            }
            _ => {}
        }
        for attribute in attributes.split(',').filter(|text| *text != "-") {
            let (name, hash) = attribute.split_once('=')?;
            let name = hexadecimal(name)?.into_os_string().into_string().ok()?;
            entry.attributes.push((name, hash.to_owned()));
        }
        entry.attributes.sort();
        Some(entry)
    }

    /// The first difference in the metadata that stat(2) gives.
    pub(super) fn metadata_difference(&self, found: &Self) -> Option<&'static str> {
        let same = [
            ("kind", self.kind == found.kind),
            ("mode", self.mode == found.mode),
            ("owner", self.owner == found.owner),
            ("group", self.group == found.group),
            ("modification time", self.modified == found.modified),
            ("size", self.size.is_none() || self.size == found.size),
        ];
        same.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
    }

    /// The first difference.
    pub(super) fn difference(&self, found: &Self) -> Option<&'static str> {
        // lists of earlier versions have the hash of a file with hard links only in the line of its first name
        let hash = self.hash.is_none() || self.hash == found.hash;
        let first = self.first == found.first;
        let content = hash && first && self.target == found.target && self.device == found.device;
        match self.metadata_difference(found) {
            Some("size") => Some("content"),
            Some(what) => Some(what),
            None if !content => Some("content"),
            None => (self.attributes != found.attributes).then_some("extended attributes"),
        }
    }
}

/// The values of the keyword `type`.
const KINDS: [(FileType, &str); 7] = [
    (FileType::RegularFile, "file"),
    (FileType::Directory, "dir"),
    (FileType::Symlink, "link"),
    (FileType::CharacterDevice, "char"),
    (FileType::BlockDevice, "block"),
    (FileType::Fifo, "fifo"),
    (FileType::Socket, "socket"),
];

/// Writes the line, without its newline.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Name(&self.path))?;
        if self.kind != FileType::RegularFile {
            write!(
                f,
                " type={}",
                KINDS.iter().find(|(kind, _)| *kind == self.kind).map_or("socket", |(_, word)| word)
            )?;
        }
        for (key, id) in [("uid", self.owner), ("gid", self.group)] {
            if id != 0 {
                write!(f, " {key}={id}")?;
            }
        }
        if self.mode != PLAIN_MODE {
            write!(f, " mode=0{:o}", self.mode)?;
        }
        write!(f, " time={}.{:09}", self.modified.0, self.modified.1)?;
        if let Some(size) = self.size {
            write!(f, " size={size}")?;
        }
        if let Some(hash) = &self.hash {
            write!(f, " sha256digest={hash}")?;
        }
        if let Some(target) = &self.target {
            write!(f, " link={}", Escaped(target.as_os_str().as_bytes()))?;
        }
        if let Some((major, minor)) = self.device {
            write!(f, " device=native,{major},{minor}")?;
        }
        let mut between = " tags=";
        if let Some(first) = &self.first {
            write!(f, "{between}link:{}", Name(first))?;
            between = ",";
        }
        for (name, hash) in &self.attributes {
            write!(f, "{between}xattr:{}={hash}", Escaped(name.as_bytes()))?;
            between = ",";
        }
        Ok(())
    }
}

/// A path in the list's form, which begins with a dot.
struct Name<'a>(&'a Path);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_os_str().as_bytes() {
            b"" => f.write_str("."),
            path => write!(f, "./{}", Escaped(path)),
        }
    }
}

/// Text with octal escapes for the separators of lines, words and tags, and for the characters of glob patterns.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !br"\#*?[]=,".contains(&byte);
        for part in self.0.chunk_by(|a, b| is_plain(*a) == is_plain(*b)) {
            match std::str::from_utf8(part) {
                Ok(text) if is_plain(part[0]) => f.write_str(text)?,
                _ => part.iter().try_for_each(|byte| write!(f, "\\{byte:03o}"))?,
            }
        }
        Ok(())
    }
}

fn path(name: &str) -> Option<PathBuf> {
    if name == "." { Some(PathBuf::new()) } else { unescaped(name.strip_prefix("./")?, 3, 8) }
}

fn time(text: &str) -> Option<(i64, u32)> {
    let (seconds, nanoseconds) = text.split_once('.')?;
    Some((seconds.parse().ok()?, nanoseconds.parse().ok()?))
}

/// Decodes escapes of a backslash and `digits` digits.
fn unescaped(text: &str, digits: usize, radix: u32) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        if *byte == b'\\' {
            let number = std::str::from_utf8(tail.get(..digits)?).ok()?;
            bytes.push(u8::from_str_radix(number, radix).ok()?);
            rest = &tail[digits..];
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

    fn entry(path: &str) -> Entry {
        Entry::plain(PathBuf::from(path))
    }

    #[test]
    fn lines_are_written_and_read_back() {
        let hash = "0123456789abcdef".repeat(4);
        let entries = [
            (Entry { kind: FileType::Directory, mode: 0o1755, ..entry("") }, ". type=dir mode=01755 time=0.000000000"),
            (
                Entry {
                    size: Some(7),
                    hash: Some(hash.clone()),
                    modified: (-1, 5),
                    owner: 3,
                    group: 4,
                    ..entry("a/b")
                },
                &format!("./a/b uid=3 gid=4 time=-1.000000005 size=7 sha256digest={hash}"),
            ),
            (
                Entry {
                    first: Some("x, y".into()),
                    attributes: vec![("user.=".into(), "00".into())],
                    ..entry("tab\t\u{e4}")
                },
                "./tab\\011\\303\\244 time=0.000000000 tags=link:./x\\054\\040y,xattr:user.\\075=00",
            ),
            (
                Entry { kind: FileType::Symlink, mode: 0o777, target: Some("/a b".into()), ..entry("[*?]#\\") },
                "./\\133\\052\\077\\135\\043\\134 type=link mode=0777 time=0.000000000 link=/a\\040b",
            ),
            (
                Entry { kind: FileType::CharacterDevice, device: Some((1, 3)), ..entry("null") },
                "./null type=char time=0.000000000 device=native,1,3",
            ),
        ];
        for (entry, line) in entries {
            assert_eq!(entry.to_string(), line);
            assert_eq!(Entry::parse(&format!("{line}\n")), Some(entry));
        }
    }

    #[test]
    fn lists_of_earlier_versions_are_read() {
        let parse = |line: &str| Entry::parse(line).expect("an entry");
        let root = parse("\tdirectory\t755\t0\t0\t0.000000000\t-\t-\n");
        assert_eq!(root, Entry { kind: FileType::Directory, mode: 0o755, ..entry("") });
        let file = parse("a\\20b\tfile\t4711\t1\t2\t17.000000300\t276 8d73\tuser.x=00,user.y=11\n");
        let attributes = vec![("user.x".into(), "00".into()), ("user.y".into(), "11".into())];
        let content = Entry { size: Some(276), hash: Some("8d73".into()), attributes, ..entry("a b") };
        assert_eq!(file, Entry { mode: 0o4711, owner: 1, group: 2, modified: (17, 300), ..content });
        assert_eq!(parse("c\tfile\t644\t0\t0\t0.0\t= a\\20b\t-").first, Some("a b".into()));
        assert_eq!(parse("l\tlink\t777\t0\t0\t0.0\t/x\t-").target, Some("/x".into()));
        assert_eq!(parse("w\tcharacter\t0\t0\t0\t0.0\t0:0\t-").device, Some((0, 0)));
    }

    #[test]
    fn damaged_lines_are_found() {
        for line in ["", "x", "#mtree", "/set type=file", "./a mode=9", "./a time=x", "./\\4", "a\tfile", "./a type=x"]
        {
            assert_eq!(Entry::parse(line), None, "{line}");
        }
    }
}
