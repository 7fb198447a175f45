//! One app's log files, read in order: the format is that of the stage1's `mux::lines`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{Dir, OFlags};
use stage1::appc::AcName;
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::pod::open_regular_beneath;
use stage1::sys::dir;

use super::line::{Line, LineBreak, Stream};

/// What is read at a time, in bytes.
const BUFFER: usize = 256 << 10;
/// The longest line that is put together again from its parts, in bytes.
const LONGEST: usize = 16 << 20;
/// The longest line of a file that is read, in bytes: the monitor writes none that is a tenth as long.
const LONGEST_RECORD: usize = 1 << 20;

/// The log of one app.
#[derive(Debug)]
pub(super) struct Reader {
    app: Rc<str>,
    directory: OwnedFd,
    number: u64,
    file: Option<BufReader<File>>,
    /// What has come of the line of the file that is being read.
    record: Vec<u8>,
    /// What has come of a line of each stream, and when.
    parts: [(String, Vec<u8>); 2],
    head: Option<Line>,
    damaged: bool,
}

impl Reader {
    /// From the oldest line on that is kept.
    pub(super) fn open(logs: impl AsFd, app: &AcName) -> Result<Self> {
        let directory = dir::open_beneath(logs, Path::new(app.as_ref()), OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Self {
            app: Rc::from(app.as_ref()),
            directory,
            number: 0,
            file: None,
            record: Vec::new(),
            parts: Default::default(),
            head: None,
            damaged: false,
        })
    }

    pub(super) fn app(&self) -> &str {
        &self.app
    }

    /// The next line, if there is one.
    pub(super) fn head(&self) -> Option<&Line> {
        self.head.as_ref()
    }

    /// Takes the next line.
    pub(super) fn take(&mut self) -> Option<Line> {
        self.head.take()
    }

    /// Sees to it that the next line is there if it can be; `more`: lines may still be written.
    pub(super) fn look(&mut self, more: bool) -> Result<Option<&Line>> {
        while self.head.is_none() {
            if self.read_record()? {
                self.understand();
                self.record.clear();
            } else if more || !self.flush() {
                break;
            }
        }
        Ok(self.head.as_ref())
    }

    /// Reads one line of a file, whole; false if there is none, yet.
    fn read_record(&mut self) -> Result<bool> {
        loop {
            if self.file.is_none() && !self.open_next()? {
                return Ok(false);
            }
            if self.read_on()? {
                return Ok(true);
            }
            // In this order: what was written to this file before the next one was made is there after it.
            if self.next_number()?.is_none() {
                return Ok(false);
            }
            if self.read_on()? {
                return Ok(true);
            }
            // The rest of a line that was never finished: a disk was full.
            self.record.clear();
            self.file = None;
        }
    }

    fn read_on(&mut self) -> Result<bool> {
        let Some(file) = &mut self.file else { return Ok(false) };
        file.read_until(b'\n', &mut self.record).context(|| format!("read the log of app {}", self.app))?;
        if self.record.len() > LONGEST_RECORD {
            self.record.truncate(LONGEST_RECORD);
            self.record.push(b'\n');
        }
        Ok(self.record.ends_with(b"\n"))
    }

    /// The number of the oldest file that comes after the one that is being read.
    fn next_number(&self) -> Result<Option<u64>> {
        let what = || format!("read the directory of the log of app {}", self.app);
        let mut next: Option<u64> = None;
        for entry in Dir::read_from(&self.directory).context(what)? {
            let number = entry.context(what)?.file_name().to_str().ok().and_then(layout::log_file_number);
            next = number.into_iter().filter(|number| *number > self.number).chain(next).min();
        }
        Ok(next)
    }

    fn open_next(&mut self) -> Result<bool> {
        while let Some(number) = self.next_number()? {
            self.number = number;
            // It may just have gone, as the oldest of too many.
            if let Some(file) = open_regular_beneath(&self.directory, Path::new(&layout::log_file(number)))? {
                self.file = Some(BufReader::with_capacity(BUFFER, file));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a line of what was read, or a part of one.
    fn understand(&mut self) {
        let record = self.record.strip_suffix(b"\n").unwrap_or(&self.record);
        let Some((time, stream, tag, text)) = parse(record) else {
            if !std::mem::replace(&mut self.damaged, true) {
                log::warn!("the log of app {} has lines that the monitor did not write: skipping them", self.app);
            }
            return;
        };
        let (_, parts) = &mut self.parts[stream as usize];
        let line_break = match tag {
            b"P" if parts.len() + text.len() <= LONGEST => {
                parts.extend_from_slice(text);
                self.parts[stream as usize].0 = time.to_owned();
                return;
            }
            b"P" => Some(LineBreak::LineMax),
            b"F:eof" => Some(LineBreak::Eof),
            _ => None,
        };
        let mut message = std::mem::take(parts);
        message.extend_from_slice(text);
        let (time, app) = (time.to_owned(), Rc::clone(&self.app));
        self.head = Some(Line { time, app, stream, line_break, message });
    }

    /// What is left of lines that nobody will finish any more: the monitor was killed. Whether there was anything.
    fn flush(&mut self) -> bool {
        for (stream, (time, parts)) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&mut self.parts) {
            if !parts.is_empty() {
                let (time, message) = (std::mem::take(time), std::mem::take(parts));
                let line_break = Some(LineBreak::Eof);
                self.head = Some(Line { time, app: Rc::clone(&self.app), stream, line_break, message });
                return true;
            }
        }
        false
    }
}

/// Time, stream, tag and text of a line of a file.
fn parse(record: &[u8]) -> Option<(&str, Stream, &[u8], &[u8])> {
    let word = |bytes: &[u8]| bytes.iter().position(|byte| *byte == b' ');
    let (time, rest) = record.split_at(word(record)?);
    let rest = &rest[1..];
    let (stream, rest) = rest.split_at(word(rest)?);
    let stream = match stream {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let rest = &rest[1..];
    let (tag, text) = rest.split_at(word(rest)?);
    Some((std::str::from_utf8(time).ok()?, stream, tag, &text[1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(u64, &[u8])], more: bool) -> Vec<(String, Option<LineBreak>)> {
        let tmp = tempfile::tempdir().unwrap();
        let place = tmp.path().join("a");
        std::fs::create_dir(&place).unwrap();
        for (number, text) in files {
            std::fs::write(place.join(layout::log_file(*number)), text).unwrap();
        }
        let mut reader = Reader::open(dir::open_dir(tmp.path()).unwrap(), &"a".parse().unwrap()).unwrap();
        let mut all = Vec::new();
        while reader.look(more).unwrap().is_some() {
            let line = reader.take().unwrap();
            all.push((format!("{} {}", line.stream.word(), String::from_utf8_lossy(&line.message)), line.line_break));
        }
        all
    }

    #[test]
    fn lines_and_parts_over_files() {
        let files: [(u64, &[u8]); 3] = [
            (9, b"t1 stdout F  one \nt2 stdout P tw\nt2 stderr F \n"),
            (10, b"t3 stdout P o\nt3 stdout F !\nt4 stderr F:eof end\nt5 std"),
            (11, b"nonsense\nt6 stdout F last\nt7 stdout P cut"),
        ];
        let expected = [
            ("stdout  one ", None),
            ("stderr ", None),
            ("stdout two!", None),
            ("stderr end", Some(LineBreak::Eof)),
            ("stdout last", None),
        ];
        let expected = expected.map(|(text, end)| (text.to_owned(), end));
        assert_eq!(read(&files, true), expected);
        assert_eq!(read(&[(1, b"t stdout P left\n")], true), []);
        assert_eq!(read(&[(1, b"t stdout P left\n")], false), [("stdout left".to_owned(), Some(LineBreak::Eof))]);
        assert_eq!(read(&[], false), []);
    }

    #[test]
    fn a_line_without_end_has_parts() {
        let part = vec![b'x'; 16 << 10];
        let record = [b"t stdout P ", &part[..], b"\n"].concat();
        let text = record.repeat((LONGEST >> 14) + 2);
        let lines = read(&[(1, &text)], false);
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0].1, lines[1].1), (Some(LineBreak::LineMax), Some(LineBreak::Eof)));
        let all: usize = lines.iter().map(|(line, _)| line.len() - "stdout ".len()).sum();
        assert_eq!(all, ((LONGEST >> 14) + 2) << 14);
    }
}
