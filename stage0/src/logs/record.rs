//! The lines of log files, whose format is that of the stage1's `mux::lines`.

use super::line::Stream;

/// The longest line of a file that is read, in bytes: the monitor writes none that is a tenth as long.
pub(super) const LONGEST_RECORD: usize = 1 << 20;

/// A line of a file.
pub(super) struct Record<'a> {
    pub(super) time: &'a str,
    pub(super) stream: Stream,
    pub(super) tag: &'a [u8],
    pub(super) text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Of a line without its end; `None` if it is none of the monitor's.
    pub(super) fn parse(record: &'a [u8]) -> Option<Self> {
        let split = |bytes: &'a [u8]| memchr::memchr(b' ', bytes).map(|at| (&bytes[..at], &bytes[at + 1..]));
        let (time, rest) = split(record)?;
        let (stream, rest) = split(rest)?;
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        let (tag, text) = split(rest)?;
        Some(Self { time: std::str::from_utf8(time).ok()?, stream, tag, text })
    }

    /// Whether a line of the app's ends here.
    pub(super) fn ends_line(&self) -> bool {
        self.tag != b"P"
    }
}
