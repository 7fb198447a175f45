//! The note on why an app could not be started, from `app-exec` to the reaper. Pod side.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;

/// Most that is read of a note, in bytes.
const MAX_NOTE: u64 = 4096;

/// How a note begins that is about something before the app itself.
pub(super) const BEFORE_START: &str = "pre-start ";

/// An app's note, empty, opened before the app's root and user are taken on, under which it can't be reached.
pub(super) struct Note(File);

impl Note {
    pub(super) fn open(app: &AcName) -> Result<Self> {
        let path = path(app);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd: OwnedFd =
            rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).context(|| format!("open the note {path:?}"))?;
        Ok(Self(File::from(fd)))
    }

    /// Writes down `error`, in place of what is there. That this fails too is only logged: the error itself is on
    /// its way.
    pub(super) fn write(&mut self, error: &Error) {
        let line = error.one_line();
        let written = self.0.rewind().and_then(|()| self.0.set_len(0)).and_then(|()| self.0.write_all(line.as_bytes()));
        if let Err(io) = written {
            log::warn!("the note on this failure can't be written: {io}");
        }
    }

    /// What another process with the same descriptor has written.
    pub(super) fn read(&mut self) -> Result<String> {
        self.0.rewind().context(|| "read the note")?;
        text(&self.0)
    }
}

/// Takes an app's note away; `None` if there is none, or nothing in it.
pub(super) fn take(app: &AcName) -> Result<Option<String>> {
    let path = path(app);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.context(|| format!("open {path:?}"))?,
    };
    let text = text(&file)?;
    std::fs::remove_file(&path).context(|| format!("remove {path:?}"))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

fn text(file: &File) -> Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_NOTE).read_to_end(&mut bytes).context(|| "read the note")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn path(app: &AcName) -> PathBuf {
    Path::new(layout::NOTES).join(app.as_ref())
}
