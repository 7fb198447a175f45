//! `podctl logs`

use std::io::{self, ErrorKind, IsTerminal, Write};

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use stage1::error::{Context, Result};

use super::output::Format;
use super::session::Session;
use crate::cli::args::candidates::an_app;
use crate::cli::args::one_app::{app_name, pod_and_app};
use crate::cli::args::pod::OnePod;
use crate::cli::args::time as when;
use crate::logs;
use crate::logs::{Line, LineBreak, LineFilter};
use crate::poddir::find as pods;

/// The size of the output buffer, in bytes.
const BUFFER: usize = 64 << 10;

/// Shows the lines of all apps, or of those named, sorted by time. On a terminal it escapes control characters;
/// elsewhere it prints them as the app wrote them.
#[derive(Args, Debug)]
pub struct Logs {
    #[command(flatten)]
    pod: OnePod,
    /// Show lines of these apps only
    #[arg(value_name = "APP", add = an_app())]
    names: Vec<String>,
    /// Show lines of this app only; may be repeated
    #[arg(short_alias = 'c', alias = "container", long, hide_short_help = true, add = an_app())]
    app: Vec<String>,
    /// Follow: wait for new lines until the pod ends
    #[arg(short, long, conflicts_with = "until")]
    follow: bool,
    /// Show lines written at this time or later: 2026-11-24T20:30:00Z, "2026-11-24 20:30:00", 10m, today
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    since: Option<Timestamp>,
    /// Show lines written at this time or earlier
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    until: Option<Timestamp>,
    /// Show this many of the last lines
    #[arg(short = 'n', long, alias = "tail", value_name = "NUMBER")]
    lines: Option<usize>,
    /// Show the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Logs {
    pub fn run(self, session: &Session) -> Result<()> {
        let mut named = self.names.iter().chain(&self.app).map(String::as_str);
        let (pod, first) = pod_and_app(&self.pod, named.next())?;
        let pod = pods::find(&session.store, pod)?;
        let apps = first.into_iter().map(Ok).chain(named.map(app_name)).collect::<Result<Vec<_>>>()?;
        let names = apps.len() != 1;
        let (since, until) = (self.since.map(time), self.until.map(time));
        let wanted = LineFilter { apps, since, until, last: self.lines, follow: self.follow };
        let mut printer = Printer {
            out: io::BufWriter::with_capacity(BUFFER, io::stdout().lock()),
            format: self.format,
            timestamps: self.timestamps,
            names,
            escape: io::stdout().is_terminal(),
            flush: self.follow,
        };
        logs::show(&session.store, &pod, &wanted, |line| printer.print(line))?;
        printer.out.flush().map(|()| true).or_else(gone).map(drop)
    }
}

/// Prints lines to `out`.
struct Printer<W: Write> {
    out: W,
    format: Format,
    timestamps: bool,
    names: bool,
    escape: bool,
    flush: bool,
}

impl<W: Write> Printer<W> {
    /// Prints a line; `false` if the reader of the output is gone.
    fn print(&mut self, line: &Line<'_>) -> Result<bool> {
        let written = match self.format {
            Format::Json => self.out.write_all(&json(line)?),
            Format::Text => self.text(line),
        };
        let written = written.and_then(|()| if self.flush { self.out.flush() } else { Ok(()) });
        written.map(|()| true).or_else(gone)
    }

    fn text(&mut self, line: &Line<'_>) -> io::Result<()> {
        if self.timestamps {
            self.out.write_all(line.time.as_bytes())?;
            self.out.write_all(b" ")?;
        }
        if self.names {
            self.out.write_all(line.app.as_bytes())?;
            self.out.write_all(b": ")?;
        }
        if self.escape {
            self.out.write_all(escaped(line.message).as_bytes())?;
        } else {
            self.out.write_all(line.message)?;
        }
        if line.line_break == Some(LineBreak::LineMax) { Ok(()) } else { self.out.write_all(b"\n") }
    }
}

/// `false` for a pipe without a reader, which is not a failure.
fn gone(error: io::Error) -> Result<bool> {
    match error.kind() {
        ErrorKind::BrokenPipe => Ok(false),
        _ => Err(error).context(|| "write to standard output"),
    }
}

/// A message for a terminal: with escapes for control characters other than the tab, and for bytes that are not UTF-8.
fn escaped(message: &[u8]) -> String {
    let mut text = String::with_capacity(message.len());
    for chunk in message.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\t' => text.push(c),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// A time in the format of the logs.
fn time(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// A line as JSON.
#[derive(Serialize)]
struct Record<'a> {
    time: &'a str,
    app: &'a str,
    stream: &'static str,
    /// What ended the line; `None` for a newline.
    #[serde(skip_serializing_if = "Option::is_none")]
    line_break: Option<&'static str>,
    message: Message<'a>,
}

/// A message that is not UTF-8 is an array of the numbers of its bytes, as in journalctl(1).
#[derive(Serialize)]
#[serde(untagged)]
enum Message<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

fn json(line: &Line<'_>) -> Result<Vec<u8>> {
    let message = std::str::from_utf8(line.message).map_or(Message::Bytes(line.message), Message::Text);
    let record = Record {
        time: line.time,
        app: line.app,
        stream: line.stream.word(),
        line_break: line.line_break.map(LineBreak::word),
        message,
    };
    let mut text = serde_json::to_vec(&record).context(|| "write as JSON")?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Stream;

    fn printed(line: &Line<'_>, how: impl Fn(&mut Printer<Vec<u8>>)) -> String {
        let mut printer = Printer {
            out: Vec::new(),
            format: Format::Text,
            timestamps: false,
            names: true,
            escape: false,
            flush: false,
        };
        how(&mut printer);
        assert!(printer.print(line).unwrap());
        String::from_utf8_lossy(&printer.out).into_owned()
    }

    #[test]
    fn lines_as_they_are_printed() {
        let time = time(Timestamp::from_microsecond(1_795_552_251_796_825).unwrap());
        let mut line = Line {
            time: &time,
            app: "a",
            stream: Stream::Stderr,
            line_break: Some(LineBreak::Eof),
            message: b"\x1b[2J\tx\xff",
        };
        assert_eq!(printed(&line, |_| {}), "a: \x1b[2J\tx\u{fffd}\n");
        assert_eq!(printed(&line, |p| (p.names, p.escape) = (false, true)), "\\u{1b}[2J\tx\\xff\n");
        assert_eq!(
            printed(&line, |p| p.format = Format::Json),
            "{\"time\":\"2026-11-24T20:30:51.796825000Z\",\"app\":\"a\",\"stream\":\"stderr\",\
             \"line_break\":\"eof\",\"message\":[27,91,50,74,9,120,255]}\n"
        );
        (line.line_break, line.message) = (Some(LineBreak::LineMax), b"m");
        assert_eq!(printed(&line, |p| p.timestamps = true), "2026-11-24T20:30:51.796825000Z a: m");
    }
}
