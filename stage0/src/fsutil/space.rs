//! Watching how much room is left while much is written: what runs needs some of it.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{StatVfs, fstatvfs};
use stage1::error::{Context, Error, Result};

use crate::interrupt;

/// After so many bytes, or so many new files, the room is looked at again.
const BYTES: u64 = 4 << 20;
const FILES: u32 = 256;
/// What stays free: a hundredth of the file system, within these bounds.
const KEPT: (u64, u64) = (1 << 20, 64 << 20);
/// New files that stay possible.
const KEPT_FILES: u64 = 64;

/// The room on the file system of an open directory.
#[derive(Debug)]
pub(crate) struct Room {
    dir: OwnedFd,
    bytes: u64,
    files: u32,
}

impl Room {
    /// The room where the directory `dir` is.
    pub(crate) fn of(dir: OwnedFd) -> Self {
        // the first use looks
        Self { dir, bytes: BYTES, files: 0 }
    }

    /// Says that `bytes` are about to be written to a file, or a file is made.
    ///
    /// # Errors
    /// Too little is left, or podctl was told to end.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<()> {
        interrupt::check()?;
        self.bytes = self.bytes.saturating_add(bytes);
        self.files += 1;
        if self.bytes < BYTES && self.files < FILES {
            return Ok(());
        }
        (self.bytes, self.files) = (0, 0);
        shortage(&fstatvfs(&self.dir).context(|| "fstatvfs")?).map_or(Ok(()), |why| Err(Error::new(why)))
    }
}

/// What is lacking where `path` is, if little is left; nothing if that can't be told.
pub(crate) fn shortage_at(path: &Path) -> Option<String> {
    shortage(&rustix::fs::statvfs(path).ok()?)
}

fn shortage(stat: &StatVfs) -> Option<String> {
    let total = stat.f_blocks.saturating_mul(stat.f_frsize);
    let kept = (total / 100).clamp(KEPT.0, KEPT.1).min(total);
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < kept {
        return Some(format!(
            "no space left on the file system of the data directory: {} KiB are free, {} KiB stay reserved for running pods",
            free >> 10,
            kept >> 10
        ));
    }
    // some file systems don't count files
    let kept = KEPT_FILES.min(stat.f_files);
    (stat.f_files > 0 && stat.f_favail < kept).then(|| {
        format!(
            "no inodes left on the file system of the data directory: {} are free, {kept} stay reserved",
            stat.f_favail
        )
    })
}

/// A writer that watches the room.
pub(crate) struct Watched<W> {
    to: W,
    room: Room,
}

impl<W: Write> Watched<W> {
    /// Passes bytes on to `to`, which is on the file system of `room`.
    pub(crate) fn new(to: W, room: Room) -> Self {
        Self { to, room }
    }

    /// The writer below.
    pub(crate) fn into_inner(self) -> W {
        self.to
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room.take(bytes.len() as u64).map_err(io::Error::other)?;
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
