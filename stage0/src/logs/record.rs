//! The records of log files. `stage1::mux::lines` defines their format.

use super::line::Stream;

/// The longest record that is read, in bytes; the monitor's records have less than a tenth of that.
pub(super) const LONGEST_RECORD: usize = 1 << 20;

/// The length of a time as the monitor writes it, in bytes: RFC 3339 in UTC with nine digits of a second.
const TIME: usize = 30;

/// A record: one line of a log file, which holds a line of the app or a part of one.
pub(super) struct Record<'a> {
    /// The time, in ASCII.
    pub(super) time: &'a [u8],
    pub(super) stream: Stream,
    pub(super) tag: &'a [u8],
    pub(super) text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Parses a record without its newline; `None` if it does not have the monitor's format.
    pub(super) fn parse(record: &'a [u8]) -> Option<Self> {
        // The fast path for nearly all records, whose fields have fixed lengths.
        if let Some((head, text)) = record.split_at_checked(TIME + b" stdout F ".len())
            && let (time, words) = head.split_at(TIME)
            && time.is_ascii()
            && !time.contains(&b' ')
        {
            match words {
                b" stdout F " => return Some(Self { time, stream: Stream::Stdout, tag: b"F", text }),
                b" stderr F " => return Some(Self { time, stream: Stream::Stderr, tag: b"F", text }),
                _ => {}
            }
        }
        let split = |bytes: &'a [u8]| memchr::memchr(b' ', bytes).map(|at| (&bytes[..at], &bytes[at + 1..]));
        let (time, rest) = split(record).filter(|(time, _)| time.is_ascii())?;
        let (stream, rest) = split(rest)?;
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let (tag, text) = split(rest)?;
        Some(Self { time, stream, tag, text })
    }

    /// Whether a line of the app ends with this record.
    pub(super) fn ends_line(&self) -> bool {
        self.tag != b"P"
    }
}
