//! Reading a tar file entry by entry: the v7, ustar, GNU and pax formats (tar(5)), long names, extended attributes,
//! sparse files.
//!
//! The crate `tar` parses the headers. This module reads the rest, because that crate ends pax values at their first
//! newline (capabilities may have one) and reads extended headers of any length into memory.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::ops::Range;

use stage1::error::{Context, Error, Result};
use tar::{EntryType, GnuExtSparseHeader, Header};

const BLOCK: u64 = 512;

/// The size limit of all that describes one entry (long names, pax records, sparse maps), in bytes.
const DESCRIPTION_BYTES: u64 = 1 << 20;

/// One entry of an archive. [`Entries::content`] reads its content.
#[derive(Debug)]
pub struct Entry {
    /// Its type.
    pub kind: EntryType,
    /// Its name, unchanged.
    pub path: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    /// The size of the file with its holes, in bytes.
    pub size: u64,
    /// Permissions, with set-user-ID, set-group-ID and sticky bits.
    pub mode: u32,
    /// The UID of its owner.
    pub uid: u64,
    /// The GID of its group.
    pub gid: u64,
    /// The modification time: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// The major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// The names and values of its extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The offsets and lengths, in bytes, of the parts of the file that the archive stores, ascending.
    pub segments: Vec<(u64, u64)>,
}

/// The entries of an archive, in order.
pub struct Entries<R> {
    source: R,
    /// How much of the last entry's content is unread, in bytes.
    content: u64,
    /// The number of bytes between the content and the next block.
    padding: u64,
    /// How much of the source was read or skipped, in bytes.
    position: u64,
    /// Skips bytes of a source that can seek.
    seek: Option<fn(&mut R, i64) -> io::Result<()>>,
}

impl Entries<BufReader<File>> {
    /// Reads a file from its start; seeks over content that the caller leaves unread.
    ///
    /// # Errors
    /// Seeking in the file fails.
    pub fn of_file(mut file: File) -> Result<Self> {
        file.rewind().context(|| "seek to the start of the archive")?;
        let entries = Self::new(BufReader::with_capacity(1 << 12, file));
        Ok(Self { seek: Some(BufReader::seek_relative), ..entries })
    }
}

/// Pax records and long names that describe the next entry.
#[derive(Default)]
struct Description {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: u64,
}

impl<R: Read> Entries<R> {
    /// Reads from `source`, which must be uncompressed.
    pub fn new(source: R) -> Self {
        Self { source, content: 0, padding: 0, position: 0, seek: None }
    }

    /// The next entry; `None` at the end of the archive.
    ///
    /// # Errors
    /// The source can't be read, ends within an entry, is not a tar file, or has a damaged or too large header.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut description = Description::default();
        loop {
            self.skip_content()?;
            let Some(header) = self.header()? else {
                let nothing_pending = description.bytes == 0;
                return nothing_pending.then_some(None).context(|| "the archive ends where an entry should come");
            };
            let size = header.entry_size().context(|| "not a tar file: size of an entry")?;
            let kind = header.entry_type();
            match kind {
                EntryType::GNULongName => description.path = Some(name(self.describing(&mut description, size)?)),
                EntryType::GNULongLink => description.link = Some(name(self.describing(&mut description, size)?)),
                EntryType::XHeader => {
                    let bytes = self.describing(&mut description, size)?;
                    description.records.extend(records(&bytes)?);
                }
                // global headers hold comments, and defaults that image builders do not write
                EntryType::XGlobalHeader => self.set_content(size)?,
                _ => return self.entry(&header, size, description).map(Some),
            }
        }
    }

    /// A reader of the last entry's unread content, without holes.
    pub fn content(&mut self) -> impl Read {
        Content(self)
    }

    /// The position in the source, in bytes; after [`Entries::next_entry`] that is where the entry's content starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn skip_content(&mut self) -> Result<()> {
        let left = self.content + self.padding;
        if let (Some(seek), Ok(bytes)) = (self.seek, i64::try_from(left)) {
            seek(&mut self.source, bytes).context(|| "seek in the archive")?;
            (self.content, self.padding) = (0, 0);
            self.position += left;
            return Ok(());
        }
        let skipped = io::copy(&mut (&mut self.source).take(left), &mut io::sink()).context(|| "read the archive")?;
        (self.content, self.padding) = (0, 0);
        self.position += skipped;
        // the padding of the last entry may be missing
        if skipped < left { Err(Error::new("the archive ends within an entry")) } else { Ok(()) }
    }

    fn set_content(&mut self, size: u64) -> Result<()> {
        let whole = size.checked_next_multiple_of(BLOCK).context(|| "an entry's size is too large")?;
        (self.content, self.padding) = (size, whole - size);
        Ok(())
    }

    /// The next header; `None` at the end of the source or at a block of zeros.
    fn header(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut have = 0;
        while have < bytes.len() {
            match self.source.read(&mut bytes[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(Error::new("the archive ends within a header (is it a tar file?)")),
                Ok(n) => {
                    have += n;
                    self.position += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::caused_by("read the archive", error)),
            }
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        // the field of the checksum itself counts as spaces
        let sum = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        if header.cksum().ok() != Some(sum) {
            return Err(Error::new("not a tar file: the checksum of a header is wrong"));
        }
        Ok(Some(header))
    }

    /// Reads a long name or pax records.
    fn describing(&mut self, description: &mut Description, size: u64) -> Result<Vec<u8>> {
        description.bytes = description.bytes.saturating_add(size.max(1));
        if description.bytes > DESCRIPTION_BYTES {
            return Err(Error::new(format!("the description of an entry takes more than {DESCRIPTION_BYTES} bytes")));
        }
        self.set_content(size)?;
        let mut bytes = Vec::new();
        self.content().read_to_end(&mut bytes).context(|| "read the archive")?;
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, size: u64, description: Description) -> Result<Entry> {
        let record = |key: &str| {
            let found = description.records.iter().rev().find(|(name, _)| name == key.as_bytes());
            found.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
        };
        let number = |key: &str| {
            let parse = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<u64>().ok();
            record(key).map(|value| parse(value).context(|| format!("pax record {key} is not a number"))).transpose()
        };
        let path = record("path").map(<[u8]>::to_vec).or(description.path.clone());
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let mut kind = header.entry_type();
        // in the v7 format only its name marks a directory
        if kind.is_file() && path.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let shown = || format!("archive entry {:?}", String::from_utf8_lossy(&path));
        let mtime = match record("mtime") {
            Some(text) => decimal(text).context(|| "pax record mtime is not a time").context(shown)?,
            None => (field(header, 136..148, header.mtime()).context(|| "mtime").context(shown)?.cast_signed(), 0),
        };
        let id = |key: &str, place: Range<usize>, value: io::Result<u64>| match number(key)? {
            Some(value) => Ok(value),
            None => field(header, place, value).context(|| key.to_owned()),
        };
        let link = record("linkpath").map(<[u8]>::to_vec).or(description.link.clone());
        let mut entry = Entry {
            kind,
            link: link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default(),
            size: 0,
            mode: field(header, 100..108, header.mode()).context(|| "mode").context(shown)?,
            uid: id("uid", 108..116, header.uid()).context(shown)?,
            gid: id("gid", 116..124, header.gid()).context(shown)?,
            mtime,
            device: device(header).context(shown)?,
            xattrs: Vec::new(),
            segments: Vec::new(),
            path: path.clone(),
        };
        if matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse) {
            self.set_content(number("size").context(shown)?.unwrap_or(size))?;
            self.lay_out(&mut entry, header, &description.records).context(shown)?;
        } else if !header_only(kind) {
            self.set_content(size)?;
        }
        for (key, value) in description.records {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                entry.xattrs.push((name.to_vec(), value));
            }
        }
        Ok(entry)
    }

    /// Finds the segments of a file's content; sets `size`, `segments`, and the name of a pax sparse file.
    fn lay_out(&mut self, entry: &mut Entry, header: &Header, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let all = |key: &'static str| records.iter().filter(move |(name, _)| name == key.as_bytes()).map(|(_, v)| v);
        let last = |key: &'static str| all(key).next_back();
        let numbers = |text: &[u8], separator: u8| -> Option<Vec<u64>> {
            text.split(|byte| *byte == separator).map(|n| std::str::from_utf8(n).ok()?.parse().ok()).collect()
        };
        let single =
            |text: Option<&Vec<u8>>| text.and_then(|text| numbers(text, b'\n')).and_then(|n| n.first().copied());
        let bad = || "the map of a sparse file is damaged";
        let flat = if entry.kind == EntryType::GNUSparse {
            let (flat, size) = self.old_gnu_map(header)?;
            entry.size = size;
            flat
        } else if last("GNU.sparse.major").is_some_and(|major| major == b"1") {
            entry.size = single(last("GNU.sparse.realsize")).context(bad)?;
            self.map_in_content().context(bad)?
        } else if let Some(map) = last("GNU.sparse.map") {
            entry.size = single(last("GNU.sparse.size")).context(bad)?;
            numbers(map, b',').context(bad)?
        } else if last("GNU.sparse.offset").is_some() {
            entry.size = single(last("GNU.sparse.size")).context(bad)?;
            let pairs = all("GNU.sparse.offset").zip(all("GNU.sparse.numbytes"));
            let flat: Option<Vec<u64>> =
                pairs.flat_map(|(offset, length)| [single(Some(offset)), single(Some(length))]).collect();
            flat.context(bad)?
        } else {
            entry.size = self.content;
            entry.segments = vec![(0, entry.size)];
            return Ok(());
        };
        if let Some(name) = last("GNU.sparse.name") {
            entry.path.clone_from(name);
        }
        let (mut end, mut stored) = (0, 0u64);
        for pair in flat.chunks(2) {
            let [offset, length] = *pair else { return Err(Error::new(bad())) };
            end = Some(offset).filter(|offset| *offset >= end).and_then(|o| o.checked_add(length)).context(bad)?;
            stored = stored.checked_add(length).context(bad)?;
            entry.segments.push((offset, length));
        }
        if end > entry.size || stored != self.content {
            return Err(Error::new(bad()));
        }
        Ok(())
    }

    /// The map of the old GNU sparse format, in the header and in extension blocks; and the file's size.
    fn old_gnu_map(&mut self, header: &Header) -> Result<(Vec<u64>, u64)> {
        let gnu = header.as_gnu().context(|| "a sparse file without GNU's header")?;
        let mut flat = Vec::new();
        let mut add = |block: &tar::GnuSparseHeader| -> Result<()> {
            if !block.is_empty() {
                flat.push(block.offset().context(|| "offset in a sparse file")?);
                flat.push(block.length().context(|| "length in a sparse file")?);
            }
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut extended = gnu.is_extended();
        let mut bytes = 0;
        while extended {
            bytes += BLOCK;
            if bytes > DESCRIPTION_BYTES {
                return Err(Error::new(format!("the map of a sparse file takes more than {DESCRIPTION_BYTES} bytes")));
            }
            let mut more = GnuExtSparseHeader::new();
            self.source.read_exact(more.as_mut_bytes()).context(|| "read the archive")?;
            self.position += BLOCK;
            more.sparse().iter().try_for_each(&mut add)?;
            extended = more.is_extended();
        }
        Ok((flat, gnu.real_size().context(|| "size of a sparse file")?))
    }

    /// The map of the pax sparse format 1.0: decimal lines at the start of the content, padded to a block.
    fn map_in_content(&mut self) -> Option<Vec<u64>> {
        let mut numbers = Vec::new();
        let mut digits = String::new();
        let mut wanted = None;
        let mut bytes = 0;
        loop {
            let mut block = [0; BLOCK as usize];
            bytes += BLOCK;
            if bytes > DESCRIPTION_BYTES {
                return None;
            }
            self.content().read_exact(&mut block).ok()?;
            for byte in block {
                match byte {
                    b'0'..=b'9' if digits.len() < 20 => digits.push(byte.into()),
                    b'\n' => {
                        let number: u64 = std::mem::take(&mut digits).parse().ok()?;
                        match wanted {
                            None => wanted = Some(number.checked_mul(2)?),
                            Some(_) => numbers.push(number),
                        }
                        if wanted == Some(numbers.len() as u64) {
                            return Some(numbers);
                        }
                    }
                    _ => return None,
                }
            }
        }
    }
}

struct Content<'a, R>(&'a mut Entries<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.0.content).unwrap_or(usize::MAX));
        let n = self.0.source.read(&mut buffer[..want])?;
        if n == 0 && want > 0 {
            return Err(io::Error::other("the archive ends within an entry"));
        }
        self.0.content -= n as u64;
        self.0.position += n as u64;
        Ok(n)
    }
}

/// Whether entries of this type have no content, whatever the size in their header is.
fn header_only(kind: EntryType) -> bool {
    use EntryType as T;
    matches!(kind, T::Link | T::Symlink | T::Char | T::Block | T::Directory | T::Fifo)
}

/// A long name without its NUL byte.
fn name(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

/// A number field of a header; an empty field is 0.
fn field<T: Default>(header: &Header, place: Range<usize>, value: io::Result<T>) -> io::Result<T> {
    let is_empty = header.as_bytes()[place].iter().all(|byte| matches!(byte, 0 | b' '));
    if is_empty { Ok(T::default()) } else { value }
}

fn device(header: &Header) -> Result<Option<(u32, u32)>> {
    if !matches!(header.entry_type(), EntryType::Char | EntryType::Block) {
        return Ok(None);
    }
    let major = header.device_major().context(|| "device number")?;
    let minor = header.device_minor().context(|| "device number")?;
    Ok(major.zip(minor))
}

/// Parses pax records, `LENGTH KEY=VALUE\n`, where the length is that of the whole record.
fn records(mut bytes: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let one = |bytes: &[u8]| -> Option<(usize, Vec<u8>, Vec<u8>)> {
        let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
        let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        Some((length, record[..equals].to_vec(), record[equals + 1..].to_vec()))
    };
    let mut found = Vec::new();
    while !bytes.is_empty() {
        // some archivers pad with zeros
        if bytes.iter().all(|byte| *byte == 0) {
            break;
        }
        let (length, key, value) = one(bytes).context(|| "a pax record is damaged")?;
        found.push((key, value));
        bytes = &bytes[length..];
    }
    Ok(found)
}

/// Parses seconds with a decimal fraction, as seconds and nanoseconds.
fn decimal(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

#[cfg(test)]
#[path = "entries_tests.rs"]
mod tests;
