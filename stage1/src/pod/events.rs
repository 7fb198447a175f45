//! Events of a pod and its apps: a file of limited size with a JSON object on each line.
//!
//! A pod has two such files: the host's in the pod's directory, and the pod's own in its `/rkt`.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::dir;

/// Maximum size of a file, in bytes. A file that would grow beyond it is renamed, and replaces the one renamed before.
pub const MAX_EVENTS: u64 = 256 << 10;
/// Longest text of an event, in bytes.
const MAX_TEXT: usize = 1024;
/// How long a writer waits for the lock of another one, and how often it tries.
const OTHERS: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(5);

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Time, in nanoseconds since 1970.
    pub time: i64,
    /// Kind: `started`, `exited`, `out-of-memory`, `restarting`, `gave-up`, `healthy`, `unhealthy`, `added`, `removed`,
    /// `paused`, `unpaused` of an app; `pod-started`, `pod-paused`, `pod-unpaused`, `pod-ended`, `pod-removed`.
    pub event: String,
    /// Name of the app; `None` if it is an event of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Exit status, or 128 plus the number of the signal that killed the main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Name of the signal that killed the main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Details, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Event {
    /// An event of kind `event` at the current time.
    pub fn now(event: &str, app: Option<&AcName>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            time: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            event: event.to_owned(),
            app: app.map(ToString::to_string),
            ..Self::default()
        }
    }

    /// Appends it to the pod's own file. Pod side. A failure is logged only.
    pub fn note_in_pod(self) {
        self.note(Path::new(layout::IN_POD_EVENTS_DIR), layout::EVENTS);
    }

    /// Appends it to the file `name` of the directory `dir`. Host side. A failure is logged only.
    pub fn note(mut self, dir: &Path, name: &str) {
        for text in [&mut self.why, &mut self.signal].into_iter().flatten() {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
        }
        let noted = serde_json::to_vec(&self).context(|| "write an event").and_then(|mut line| {
            line.push(b'\n');
            append(&dir::open_dir(dir)?, name, &line)
        });
        if let Err(error) = noted {
            log::warn!("event {}: {}", self.event, error.one_line());
        }
    }
}

/// Name of the file that the file `name` is renamed to when it is full.
pub fn put_aside(name: &str) -> String {
    format!("{name}.old")
}

/// Parses the lines of a file of events, as [`Event`] or as a type with more fields. Lines that are not events are
/// skipped, because the pod may have written them.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Vec<T> {
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn append(dir: &OwnedFd, name: &str, line: &[u8]) -> Result<()> {
    let shown = || format!("append to {name:?}");
    loop {
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).context(shown)?;
        let stat = rustix::fs::fstat(&file).context(shown)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new(format!("{name:?} is not a regular file")));
        }
        let is_mine = lock(file.as_fd())?;
        // The previous holder of the lock may have renamed it.
        let there = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_there = there.is_ok_and(|there| (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino));
        let size = u64::try_from(rustix::fs::fstat(&file).context(shown)?.st_size).unwrap_or(0);
        if is_mine && !is_there {
            continue;
        }
        if is_mine && size > 0 && size + line.len() as u64 > MAX_EVENTS {
            rustix::fs::renameat(dir, name, dir, put_aside(name).as_str()).context(shown)?;
            continue;
        }
        return File::from(file).write_all(line).context(shown);
    }
}

/// Locks the file until it is closed, so that no other writer renames it: flock(2). `false` if it timed out: a frozen
/// process may hold the lock.
fn lock(file: impl AsFd) -> Result<bool> {
    let mut left = OTHERS;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::AGAIN | Errno::INTR) if left.is_zero() => return Ok(false),
            Err(Errno::AGAIN | Errno::INTR) => std::thread::sleep(PAUSE),
            Err(errno) => return Err(errno).context(|| "flock"),
        }
        left = left.saturating_sub(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_kept_and_bounded() {
        let tmp = tempfile::tempdir().unwrap();
        let app = "db".parse().unwrap();
        let read = |name: &str| parse::<Event>(&std::fs::read(tmp.path().join(name)).unwrap_or_default());
        Event { exit_code: Some(3), ..Event::now("exited", Some(&app)) }.note(tmp.path(), "events");
        let found = read("events");
        assert_eq!(
            (found[0].event.as_str(), found[0].app.as_deref(), found[0].exit_code),
            ("exited", Some("db"), Some(3))
        );
        assert!(found[0].time > 1_700_000_000_000_000_000);
        let long = || Event { why: Some("x".repeat(5000)), ..Event::now("started", None) };
        for _ in 0..600 {
            long().note(tmp.path(), "events");
        }
        let sizes = ["events", "events.old"].map(|name| tmp.path().join(name).metadata().unwrap().len());
        assert!(sizes.iter().all(|size| *size <= MAX_EVENTS) && sizes[1] > MAX_EVENTS / 2, "{sizes:?}");
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 2);
        assert!(read("events.old").len() > 100, "each line is whole");
    }

    #[test]
    fn a_frozen_writer_stops_nobody_and_no_link_is_followed() {
        let tmp = tempfile::tempdir().unwrap();
        Event::now("started", None).note(tmp.path(), "events");
        let held = File::open(tmp.path().join("events")).unwrap();
        rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
        Event::now("exited", None).note(tmp.path(), "events");
        assert_eq!(parse::<Event>(&std::fs::read(tmp.path().join("events")).unwrap()).len(), 2);
        std::fs::write(tmp.path().join("other"), "kept").unwrap();
        std::os::unix::fs::symlink("other", tmp.path().join("link")).unwrap();
        Event::now("started", None).note(tmp.path(), "link");
        assert_eq!(std::fs::read(tmp.path().join("other")).unwrap(), b"kept");
    }

    #[test]
    fn what_is_no_event_is_left_out() {
        let text = b"{\"time\":1,\"event\":\"started\"}\nnonsense\n{\"time\":2}\n{\"time\":3,\"event\":\"exi";
        assert_eq!(parse::<Event>(text).len(), 1);
    }
}
