//! The file `console` in the pod directory: all that PID 1 and other processes write to the pod's console, and the
//! output of `run` if the host manager has directed it to the same file. When the file has become too long, it is cut
//! down to its end. Host side, part of the monitor.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::dir;

/// Size above which the file is cut down, in bytes.
const MAX_SIZE: u64 = 256 << 10;
/// Size to which it is cut down, in bytes.
const KEPT_SIZE: u64 = 64 << 10;

/// The open file.
#[derive(Debug)]
pub(super) struct ConsoleFile {
    file: File,
    size: u64,
    /// Whether the standard output of `run` is this file.
    is_output: bool,
}

impl ConsoleFile {
    /// Opens the file in the current directory, creating it if it is missing.
    ///
    /// # Errors
    /// It can't be opened, or is not a regular file.
    pub(super) fn open() -> Result<Self> {
        Self::open_for(Path::new(layout::CONSOLE), std::io::stdout())
    }

    fn open_for(path: &Path, output: impl std::os::fd::AsFd) -> Result<Self> {
        let shown = || format!("open {path:?}");
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        let file: File = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640)).context(shown)?.into();
        let stat = rustix::fs::fstat(&file).context(shown)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new(format!("{}: not a regular file", shown())));
        }
        let is_output = dir::same_file(&file, output)?;
        Ok(Self { file, size: stat.st_size.unsigned_abs(), is_output })
    }

    /// Whether the standard output of `run` is this file.
    pub(super) fn is_output(&self) -> bool {
        self.is_output
    }

    /// Appends `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        std::io::Write::write_all(&mut self.file, bytes).context(|| "write the pod's console")?;
        self.wrote(bytes.len())
    }

    /// Counts bytes that were written, and cuts the file down if it has become too long.
    fn wrote(&mut self, bytes: usize) -> Result<()> {
        self.size += bytes as u64;
        if self.size <= MAX_SIZE { Ok(()) } else { self.cut().context(|| "cut down the pod's console") }
    }

    /// Cuts the file down to its last whole lines. Every writer has it open for appending, so none leaves a hole.
    fn cut(&mut self) -> Result<()> {
        let size = self.file.metadata().context(|| "stat")?.len();
        self.file.seek(SeekFrom::Start(size.saturating_sub(KEPT_SIZE))).context(|| "seek")?;
        let mut rest = Vec::new();
        (&self.file).take(KEPT_SIZE).read_to_end(&mut rest).context(|| "read")?;
        if size > KEPT_SIZE {
            let line = rest.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            rest.drain(..line);
        }
        self.file.set_len(0).context(|| "truncate")?;
        self.file.seek(SeekFrom::Start(0)).context(|| "seek")?;
        std::io::Write::write_all(&mut self.file, &rest).context(|| "write")?;
        self.size = rest.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_keeps_its_end() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("console");
        let mut kept = ConsoleFile::open_for(&path, std::io::stdout()).unwrap();
        let mut longest = 0;
        for number in 0..20_000 {
            let line = format!("line {number} {}\n", "x".repeat(80));
            kept.write(line.as_bytes()).unwrap();
            longest = longest.max(path.metadata().unwrap().len());
        }
        assert!(longest <= MAX_SIZE && longest > MAX_SIZE / 2, "{longest}");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() > 500 && lines.last().unwrap().starts_with("line 19999 "));
        let first: usize = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        for (line, number) in lines.iter().zip(first..) {
            assert!(line.starts_with(&format!("line {number} ")), "{line}");
        }
        // A line that is longer than what is kept.
        kept.write(&vec![b'y'; 300 << 10]).unwrap();
        assert_eq!(path.metadata().unwrap().len(), KEPT_SIZE);
    }

    #[test]
    fn nothing_but_a_file_is_written_to() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("console");
        let other = File::create(tmp.path().join("other")).unwrap();
        assert!(!ConsoleFile::open_for(&path, &other).unwrap().is_output());
        let same = File::options().append(true).open(&path).unwrap();
        assert!(ConsoleFile::open_for(&path, &same).unwrap().is_output());
        let link = tmp.path().join("link");
        std::os::unix::fs::symlink("other", &link).unwrap();
        assert!(ConsoleFile::open_for(&link, &other).is_err());
        assert!(ConsoleFile::open_for(Path::new("/dev/null"), &other).is_err());
    }
}
