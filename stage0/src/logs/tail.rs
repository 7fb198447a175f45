//! Finds where the last lines of a log begin, searching from its end, so that the rest is not read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::record::{LONGEST_RECORD, Record};

/// How much to read at a time, in bytes.
const BUFFER: u64 = 256 << 10;

/// Which of the last lines of one log to find.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail<'a> {
    /// At least this many lines; the search may find a few more.
    pub(super) lines: usize,
    /// Count only lines of this time or earlier.
    pub(super) until: Option<&'a str>,
    /// Find unfinished lines as well, with all their parts.
    pub(super) unfinished: bool,
}

/// A search from the newest file to the oldest.
#[derive(Debug)]
pub(super) struct Search<'a> {
    tail: Tail<'a>,
    found: usize,
    /// For each stream, what the oldest record read so far is.
    streams: [Seen; 2],
}

/// What the oldest record of a stream read so far is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// There is none yet.
    Nothing,
    /// A record of a line to show; an older record may hold the line's beginning.
    Middle,
    /// The end of a line not to show: the lines to show begin after it.
    Before,
}

impl<'a> Tail<'a> {
    pub(super) fn search(self) -> Search<'a> {
        Search { tail: self, found: 0, streams: [Seen::Nothing; 2] }
    }
}

impl Search<'_> {
    /// Searches a file. Returns the offset in it where the lines to show begin, in bytes; `None` if they begin in an
    /// older file.
    pub(super) fn file(&mut self, file: &mut File) -> io::Result<Option<u64>> {
        let mut end = file.metadata()?.len();
        // The rest of a record that begins before `end`.
        let mut rest: Vec<u8> = Vec::new();
        while end > 0 {
            let start = end.saturating_sub(BUFFER);
            let mut block = vec![0; usize::try_from(end - start).unwrap_or(0)];
            file.read_exact_at(&mut block, start)?;
            block.append(&mut rest);
            let whole = if start == 0 { 0 } else { memchr::memchr(b'\n', &block).map_or(block.len(), |at| at + 1) };
            // A record without a newline is not whole yet.
            let mut to = memchr::memrchr(b'\n', &block[whole..]).map_or(whole, |at| whole + at + 1);
            while to > whole {
                let from = memchr::memrchr(b'\n', &block[whole..to - 1]).map_or(whole, |at| whole + at + 1);
                if self.is_enough(&block[from..to - 1]) {
                    return Ok(Some(start + from as u64));
                }
                to = from;
            }
            block.truncate(whole);
            // A longer record is not the monitor's: drop it.
            rest = if block.len() > LONGEST_RECORD { vec![b'\n'] } else { block };
            end = start;
        }
        Ok(None)
    }

    /// Whether all lines to show begin at or after this record.
    fn is_enough(&mut self, record: &[u8]) -> bool {
        let Some(record) = Record::parse(record) else { return false };
        let seen = &mut self.streams[record.stream as usize];
        if !record.ends_line() {
            if *seen == Seen::Nothing {
                *seen = Seen::Middle;
            }
        } else if self.found < self.tail.lines {
            self.found += usize::from(self.tail.until.is_none_or(|until| record.time <= until.as_bytes()));
            *seen = Seen::Middle;
        } else {
            *seen = Seen::Before;
        }
        let is_known = |seen: &Seen| match seen {
            Seen::Nothing => !self.tail.unfinished,
            Seen::Middle => false,
            Seen::Before => true,
        };
        self.found >= self.tail.lines && self.streams.iter().all(is_known)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The offset at which the lines to show begin.
    fn begins(text: &[u8], lines: usize, until: Option<&str>, unfinished: bool) -> Option<u64> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        Tail { lines, until, unfinished }.search().file(&mut file).unwrap()
    }

    #[test]
    fn as_many_as_are_wanted() {
        let text = b"1 stdout F a\n2 stdout F b\n3 stdout F c\n4 stdout F d\n5 stdou";
        for (lines, until, place) in [
            (0, None, Some(39)),
            (1, None, Some(26)),
            (2, None, Some(13)),
            (3, None, Some(0)),
            (4, None, None),
            (1, Some("2"), Some(0)),
        ] {
            assert_eq!(begins(text, lines, until, false), place, "{lines} {until:?}");
        }
        // The other stream may have an unfinished line further up.
        assert_eq!(begins(text, 1, None, true), None);
        assert_eq!(begins(b"0 stderr F x\n1 stdout F a\n2 stdout F b\n", 1, None, true), Some(0));
    }

    #[test]
    fn a_line_is_whole() {
        // The line to show has two parts, with a line of the other stream between them.
        let text = b"1 stderr F x\n2 stderr P a\n3 stdout F y\n4 stderr F b\n";
        assert_eq!(begins(text, 1, None, false), Some(0));
        assert_eq!(begins(&text[13..], 1, None, false), None);
        // An unfinished line is found with all its parts.
        let text = b"1 stdout F a\n2 stdout P b\n3 stderr F c\n4 stderr F d\n";
        assert_eq!(begins(text, 1, None, true), Some(0));
    }

    #[test]
    fn records_that_cross_what_is_read_at_a_time() {
        let line = |n: usize| format!("{n:08} stdout F {}\n", "x".repeat(n % 40_000));
        let text: String = (0..100).map(|n| line(n * 7919)).collect();
        for lines in [1, 3, 10, 40, 98] {
            let tail: String = (100 - lines - 1..100).map(|n| line(n * 7919)).collect();
            assert_eq!(begins(text.as_bytes(), lines, None, false), Some((text.len() - tail.len()) as u64), "{lines}");
        }
        // Bytes that are no record in between.
        let text = [line(1).as_bytes(), &vec![b'?'; 3 << 20], b"\n", line(2).as_bytes(), line(3).as_bytes()].concat();
        assert_eq!(begins(&text, 2, None, false), Some(0));
    }
}
