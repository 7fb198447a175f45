//! Reading at any place of a file that somebody else may be writing to, and may be lying in.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use stage1::error::{Context, Error, Result};

/// How much is read at once.
const WINDOW: usize = 64 << 10;

/// A file and the two parts of it that were read last: entries are far from their index. It is read, never mapped:
/// one that is cut short meanwhile can then do no harm.
#[derive(Debug)]
pub(super) struct Bytes {
    file: File,
    size: u64,
    /// The one that was used last comes first.
    windows: [Window; 2],
}

#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn has(&self, at: u64, end: u64) -> bool {
        self.start <= at && end <= self.start + self.bytes.len() as u64
    }

    /// Reads from `at` on, less than `len` bytes if the file has become shorter: journald cuts off what it does not
    /// need when it puts a file aside.
    fn fill(&mut self, file: &File, at: u64, len: usize) -> Result<()> {
        self.bytes.resize(len, 0);
        self.start = at;
        let mut have = 0;
        while have < len {
            match file.read_at(&mut self.bytes[have..], at + have as u64) {
                Ok(0) => break,
                Ok(more) => have += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.bytes.clear();
                    return Err(error).context(|| format!("byte {at}: read {len} bytes"));
                }
            }
        }
        self.bytes.truncate(have);
        Ok(())
    }
}

impl Bytes {
    pub(super) fn new(file: File) -> Result<Self> {
        let mut bytes = Self { file, size: 0, windows: Default::default() };
        bytes.refresh()?;
        Ok(bytes)
    }

    /// Forgets what was read, which may have changed.
    pub(super) fn refresh(&mut self) -> Result<()> {
        self.windows.iter_mut().for_each(|window| window.bytes.clear());
        self.size = self.file.metadata().context(|| "stat")?.len();
        Ok(())
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// How large it was at the last [`Self::refresh`].
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The `len` bytes at `at`.
    pub(super) fn get(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let too_short = || Error::new(format!("byte {at}: the file ends before what should be there"));
        let end = at.checked_add(len as u64).filter(|end| *end <= self.size).ok_or_else(too_short)?;
        if !self.windows[0].has(at, end) {
            self.windows.swap(0, 1);
        }
        if !self.windows[0].has(at, end) {
            let wanted = len.max(WINDOW).min(usize::try_from(self.size - at).unwrap_or(usize::MAX));
            self.windows[0].fill(&self.file, at, wanted)?;
            if !self.windows[0].has(at, end) {
                return Err(too_short());
            }
        }
        let window = &self.windows[0];
        let from = (at - window.start) as usize;
        Ok(&window.bytes[from..from + len])
    }

    /// Gives back the memory that a large part has taken.
    pub(super) fn let_go(&mut self) {
        for window in self.windows.iter_mut().filter(|window| window.bytes.len() > WINDOW) {
            window.bytes = Vec::new();
        }
    }

    /// The number of eight bytes at `at` as it is now, which may be another one than a moment ago.
    pub(super) fn u64_now(&self, at: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at).context(|| format!("byte {at}: read 8 bytes"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The number of eight bytes at `at`.
    pub(super) fn u64(&mut self, at: u64) -> Result<u64> {
        self.get(at, 8).map(le64)
    }
}

/// The number in the first eight bytes.
pub(super) fn le64(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The number in the first four bytes.
pub(super) fn le32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
