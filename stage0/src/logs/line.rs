//! A line of an app's log.

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error, and syslog(3).
    Stderr,
}

impl Stream {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What ended a line, if that was not a newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineBreak {
    /// It is too long, and goes on in the next one.
    LineMax,
    /// It is the end of all that the app has written.
    Eof,
}

impl LineBreak {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::LineMax => "line-max",
            Self::Eof => "eof",
        }
    }
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When the end of it came: RFC 3339 in UTC with nine digits of a second, so times are in the order of their text.
    pub time: &'a str,
    /// The app whose it is.
    pub app: &'a str,
    /// Where it comes from.
    pub stream: Stream,
    /// What ended it.
    pub line_break: Option<LineBreak>,
    /// The line itself.
    pub message: &'a [u8],
}
