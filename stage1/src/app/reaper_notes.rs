//! Notes for the reaper. Pod side: why an app could not be started, from `app-exec`, and that `app-stop` stops it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::remove_if_there;

/// The longest reason that is written, in bytes.
const MAX_WHY: usize = 4096;
/// The largest note that is read, in bytes.
const MAX_NOTE: u64 = 64 << 10;

/// Why an app could not be started.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct StartFailure {
    /// The reason, on one line.
    pub(super) why: String,
    /// A handler of `pre-start` failed, or could not be run: the app's own command was not executed.
    pub(super) before_start: bool,
}

/// An app's note. It is opened before this process takes the app's root and user, which can't reach it.
pub(super) struct Note(File);

impl Note {
    pub(super) fn open(app: &AcName) -> Result<Self> {
        let path = layout::note(app);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd: OwnedFd =
            rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).context(|| format!("open the note {path:?}"))?;
        Ok(Self(File::from(fd)))
    }

    /// Replaces the note with `error`. A failure is only logged, as the caller reports `error` itself.
    pub(super) fn write(&mut self, error: &Error, before_start: bool) {
        let mut why = error.one_line();
        why.truncate(why.floor_char_boundary(MAX_WHY));
        let failure = StartFailure { why, before_start };
        let written = serde_json::to_vec(&failure).map_err(Into::into).and_then(|text| {
            self.0.rewind()?;
            self.0.set_len(0)?;
            self.0.write_all(&text)
        });
        if let Err(io) = written {
            log::warn!("the note on this failure can't be written: {io}");
        }
    }

    /// The text that another process with the same descriptor has written.
    pub(super) fn read(&mut self) -> Result<Option<StartFailure>> {
        self.0.rewind().context(|| "read the note")?;
        parse(&self.0)
    }
}

/// Reads and removes an app's note; `None` if it is missing or empty.
///
/// # Errors
/// It can't be read or removed, or is not a note.
pub(super) fn take(app: &AcName) -> Result<Option<StartFailure>> {
    let path = layout::note(app);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.context(|| format!("open {path:?}"))?,
    };
    let failure = parse(&file);
    std::fs::remove_file(&path).context(|| format!("remove {path:?}"))?;
    failure
}

/// Tells the reaper that `app-stop` stops the app, so that it need not ask systemd whether the pod ends. Dropping it
/// removes the note.
pub(super) struct StopNote(PathBuf);

impl StopNote {
    /// Leaves the note. A failure is only logged: without the note the reaper asks systemd.
    pub(super) fn leave(app: &AcName) -> Self {
        let path = layout::stop_note(app);
        if let Err(error) = File::create(&path).context(|| format!("create {path:?}")) {
            log::warn!("{}", error.one_line());
        }
        Self(path)
    }

    /// Whether the app is being stopped by `app-stop`.
    pub(super) fn is_left(app: &AcName) -> bool {
        layout::stop_note(app).symlink_metadata().is_ok()
    }

    /// Removes the note of an `app-stop` that was killed.
    pub(super) fn remove_stale(app: &AcName) -> Result<()> {
        remove_if_there(&layout::stop_note(app))
    }
}

impl Drop for StopNote {
    fn drop(&mut self) {
        if let Err(error) = remove_if_there(&self.0) {
            log::warn!("{}", error.one_line());
        }
    }
}

fn parse(file: &File) -> Result<Option<StartFailure>> {
    let mut text = Vec::new();
    file.take(MAX_NOTE).read_to_end(&mut text).context(|| "read the note")?;
    if text.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text).context(|| "the note on a failed start does not parse")
}
