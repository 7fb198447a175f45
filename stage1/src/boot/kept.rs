//! The output of `run` where the host manager keeps it: in a file of the pod's directory. Host side, part of the
//! monitor.
//!
//! All that the apps write to the pod's console comes there too, for as long as the pod lives. So the file is cut
//! down to its end whenever it has become too long. What else `run` writes to, a file of the caller's for one, is
//! none of our business.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Context, Result};
use crate::layout;
use crate::sys::dir;

/// The longest that the file gets, in bytes, but for what is written at once.
const MOST: u64 = 256 << 10;
/// What is left of it then.
const REST: u64 = 64 << 10;

/// The file, which standard output is.
#[derive(Debug)]
pub(super) struct Kept {
    file: File,
    size: u64,
}

impl Kept {
    /// The file in the current directory that the host manager keeps our output in; `None` if it does not.
    pub(super) fn find() -> Result<Option<Self>> {
        Self::find_for(Path::new(layout::CONSOLE), std::io::stdout())
    }

    fn find_for(path: &Path, output: impl std::os::fd::AsFd) -> Result<Option<Self>> {
        let shown = || format!("open {path:?}");
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => return Ok(None),
            file => file.context(shown)?.into(),
        };
        let stat = rustix::fs::fstat(&file).context(shown)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let is_output = is_file && dir::same_file(&file, output)?;
        Ok(is_output.then(|| Self { file, size: stat.st_size.unsigned_abs() }))
    }

    /// Takes note of what was written, and cuts the file down if need be.
    pub(super) fn wrote(&mut self, bytes: usize) -> Result<()> {
        self.size += bytes as u64;
        if self.size <= MOST { Ok(()) } else { self.cut().context(|| "cut down the pod's console") }
    }

    /// Leaves the last lines of the file. All who write to it do so at its end.
    fn cut(&mut self) -> Result<()> {
        let size = self.file.metadata().context(|| "stat")?.len();
        self.file.seek(SeekFrom::Start(size.saturating_sub(REST))).context(|| "seek")?;
        let mut rest = Vec::new();
        (&self.file).take(REST).read_to_end(&mut rest).context(|| "read")?;
        if size > REST {
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
    use std::io::Write;

    #[test]
    fn the_file_keeps_its_end() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("console");
        let append = || File::options().create(true).append(true).open(&path).unwrap();
        let mut output = append();
        output.write_all(b"old\n").unwrap();
        let mut kept = Kept::find_for(&path, &output).unwrap().unwrap();
        let mut longest = 0;
        for number in 0..20_000 {
            let line = format!("line {number} {}\n", "x".repeat(80));
            output.write_all(line.as_bytes()).unwrap();
            kept.wrote(line.len()).unwrap();
            longest = longest.max(path.metadata().unwrap().len());
        }
        assert!(longest <= MOST && longest > MOST / 2, "{longest}");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() > 500 && lines.last().unwrap().starts_with("line 19999 "));
        let first: usize = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        for (line, number) in lines.iter().zip(first..) {
            assert!(line.starts_with(&format!("line {number} ")), "{line}");
        }
        // One line that is longer than all that is left.
        output.write_all(&vec![b'y'; 300 << 10]).unwrap();
        kept.wrote(300 << 10).unwrap();
        assert_eq!(path.metadata().unwrap().len(), REST);
    }

    #[test]
    fn only_what_is_kept_is_cut() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("console");
        let other = File::create(tmp.path().join("other")).unwrap();
        assert!(Kept::find_for(&path, &other).unwrap().is_none());
        File::create(&path).unwrap();
        assert!(Kept::find_for(&path, &other).unwrap().is_none());
        let link = tmp.path().join("link");
        std::os::unix::fs::symlink("other", &link).unwrap();
        assert!(Kept::find_for(&link, &other).unwrap().is_none());
        let null = File::options().write(true).open("/dev/null").unwrap();
        assert!(Kept::find_for(Path::new("/dev/null"), &null).unwrap().is_none());
    }
}
