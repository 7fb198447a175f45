//! The lines of log files, those of the pod and those that kubelets read: each with its time and stream.
//!
//! | format | line |
//! |---|---|
//! | `k8s-plain` | `<time> <stdout\|stderr> <line>` |
//! | `k8s-cri` | `<time> <stdout\|stderr> <tag> <line>` |
//!
//! The tag is `P` if the next line of the file continues this one, else `F`; in the pod's own files, `F:eof` marks a
//! last line without a newline. The time is when the end of the line was read: RFC 3339 in UTC, with nanoseconds. A
//! line is written when its newline has come, or when it is as long as [`Format::longest`]; then it continues in the
//! next line of the file.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::streams::Format;

/// Makes lines of one stream's output; holds the line that has not ended yet.
#[derive(Debug)]
pub(super) struct Lines {
    stream: &'static str,
    format: Format,
    /// Marks a last line without a newline.
    marks_end: bool,
    text: Vec<u8>,
}

impl Lines {
    /// For a log file of the pod (`is_own`), or for one that others read, which has no mark for a missing newline.
    pub(super) fn new(stream: &'static str, format: Format, is_own: bool) -> Self {
        Self { stream, format, marks_end: is_own, text: Vec::new() }
    }

    /// Takes output that was read at `time`, formatted by [`rfc3339`], and appends the finished lines to `out`.
    pub(super) fn take(&mut self, mut bytes: &[u8], time: &str, out: &mut Vec<u8>) {
        let head = |tag: &str| match self.format {
            Format::Cri => format!("{time} {} {tag} ", self.stream).into_bytes(),
            Format::Plain => format!("{time} {} ", self.stream).into_bytes(),
        };
        let (full, part) = (head("F"), head("P"));
        let longest = self.format.longest();
        while !bytes.is_empty() {
            let room = longest - self.text.len();
            // The newline does not count.
            let within = &bytes[..bytes.len().min(room + 1)];
            match memchr::memchr(b'\n', within) {
                Some(at) => {
                    out.extend_from_slice(&full);
                    if !self.text.is_empty() {
                        out.append(&mut self.text);
                    }
                    out.extend_from_slice(&bytes[..=at]);
                    bytes = &bytes[at + 1..];
                }
                None if within.len() > room => {
                    out.extend_from_slice(&part);
                    out.append(&mut self.text);
                    out.extend_from_slice(&bytes[..room]);
                    out.push(b'\n');
                    bytes = &bytes[room..];
                }
                None => {
                    self.text.extend_from_slice(bytes);
                    return;
                }
            }
        }
        if self.text.capacity() > 0 && self.text.is_empty() {
            // Most of many apps are not in the middle of a line: free their memory.
            self.text = Vec::new();
        }
    }

    /// Appends the line that is left at the end of the output to `out`.
    pub(super) fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        if self.text.is_empty() {
            return;
        }
        let tag = match self.format {
            Format::Cri if self.marks_end => "F:eof ",
            Format::Cri => "F ",
            Format::Plain => "",
        };
        out.extend_from_slice(format!("{time} {} {tag}", self.stream).as_bytes());
        out.append(&mut self.text);
        out.push(b'\n');
        self.text = Vec::new();
    }
}

/// The time now, since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time since 1970 as RFC 3339 has it, in UTC, with nanoseconds.
pub(super) fn rfc3339(time: Duration) -> String {
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Count years from March on: then the leap day is the last day of a year.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", time.subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Duration = Duration::new(951_825_600, 5);
    const TIME: &str = "2000-02-29T12:00:00.000000005Z";

    #[test]
    fn times() {
        for (time, text) in [
            (Duration::ZERO, "1970-01-01T00:00:00.000000000Z"),
            (NOON, "2000-02-29T12:00:00.000000005Z"),
            (Duration::new(1_709_251_199, 999_999_999), "2024-02-29T23:59:59.999999999Z"),
            (Duration::new(1_709_251_200, 0), "2024-03-01T00:00:00.000000000Z"),
            (Duration::new(4_107_542_399, 0), "2100-02-28T23:59:59.000000000Z"),
            (Duration::new(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(rfc3339(time), text);
        }
    }

    /// What comes of output in pieces.
    fn written<'a>(format: Format, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut lines, mut out) = (Lines::new("stderr", format, true), Vec::new());
        chunks.into_iter().for_each(|chunk| lines.take(chunk, TIME, &mut out));
        lines.finish(TIME, &mut out);
        lines.finish(TIME, &mut out);
        out
    }

    #[test]
    fn lines_byte_by_byte() {
        let bytes = b"one\n\ntwo \xff\0\r\n three  \nfour";
        for (format, tag, last) in [(Format::Plain, "", ""), (Format::Cri, "F ", "F:eof ")] {
            let head = |tag: &str| format!("{TIME} stderr {tag}").into_bytes();
            let (full, last) = (head(tag), head(last));
            let expected =
                [&full[..], b"one\n", &full, b"\n", &full, b"two \xff\0\r\n", &full, b" three  \n", &last, b"four\n"]
                    .concat();
            for size in [1, 2, 100] {
                assert_eq!(written(format, bytes.chunks(size)), expected, "{format:?} by {size}");
            }
        }
    }

    #[test]
    fn a_long_line_is_in_parts() {
        let head = |tag| format!("{TIME} stderr {tag} ").into_bytes();
        let longest = Format::Cri.longest();
        for (more, tail) in [(0, vec![]), (1, [&head('F'), &b"x\n"[..]].concat())] {
            let line = vec![b'x'; longest + more];
            let out = written(Format::Cri, [&line[..], b"\n"]);
            let first = [&head(if more == 0 { 'F' } else { 'P' })[..], &line[..longest], b"\n"].concat();
            assert!(out == [first, tail].concat(), "{more}");
        }
    }

    proptest! {
        /// However it comes, no byte is lost: the texts of all lines are the output.
        #[test]
        fn nothing_is_lost(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 0..12)) {
            let all: Vec<u8> = chunks.concat();
            let out = written(Format::Cri, chunks.iter().map(Vec::as_slice));
            let mut text = Vec::<u8>::new();
            for line in out.split_inclusive(|byte| *byte == b'\n') {
                let line = &line[format!("{TIME} stderr ").len()..];
                let (tag, line) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap() + 1);
                prop_assert!(line.len() <= Format::Cri.longest() + 1);
                text.extend(&line[..line.len() - usize::from(tag != b"F ")]);
            }
            prop_assert_eq!(text, all);
        }
    }
}
