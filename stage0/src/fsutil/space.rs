//! Keeping some space of the file system free for running pods while images and copies are written.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{StatVfs, fstatvfs};
use stage1::error::{Context, Error, Result};

use crate::interrupt;

/// [`Room`] calls statfs(2) again after this many bytes or calls.
const BYTES: u64 = 4 << 20;
const FILES: u32 = 256;
/// The space that stays free: a hundredth of the file system, but at least and at most this many bytes.
const KEPT: (u64, u64) = (1 << 20, 64 << 20);
/// The number of inodes that stay free.
const KEPT_FILES: u64 = 64;

/// The free space of the file system of an open directory, checked from time to time.
#[derive(Debug)]
pub(crate) struct Room {
    dir: OwnedFd,
    bytes: u64,
    files: u32,
}

impl Room {
    /// Watches the file system that `dir` is on.
    pub(crate) fn of(dir: OwnedFd) -> Self {
        // so the first call of `take` checks
        Self { dir, bytes: BYTES, files: 0 }
    }

    /// Call it before writing `bytes` to a file, or with 0 before making a file.
    ///
    /// # Errors
    /// The file system has too little free space or too few free inodes, or a signal came ([`interrupt::check`]).
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

/// Says what the file system of `path` lacks, if less than the reserve is free; `None` also if statvfs(3) fails.
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
    // btrfs and others report 0 inodes in total
    let kept = KEPT_FILES.min(stat.f_files);
    (stat.f_files > 0 && stat.f_favail < kept).then(|| {
        format!(
            "no inodes left on the file system of the data directory: {} are free, {kept} stay reserved",
            stat.f_favail
        )
    })
}

/// A writer that fails once the file system has too little free space.
pub(crate) struct Watched<W> {
    to: W,
    room: Room,
}

impl<W: Write> Watched<W> {
    /// Writes to `to`, which must be on the file system of `room`.
    pub(crate) fn new(to: W, room: Room) -> Self {
        Self { to, room }
    }

    /// Returns the wrapped writer.
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
