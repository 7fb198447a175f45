//! A line of an app's log.

/// The stream that the app wrote a line to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error, and syslog(3).
    Stderr,
}

impl Stream {
    /// `stdout` or `stderr`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What ended a line instead of a newline; named as in journald's `_LINE_BREAK=`, systemd.journal-fields(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineBreak {
    /// The line is too long and goes on in the next one.
    LineMax,
    /// The app closed the stream, or the pod ended.
    Eof,
}

impl LineBreak {
    /// `line-max` or `eof`.
    pub fn word(self) -> &'static str {
        match self {
            Self::LineMax => "line-max",
            Self::Eof => "eof",
        }
    }
}

/// One line of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When the monitor read the end of the line: RFC 3339 in UTC with nine digits of a second, so that comparing texts
    /// compares times.
    pub time: &'a str,
    /// The app that wrote it.
    pub app: &'a str,
    /// The stream it was written to.
    pub stream: Stream,
    /// What ended it; `None` for a newline.
    pub line_break: Option<LineBreak>,
    /// The text, without the newline.
    pub message: &'a [u8],
}
