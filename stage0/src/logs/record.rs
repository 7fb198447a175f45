//! The lines of log files, whose format is that of the stage1's `mux::lines`.

use super::line::Stream;

/// The longest line of a file that is read, in bytes: the monitor writes none that is a tenth as long.
pub(super) const LONGEST_RECORD: usize = 1 << 20;

/// How long a time is, in bytes, as the monitor writes it: RFC 3339 in UTC with nine digits of a second.
const TIME: usize = 30;

/// A line of a file.
pub(super) struct Record<'a> {
    /// ASCII.
    pub(super) time: &'a [u8],
    pub(super) stream: Stream,
    pub(super) tag: &'a [u8],
    pub(super) text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Of a line without its end; `None` if it is none of the monitor's.
    pub(super) fn parse(record: &'a [u8]) -> Option<Self> {
        // Nearly all of them are like this: their words need not be searched for.
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

    /// Whether a line of the app's ends here.
    pub(super) fn ends_line(&self) -> bool {
        self.tag != b"P"
    }
}
