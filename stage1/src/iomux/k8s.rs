//! Log files as kubelets read them: every line of output with its time and stream.
//!
//! | format | line |
//! |---|---|
//! | `k8s-plain` | `<time> <stdout\|stderr> <line>` |
//! | `k8s-cri` | `<time> <stdout\|stderr> <P\|F> <line>`: `P` for a part of a line, more of it follows |
//!
//! The time is RFC 3339 in UTC with nine digits of a second: when the line's first byte came. A line is written when
//! it has ended, or when it is as long as [`Format::longest`]: then it goes on in the next line of the file. What has
//! no line end at the app's end is written with one.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};

use crate::appc::{self, PodManifest};
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::PodApp;
use crate::sys::dir::{self, Target};

/// Annotation of a pod manifest: the format of its apps' log files.
pub const LOG_MODE: &str = "coreos.com/rkt/experiment/logmode";
/// Annotation of a pod manifest: the directory of the host that they are in.
pub const LOG_DIR: &str = "coreos.com/rkt/experiment/kubernetes-log-dir";
/// Annotation of an app in the pod manifest: the file, below that directory.
pub const LOG_PATH: &str = "coreos.com/rkt/experiment/kubernetes-log-path";

/// Longest path of a log file below its directory.
const MAX_PATH: usize = 1024;

/// How the lines of a log file look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As rkt writes them.
    Plain,
    /// As kubelets of today read them.
    Cri,
}

impl Format {
    /// Its name in the annotation.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "k8s-plain",
            Self::Cri => "k8s-cri",
        }
    }

    /// The longest text of one line of the file, in bytes.
    pub const fn longest(self) -> usize {
        match self {
            Self::Plain => 256 << 10,
            Self::Cri => 16 << 10,
        }
    }
}

impl std::str::FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "k8s-plain" => Ok(Self::Plain),
            "k8s-cri" => Ok(Self::Cri),
            _ => Err(Error::new(format!("log mode {text:?}: use k8s-plain or k8s-cri"))),
        }
    }
}

/// A log file of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Format of its lines.
    pub format: Format,
    /// Where it is below the directory of the pod's log files.
    pub path: String,
}

impl LogFile {
    /// # Errors
    /// The path is empty, absolute, too long, leads out of its directory, or has control characters.
    pub fn new(format: Format, path: &str) -> Result<Self> {
        check_path(path).context(|| format!("log file {path:?}"))?;
        Ok(Self { format, path: path.to_owned() })
    }

    /// The log file that the annotations of an app and its pod ask for, and its directory on the host.
    ///
    /// # Errors
    /// They don't fit together, or have values that mean nothing.
    pub fn declared(pod: &PodManifest, app: &PodApp) -> Result<Option<(Self, String)>> {
        let Some(path) = appc::find(&app.runtime.annotations, LOG_PATH) else { return Ok(None) };
        let Some(mode) = appc::find(&pod.annotations, LOG_MODE) else { return Ok(None) };
        let file = Self::new(mode.parse().context(|| format!("annotation {LOG_MODE}"))?, path)
            .context(|| format!("annotation {LOG_PATH}"))?;
        let dir = appc::find(&pod.annotations, LOG_DIR)
            .context(|| format!("the app has a log file, but the pod no annotation {LOG_DIR}"))?;
        if !dir.starts_with('/') || dir.contains('\0') {
            return Err(Error::new(format!("annotation {LOG_DIR}: {dir:?} is not an absolute path")));
        }
        Ok(Some((file, dir.to_owned())))
    }
}

/// A path below a directory: relative, no `..`, names a file.
fn check_path(path: &str) -> Result<()> {
    let plain = Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
    if path.is_empty() || path.ends_with('/') || !plain {
        return Err(Error::new("not a relative path without \"..\""));
    }
    if path.len() > MAX_PATH || path.chars().any(char::is_control) {
        return Err(Error::new("too long, or with control characters"));
    }
    Ok(())
}

/// One stream's part in a log file: what has come of its line so far.
#[derive(Debug)]
pub(super) struct Lines {
    stream: &'static str,
    format: Format,
    text: Vec<u8>,
    began: Duration,
}

impl Lines {
    pub(super) fn new(stream: &'static str, format: Format) -> Self {
        Self { stream, format, text: Vec::new(), began: Duration::ZERO }
    }

    /// Takes output that has come at `now` (since 1970), and gives what is to be written.
    pub(super) fn take(&mut self, mut bytes: &[u8], now: Duration) -> Vec<u8> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            if self.text.is_empty() {
                self.began = now;
            }
            let room = self.format.longest() - self.text.len();
            // The line end needs no room.
            let part = &bytes[..bytes.len().min(room + 1)];
            match part.iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    self.text.extend(&bytes[..at]);
                    bytes = &bytes[at + 1..];
                    self.write(b'F', &mut out);
                }
                None => {
                    let count = part.len().min(room);
                    self.text.extend(&bytes[..count]);
                    bytes = &bytes[count..];
                    if count < part.len() {
                        self.write(b'P', &mut out);
                    }
                }
            }
        }
        out
    }

    /// What is left at the end of the output.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.text.is_empty() {
            self.write(b'F', &mut out);
        }
        out
    }

    fn write(&mut self, tag: u8, out: &mut Vec<u8>) {
        out.extend(rfc3339(self.began).as_bytes());
        out.push(b' ');
        out.extend(self.stream.as_bytes());
        out.push(b' ');
        if self.format == Format::Cri {
            out.extend([tag, b' ']);
        }
        out.append(&mut self.text);
        out.push(b'\n');
    }
}

/// The time now, since 1970.
pub(super) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time since 1970 as RFC 3339 has it, in UTC, with nanoseconds.
fn rfc3339(time: Duration) -> String {
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Years that begin in March: the day that some have more is their last.
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

/// A log file that is being written. Pod side.
#[derive(Debug)]
pub(super) struct Log {
    directory: OwnedFd,
    path: String,
    file: File,
    failed: bool,
}

impl Log {
    /// Opens the file, and makes it and the directories on its way if they are not there.
    pub(super) fn open(file: &LogFile) -> Result<Self> {
        let directory = dir::open_dir(layout::LOG_FILES)?;
        let opened = create(&directory, &file.path)?;
        Ok(Self { directory, path: file.path.clone(), file: opened, failed: false })
    }

    /// Opens it anew: it may have been renamed.
    pub(super) fn reopen(&mut self) -> Result<()> {
        self.file = create(&self.directory, &self.path)?;
        self.failed = false;
        Ok(())
    }

    /// Adds to the file. An app does not end because of a full disk: it is said once.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.file.write_all(bytes) {
            Ok(()) => self.failed = false,
            Err(_) if self.failed => {}
            Err(error) => {
                self.failed = true;
                log::warn!("write log file {:?}: {error}", self.path);
            }
        }
    }
}

fn create(directory: &OwnedFd, path: &str) -> Result<File> {
    let what = || format!("open log file {path:?}");
    let (parent, name) = dir::split(Path::new(path))?;
    let parent = match parent.as_os_str().is_empty() {
        true => directory.try_clone().context(what)?,
        false => {
            dir::create_in(directory, parent, Target::Directory).context(what)?;
            // Not by a link: those may lead to other files of the same directory.
            dir::open_beneath(directory, parent, OFlags::PATH | OFlags::DIRECTORY).context(what)?
        }
    };
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o640)).context(what)?;
    let stat = rustix::fs::fstat(&file).context(what)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(Error::new(format!("{}: not a regular file", what())));
    }
    Ok(File::from(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Duration = Duration::new(951_825_600, 5);

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

    #[test]
    fn lines_byte_by_byte() {
        let bytes = b"one\n\ntwo \xff\0\r\nthree";
        let expected = |tag: &str| {
            let head = format!("2000-02-29T12:00:00.000000005Z stderr {tag}").into_bytes();
            [&head[..], b"one\n", &head, b"\n", &head, b"two \xff\0\r\n", &head, b"three\n"].concat()
        };
        for (format, tag) in [(Format::Plain, ""), (Format::Cri, "F ")] {
            for size in [1, 2, 100] {
                let mut lines = Lines::new("stderr", format);
                let mut out: Vec<u8> = bytes.chunks(size).flat_map(|chunk| lines.take(chunk, NOON)).collect();
                out.extend(lines.finish());
                assert_eq!(out, expected(tag), "{format:?} by {size}");
                assert!(lines.finish().is_empty());
            }
        }
    }

    #[test]
    fn a_long_line_is_in_parts() {
        let head = |tag| format!("2000-02-29T12:00:00.000000005Z stdout {tag} ").into_bytes();
        let longest = Format::Cri.longest();
        for (more, tail) in [(0, vec![]), (1, [&head('F'), &b"x\n"[..]].concat())] {
            let line = vec![b'x'; longest + more];
            let mut lines = Lines::new("stdout", Format::Cri);
            let mut out = lines.take(&line, NOON);
            out.extend(lines.take(b"\n", NOON));
            let first = [&head(if more == 0 { 'F' } else { 'P' })[..], &line[..longest], b"\n"].concat();
            assert!(out == [first, tail].concat(), "{more}");
        }
    }

    #[test]
    fn paths_stay_below_their_directory() {
        for good in ["a.log", "pod/web_0.log", "a/b/c", "..a", "a b"] {
            LogFile::new(Format::Plain, good).unwrap();
        }
        let long = "x".repeat(MAX_PATH + 1);
        for bad in ["", "/a", "..", "../a", "a/../../b", "a/..", "a/", "./a", "a\nb", "a\0", &long] {
            assert!(LogFile::new(Format::Plain, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_link_is_followed() {
        use std::os::unix::fs::symlink;
        let tmp = tempfile::tempdir().unwrap();
        let logs = tmp.path().join("logs");
        std::fs::create_dir_all(tmp.path().join("outside")).unwrap();
        std::fs::create_dir(&logs).unwrap();
        symlink("../outside", logs.join("out")).unwrap();
        symlink("../outside/file", logs.join("link")).unwrap();
        nix::unistd::mkfifo(&logs.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let directory = dir::open_dir(&logs).unwrap();
        for bad in ["out/a.log", "link", "fifo"] {
            assert!(create(&directory, bad).is_err(), "{bad}");
        }
        assert_eq!(std::fs::read_dir(tmp.path().join("outside")).unwrap().count(), 0);
        create(&directory, "a/b/c.log").unwrap().write_all(b"one").unwrap();
        create(&directory, "a/b/c.log").unwrap().write_all(b" two").unwrap();
        assert_eq!(std::fs::read(logs.join("a/b/c.log")).unwrap(), b"one two");
    }

    proptest! {
        /// However it comes, no byte is lost: the texts of all lines are the output.
        #[test]
        fn nothing_is_lost(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9000), 0..12)) {
            let all: Vec<u8> = chunks.concat();
            let mut lines = Lines::new("stdout", Format::Cri);
            let mut out: Vec<u8> = chunks.iter().flat_map(|chunk| lines.take(chunk, NOON)).collect();
            out.extend(lines.finish());
            let mut text = Vec::<u8>::new();
            for line in out.split_inclusive(|byte| *byte == b'\n') {
                let line = &line["2000-02-29T12:00:00.000000005Z stdout ".len()..];
                prop_assert!(line.len() <= Format::Cri.longest() + 3);
                text.extend(&line[2..line.len() - usize::from(line[0] == b'P')]);
            }
            let ends = all.is_empty() || all.ends_with(b"\n");
            prop_assert_eq!(&text[..text.len() - usize::from(!ends)], &all[..]);
        }
    }
}
