//! One journal file: <https://systemd.io/JOURNAL_FILE_FORMAT>.
//!
//! Entries are found by the index of all of them, a chain of arrays of their places. Everything in a file only ever
//! points onward: an array comes after the one before, an entry after the one before. What does not is damaged, so
//! no file can make its reader go in circles.

use std::collections::HashMap;
use std::fs::File;
use std::rc::Rc;

use stage1::error::{Error, Result};

use super::MAX_FIELD;
use super::bytes::{Bytes, le32, le64};
use super::compressed::Compression;

/// Larger files were not written by a journald with our settings, nor with its own defaults.
const MAX_FILE: u64 = 4 << 30;
/// As many fields can an entry have: journald's own limit.
const MAX_ITEMS: u64 = 1024;
/// Fields that are known by place, to be read once only.
const KNOWN_FIELDS: usize = 1024;
/// Longest value of a field that is of interest, apart from the message.
const MAX_VALUE: usize = 256;

const SIGNATURE: &[u8] = b"LPKSHHRH";
/// The part of the header that every file has.
const HEADER_SIZE: usize = 208;
/// Features that we know: three compressions, keyed hashes (which we have no use for), compact.
const KNOWN_FEATURES: u32 = 0x1f;
const COMPACT: u32 = 0x10;

const DATA: u8 = 1;
const ENTRY: u8 = 3;
const ENTRY_ARRAY: u8 = 6;
/// The size of what every object starts with: type, flags, its size.
const OBJECT: u64 = 16;
/// Where the items of an entry start.
const ENTRY_ITEMS: u64 = 64;
/// Where those of an array do.
const ARRAY_ITEMS: u64 = 24;

/// An entry, without its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which of the writer's entries it is.
    pub seqnum: u64,
    /// When it was written, in microseconds since 1970.
    pub realtime: u64,
    /// `_SYSTEMD_UNIT`: the unit of the process that wrote it, as journald found out.
    pub unit: Option<Rc<str>>,
    /// `_TRANSPORT`: how it came to journald.
    pub transport: Option<Rc<str>>,
    /// `_LINE_BREAK`: what ended the line, if that was no newline.
    pub line_break: Option<Rc<str>>,
    /// `SYSLOG_IDENTIFIER`: what the writer calls itself.
    pub identifier: Option<Rc<str>>,
    /// `PRIORITY`.
    pub priority: Option<u8>,
    /// `_PID`, in the pod's view.
    pub pid: Option<u32>,
    /// Where its message is; none if it has none.
    pub(crate) message: Option<u64>,
    /// Where it is itself.
    pub(super) at: u64,
    /// It is the first one of its file.
    pub(super) is_first: bool,
    /// The time since the boot, the boot, and a hash of all fields: the same in a copy.
    pub(super) stamp: [u8; 32],
}

/// A field that an entry has.
#[derive(Clone, Debug)]
enum Field {
    Message,
    Unit(Rc<str>),
    Transport(Rc<str>),
    LineBreak(Rc<str>),
    Identifier(Rc<str>),
    Priority(Option<u8>),
    Pid(Option<u32>),
    /// Of no interest.
    Other,
}

/// Where we are in the index.
#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    /// The array, 0 before the first.
    array: u64,
    /// How many items it has.
    items: u64,
    /// The next one of them.
    item: u64,
    /// How many entries were taken, of all arrays.
    taken: u64,
    /// The last of them.
    entry: u64,
}

/// A journal file that is read from its first entry to its last.
#[derive(Debug)]
pub(super) struct JournalFile {
    bytes: Bytes,
    compact: bool,
    /// What numbers its entries.
    pub(super) seqnum_id: [u8; 16],
    entries: u64,
    walk: Walk,
    fields: HashMap<u64, Field>,
}

impl JournalFile {
    /// Opens a file.
    ///
    /// # Errors
    /// It is no journal file, or has features that we don't know. [`None`] if it is just being made.
    pub(super) fn open(file: File) -> Result<Option<Self>> {
        let mut bytes = Bytes::new(file)?;
        let size = bytes.size();
        if size > MAX_FILE {
            return Err(Error::new(format!("it has {size} bytes, which no journal file has")));
        }
        if size < HEADER_SIZE as u64 {
            return Ok(None);
        }
        let header = bytes.get(0, HEADER_SIZE)?;
        if header[..8].iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        if !header.starts_with(SIGNATURE) {
            return Err(Error::new("it is not a journal file"));
        }
        let features = le32(&header[12..]);
        if features & !KNOWN_FEATURES != 0 {
            let unknown = features & !KNOWN_FEATURES;
            return Err(Error::new(format!("it has features that this podctl does not know: {unknown:#x}")));
        }
        let seqnum_id = header[72..].first_chunk().copied().unwrap_or_default();
        let compact = features & COMPACT != 0;
        let (entries, walk, fields) = (0, Walk::default(), HashMap::new());
        let mut file = Self { bytes, compact, seqnum_id, entries, walk, fields };
        file.refresh()?;
        Ok(Some(file))
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        self.bytes.file()
    }

    /// When its last entry was written, as far as its header knows; in microseconds since 1970.
    pub(super) fn last_written(&mut self) -> Result<u64> {
        self.bytes.u64(192)
    }

    /// Whether all entries were taken that there were at the last [`Self::refresh`].
    pub(super) fn is_read(&self) -> bool {
        self.walk.taken >= self.entries
    }

    /// Looks how many entries there are now.
    pub(super) fn refresh(&mut self) -> Result<()> {
        let entries = self.bytes.u64_now(152)?;
        if entries != self.entries {
            // In this order: what is counted is in what the file is then.
            self.bytes.refresh()?;
            self.entries = entries;
        }
        Ok(())
    }

    /// The next entry; `None` if there is none yet.
    ///
    /// # Errors
    /// [`Fault::Entry`]: this entry can't be read, but others may follow. [`Fault::End`]: none of the rest can be.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Fault> {
        if self.walk.taken >= self.entries {
            return Ok(None);
        }
        let at = self.next_place().map_err(Fault::End)?;
        self.entry(at).map(Some).map_err(Fault::Entry)
    }

    /// Where the next entry is.
    fn next_place(&mut self) -> Result<u64> {
        let width = if self.compact { 4 } else { 8 };
        while self.walk.item >= self.walk.items {
            // The arrays are a chain that starts in the header.
            let link = if self.walk.array == 0 { 176 } else { self.walk.array + OBJECT };
            let next = self.bytes.u64(link)?;
            if next <= self.walk.array {
                return Err(Error::new(format!("byte {link}: the index of its entries does not go on")));
            }
            let (_, size) = self.object(next, ENTRY_ARRAY)?;
            let items = size.saturating_sub(ARRAY_ITEMS) / width;
            self.walk = Walk { array: next, items, item: 0, ..self.walk };
        }
        let item = self.walk.array + ARRAY_ITEMS + self.walk.item * width;
        let place = self.item(item)?;
        if place <= self.walk.entry {
            return Err(Error::new(format!("byte {item}: the index of its entries is out of order")));
        }
        self.walk = Walk { item: self.walk.item + 1, taken: self.walk.taken + 1, entry: place, ..self.walk };
        Ok(place)
    }

    /// The flags and the size of an object of this kind; all of it is in the file.
    fn object(&mut self, at: u64, kind: u8) -> Result<(u8, u64)> {
        let wrong = |what: &str| Error::new(format!("byte {at}: {what}"));
        if !at.is_multiple_of(8) {
            return Err(wrong("nothing can be there"));
        }
        let header = self.bytes.get(at, OBJECT as usize)?;
        let (found, flags, size) = (header[0], header[1], le64(&header[8..]));
        if found != kind {
            return Err(wrong(&format!("there is an object of kind {found} instead of {kind}")));
        }
        match at.checked_add(size) {
            Some(end) if end <= self.bytes.size() && size >= OBJECT => Ok((flags, size)),
            _ => Err(wrong("an object has an impossible size")),
        }
    }

    fn entry(&mut self, at: u64) -> Result<Entry> {
        let (_, size) = self.object(at, ENTRY)?;
        let width = if self.compact { 4 } else { 16 };
        let items = size.saturating_sub(ENTRY_ITEMS) / width;
        if size < ENTRY_ITEMS || items > MAX_ITEMS {
            return Err(Error::new(format!("byte {at}: an entry has an impossible size")));
        }
        let start = self.bytes.get(at, (ENTRY_ITEMS + items * width) as usize)?;
        let places = places(&start[ENTRY_ITEMS as usize..], self.compact);
        let mut entry = Entry {
            seqnum: le64(&start[16..]),
            realtime: le64(&start[24..]),
            unit: None,
            transport: None,
            line_break: None,
            identifier: None,
            priority: None,
            pid: None,
            message: None,
            at,
            is_first: self.walk.taken == 1,
            stamp: start[32..].first_chunk().copied().unwrap_or_default(),
        };
        for place in places {
            match self.field(place)? {
                Field::Message => entry.message = entry.message.or(Some(place)),
                Field::Unit(unit) => entry.unit = Some(unit),
                Field::Transport(transport) => entry.transport = Some(transport),
                Field::LineBreak(line_break) => entry.line_break = Some(line_break),
                Field::Identifier(identifier) => entry.identifier = Some(identifier),
                Field::Priority(priority) => entry.priority = priority,
                Field::Pid(pid) => entry.pid = pid,
                Field::Other => {}
            }
        }
        Ok(entry)
    }

    /// Whether all fields of the entry at this place know of it. When a file is full, journald may find that out after
    /// the entry has got into the index: some of its fields don't know of it then, and it is written again as the first
    /// one of the next file.
    pub(super) fn is_finished(&mut self, at: u64) -> Result<bool> {
        let (_, size) = self.object(at, ENTRY)?;
        let items = self.bytes.get(at + ENTRY_ITEMS, size.saturating_sub(ENTRY_ITEMS) as usize)?;
        for field in places(items, self.compact) {
            self.object(field, DATA)?;
            if self.last_entry_of(field)? != at {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The last entry that a field knows of.
    fn last_entry_of(&mut self, field: u64) -> Result<u64> {
        let [first, mut array, count] = [40, 48, 56].map(|at| self.bytes.u64(field + at));
        let mut left = match count? {
            0 => return Ok(0),
            1 => return first,
            more => more - 1,
        };
        let width = if self.compact { 4 } else { 8 };
        loop {
            let at = array?;
            let (_, size) = self.object(at, ENTRY_ARRAY)?;
            let items = size.saturating_sub(ARRAY_ITEMS) / width;
            if left <= items {
                return self.item(at + ARRAY_ITEMS + (left - 1) * width);
            }
            left -= items;
            let next = self.bytes.u64(at + OBJECT)?;
            if next <= at {
                return Err(Error::new(format!("byte {at}: the index of a field does not go on")));
            }
            array = Ok(next);
        }
    }

    /// A place that an array says.
    fn item(&mut self, at: u64) -> Result<u64> {
        if self.compact { self.bytes.get(at, 4).map(|item| le32(item).into()) } else { self.bytes.u64(at) }
    }

    /// What the field at this place says. Many entries share a field.
    fn field(&mut self, at: u64) -> Result<Field> {
        if let Some(field) = self.fields.get(&at) {
            return Ok(field.clone());
        }
        let start = self.data(at, MAX_VALUE)?;
        let text = |value: &[u8]| Rc::from(String::from_utf8_lossy(value));
        let field = match start.iter().position(|byte| *byte == b'=').map(|at| (&start[..at], &start[at + 1..])) {
            Some((b"MESSAGE", _)) => return Ok(Field::Message),
            Some((b"_SYSTEMD_UNIT", unit)) => Field::Unit(text(unit)),
            Some((b"_TRANSPORT", transport)) => Field::Transport(text(transport)),
            Some((b"_LINE_BREAK", line_break)) => Field::LineBreak(text(line_break)),
            Some((b"SYSLOG_IDENTIFIER", identifier)) => Field::Identifier(text(identifier)),
            Some((b"PRIORITY", priority)) => Field::Priority(number(priority)),
            Some((b"_PID", pid)) => Field::Pid(number(pid)),
            _ => Field::Other,
        };
        if self.fields.len() >= KNOWN_FIELDS {
            self.fields.clear();
        }
        self.fields.insert(at, field.clone());
        Ok(field)
    }

    /// The message at this place.
    ///
    /// # Errors
    /// It can't be read, or is longer than [`MAX_FIELD`].
    pub(super) fn message(&mut self, at: u64) -> Result<Vec<u8>> {
        let bytes = self.data(at, MAX_FIELD + 1);
        self.bytes.let_go();
        let mut bytes = bytes?;
        if bytes.len() > MAX_FIELD {
            return Err(Error::new(format!("byte {at}: a message is longer than {} MiB", MAX_FIELD >> 20)));
        }
        if !bytes.starts_with(b"MESSAGE=") {
            return Err(Error::new(format!("byte {at}: a message has changed")));
        }
        bytes.drain(.."MESSAGE=".len());
        Ok(bytes)
    }

    /// The start of the field at this place, with its name: at most `limit` bytes.
    fn data(&mut self, at: u64, limit: usize) -> Result<Vec<u8>> {
        let (flags, size) = self.object(at, DATA)?;
        let start = if self.compact { 72 } else { 64 };
        let Some(packed) = size.checked_sub(start) else {
            return Err(Error::new(format!("byte {at}: a field has an impossible size")));
        };
        let how = Compression::of(flags).map_err(|error| Error::caused_by(format!("byte {at}"), error))?;
        let packed = match how {
            Compression::None => packed.min(limit as u64),
            _ if packed > MAX_FIELD as u64 => return Err(Error::new(format!("byte {at}: a field is too large"))),
            _ => packed,
        };
        how.unpack(self.bytes.get(at + start, packed as usize)?, limit)
            .map_err(|error| Error::caused_by(format!("byte {at}"), error))
    }
}

/// The places of an entry's fields.
fn places(items: &[u8], compact: bool) -> Vec<u64> {
    match compact {
        true => items.chunks_exact(4).map(|item| le32(item).into()).collect(),
        false => items.chunks_exact(16).map(le64).collect(),
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What is damaged.
#[derive(Debug)]
pub(super) enum Fault {
    /// One entry.
    Entry(Error),
    /// All that follows.
    End(Error),
}
