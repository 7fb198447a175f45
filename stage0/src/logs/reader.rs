//! Reads one app's log files in order. `stage1::mux::lines` defines their format.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
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
use super::record::{LONGEST_RECORD, Record};
use super::tail::Tail;

/// How much to read at a time, in bytes.
const BUFFER: usize = 256 << 10;
/// The longest line that is joined from its parts, in bytes.
const LONGEST: usize = 16 << 20;

/// The position in the log of one app.
#[derive(Debug)]
pub(super) struct Reader {
    app: Rc<str>,
    directory: OwnedFd,
    number: u64,
    file: Option<File>,
    /// Bytes read from the file; those before `start` are used up.
    block: Vec<u8>,
    start: usize,
    /// For each stream the parts of an unfinished line, and the time of the last part.
    parts: [(String, Vec<u8>); 2],
    /// A line joined from parts, and its time if that is not in the block.
    whole: (String, Vec<u8>),
    head: Option<Head>,
    damaged: bool,
}

/// Where the next line is.
#[derive(Debug)]
struct Head {
    time: TextSource,
    stream: Stream,
    line_break: Option<LineBreak>,
    message: TextSource,
}

/// Where the text of a line is: in a range of `Reader::block`, or in `Reader::whole`.
#[derive(Debug)]
enum TextSource {
    Block(Range<usize>),
    Whole,
}

impl Reader {
    /// Opens the log of `app` in the directory `logs`, at its oldest line or where the lines that `tail` asks for
    /// begin.
    pub(super) fn open(logs: impl AsFd, app: &AcName, tail: Option<&Tail<'_>>) -> Result<Self> {
        let directory = dir::open_beneath(logs, Path::new(app.as_ref()), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut reader = Self {
            app: Rc::from(app.as_ref()),
            directory,
            number: 0,
            file: None,
            block: Vec::new(),
            start: 0,
            parts: Default::default(),
            whole: Default::default(),
            head: None,
            damaged: false,
        };
        if let Some(tail) = tail {
            reader.skip_to(tail)?;
        }
        Ok(reader)
    }

    /// Goes to where the lines that `tail` asks for begin.
    fn skip_to(&mut self, tail: &Tail<'_>) -> Result<()> {
        let mut search = tail.search();
        for number in self.numbers()?.into_iter().rev() {
            let Some(mut file) = self.open_file(number)? else { break };
            let found = search.file(&mut file).context(|| format!("read the log of app {}", self.app))?;
            if let Some(offset) = found {
                file.seek(SeekFrom::Start(offset)).context(|| "seek")?;
                (self.number, self.file) = (number, Some(file));
                break;
            }
        }
        Ok(())
    }

    /// Whether the log's directory was removed.
    pub(super) fn is_removed(&self) -> Result<bool> {
        rustix::fs::fstat(&self.directory).map(|stat| stat.st_nlink == 0).context(|| "fstat(log directory)")
    }

    pub(super) fn app(&self) -> &str {
        &self.app
    }

    /// The time of the next line, if [`Self::look`] found one.
    pub(super) fn head_time(&self) -> Option<&[u8]> {
        self.head.as_ref().map(|head| match &head.time {
            TextSource::Block(at) => &self.block[at.clone()],
            TextSource::Whole => self.whole.0.as_bytes(),
        })
    }

    /// The next line, if [`Self::look`] found one.
    pub(super) fn head(&self) -> Option<Line<'_>> {
        let head = self.head.as_ref()?;
        let time = std::str::from_utf8(self.head_time()?).unwrap_or_default();
        let message = match &head.message {
            TextSource::Block(at) => &self.block[at.clone()],
            TextSource::Whole => &self.whole.1,
        };
        Some(Line { time, app: &self.app, stream: head.stream, line_break: head.line_break, message })
    }

    /// Drops the next line.
    pub(super) fn pass(&mut self) {
        self.head = None;
    }

    /// Reads the next line unless it was read already; `false` if there is none. `more` says that the pod may still
    /// write lines, so that an unfinished one waits.
    pub(super) fn look(&mut self, more: bool) -> Result<bool> {
        while self.head.is_none() {
            match self.read_record()? {
                Some(record) => self.understand(record),
                None if more || !self.flush() => return Ok(false),
                None => {}
            }
        }
        Ok(true)
    }

    /// The range of the next whole record in the block; `None` if there is none yet.
    fn read_record(&mut self) -> Result<Option<Range<usize>>> {
        loop {
            if self.file.is_none() && !self.open_next()? {
                return Ok(None);
            }
            if let Some(record) = self.read_on()? {
                return Ok(Some(record));
            }
            // List first, read after: the monitor wrote the end of this file before it made the next one.
            if self.numbers()?.iter().all(|number| *number <= self.number) {
                return Ok(None);
            }
            if let Some(record) = self.read_on()? {
                return Ok(Some(record));
            }
            // Drop a record that was never finished, because the disk was full.
            self.forget_block();
            self.file = None;
        }
    }

    /// The range of the next whole record of the open file; `None` at its end.
    fn read_on(&mut self) -> Result<Option<Range<usize>>> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let mut looked = self.start;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.block[looked..]) {
                let record = self.start..looked + at;
                self.start = record.end + 1;
                return Ok(Some(record));
            }
            if self.block.len() - self.start > LONGEST_RECORD {
                let record = self.start..self.block.len();
                self.start = record.end;
                return Ok(Some(record));
            }
            self.block.drain(..self.start);
            self.start = 0;
            looked = self.block.len();
            self.block.resize(looked + BUFFER, 0);
            let got = loop {
                match file.read(&mut self.block[looked..]) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    got => break got,
                }
            };
            self.block.truncate(looked + *got.as_ref().unwrap_or(&0));
            if got.context(|| format!("read the log of app {}", self.app))? == 0 {
                return Ok(None);
            }
        }
    }

    fn forget_block(&mut self) {
        self.block.clear();
        self.start = 0;
    }

    /// The numbers of the log files, ascending.
    fn numbers(&self) -> Result<Vec<u64>> {
        let what = || format!("read the directory of the log of app {}", self.app);
        let mut numbers = Vec::new();
        for entry in Dir::read_from(&self.directory).context(what)? {
            numbers.extend(entry.context(what)?.file_name().to_str().ok().and_then(layout::log_file_number));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Opens a log file; `None` if the monitor has removed it as the oldest of too many.
    fn open_file(&self, number: u64) -> Result<Option<File>> {
        open_regular_beneath(&self.directory, Path::new(&layout::log_file(number)))
    }

    /// Opens the next file; `false` if there is none.
    fn open_next(&mut self) -> Result<bool> {
        for number in self.numbers()?.into_iter().filter(|number| *number > self.number) {
            if let Some(file) = self.open_file(number)? {
                (self.number, self.file) = (number, Some(file));
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes a line of a record, or adds it to the parts of an unfinished line.
    fn understand(&mut self, record: Range<usize>) {
        let base = record.start;
        let Some(Record { time, stream, tag, text }) = Record::parse(&self.block[record]) else {
            if !std::mem::replace(&mut self.damaged, true) {
                log::warn!("the log of app {} has lines that the monitor did not write: skipping them", self.app);
            }
            return;
        };
        let (since, parts) = &mut self.parts[stream as usize];
        let line_break = match tag {
            b"P" if parts.len() + text.len() <= LONGEST => {
                parts.extend_from_slice(text);
                since.clear();
                since.push_str(std::str::from_utf8(time).unwrap_or_default());
                return;
            }
            b"P" => Some(LineBreak::LineMax),
            b"F:eof" => Some(LineBreak::Eof),
            _ => None,
        };
        let message = if parts.is_empty() {
            // The text is the last field of the record.
            let end = base + time.len() + 1 + stream.word().len() + 1 + tag.len() + 1 + text.len();
            TextSource::Block(end - text.len()..end)
        } else {
            self.whole.1 = std::mem::take(parts);
            self.whole.1.extend_from_slice(text);
            TextSource::Whole
        };
        self.head = Some(Head { time: TextSource::Block(base..base + time.len()), stream, line_break, message });
    }

    /// Makes a line of the parts of an unfinished one, whose end is missing because the monitor was killed; `false` if
    /// there are none.
    fn flush(&mut self) -> bool {
        for (stream, part) in [Stream::Stdout, Stream::Stderr].into_iter().zip(&mut self.parts) {
            if !part.1.is_empty() {
                self.whole = std::mem::take(part);
                let line_break = Some(LineBreak::Eof);
                self.head = Some(Head { time: TextSource::Whole, stream, line_break, message: TextSource::Whole });
                return true;
            }
        }
        false
    }
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
        let mut reader = Reader::open(dir::open_dir(tmp.path()).unwrap(), &"a".parse().unwrap(), None).unwrap();
        let mut all = Vec::new();
        while reader.look(more).unwrap() {
            let line = reader.head().unwrap();
            all.push((format!("{} {}", line.stream.word(), String::from_utf8_lossy(line.message)), line.line_break));
            reader.pass();
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
