//! An app's log: the files `logs/APP/1.log`, `2.log`, … in the pod's directory, which the pod can't reach. When a file
//! has reached its size, the next one begins, and the oldest is removed when there are too many. Host side.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::buffer::empty;
use super::lines;
use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::layout;
use crate::sys::dir::{self, EntryKind};

/// How much of an app's log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At this size, in bytes, the next file begins.
    pub size: u64,
    /// How many files are kept.
    pub files: u64,
}

/// The log of an app.
#[derive(Debug)]
pub(super) struct AppLog {
    app: AcName,
    bounds: Bounds,
    number: u64,
    /// Closed while the app does not run, to save descriptors.
    file: Option<File>,
    size: u64,
    /// How many bytes could not be written, and why.
    lost: Option<(u64, String)>,
}

impl AppLog {
    /// Opens the newest log file of an app, or makes the first.
    pub(super) fn open(app: &AcName, bounds: Bounds) -> Result<Self> {
        Self::open_from(app, bounds, 1)
    }

    /// As [`Self::open`]; the new file's number is at least `least`.
    fn open_from(app: &AcName, bounds: Bounds, least: u64) -> Result<Self> {
        let path = layout::app_logs(app);
        let what = || format!("open the log {path:?}");
        match std::fs::create_dir(layout::LOGS) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error).context(what),
            _ => rustix::fs::chmod(layout::LOGS, Mode::from_raw_mode(0o750)).context(what)?,
        }
        let logs = dir::open_dir(layout::LOGS).context(what)?;
        dir::create_in(&logs, app.as_ref(), EntryKind::Directory).context(what)?;
        let directory = directory(app).context(what)?;
        let number = numbers(&directory).context(what)?.last().map_or(least, |last| least.max(*last));
        let file = create(&directory, number).context(what)?;
        let size = file.metadata().context(what)?.len();
        Ok(Self { app: app.clone(), bounds, number, file: Some(file), size, lost: None })
    }

    /// Closes the file until the next write.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Opens the file again if it is closed. If it or its directory was removed, the next number begins, so that
    /// readers see it as a later file.
    fn reopen(&mut self) -> Result<()> {
        match &self.file {
            Some(file) if rustix::fs::fstat(file).context(|| "fstat(log)")?.st_nlink > 0 => return Ok(()),
            Some(_) => {}
            None => match directory(&self.app) {
                Err(error) if error.errno() == Some(libc::ENOENT) => {}
                directory => {
                    self.file = Some(create(&directory?, self.number)?);
                    return Ok(());
                }
            },
        }
        log::warn!("the log of app {} was removed: its lines are lost, a new one begins", self.app);
        let new = Self::open_from(&self.app, self.bounds, self.number + 1)?;
        *self = Self { lost: self.lost.take(), ..new };
        Ok(())
    }

    /// Writes into the log how many bytes are missing, if there is space again.
    pub(super) fn tell_lost(&mut self) {
        if self.lost.is_some() {
            self.write(&mut Vec::new());
        }
    }

    /// Writes whole lines, and empties `text`. An app neither ends nor waits because of a full disk: bytes that can't
    /// be written are counted; a warning says so, and a line of the log as soon as there is space.
    pub(super) fn write(&mut self, text: &mut Vec<u8>) {
        let mut ahead = 0;
        if let Some((bytes, why)) = &self.lost {
            let time = lines::rfc3339(lines::now());
            let words = format!("{time} stderr F [{bytes} bytes of this log could not be written: {why}]\n");
            ahead = words.len();
            text.splice(0..0, words.into_bytes());
        }
        if text.is_empty() {
            return;
        }
        if let Err(error) = self.reopen() {
            log::warn!("log of app {}: {}", self.app, error.one_line());
        }
        let mut done = 0;
        let mut failed = None;
        while done < text.len() && failed.is_none() {
            let part = match self.rotate() {
                Ok(()) => self.part(&text[done..]),
                Err(error) => {
                    log::warn!("log of app {}: {}", self.app, error.one_line());
                    &text[done..]
                }
            };
            let (count, error) = self.append(part);
            done += count;
            failed = error;
        }
        if done >= ahead {
            self.lost = None;
        }
        if let Some(error) = failed {
            let bytes = (text.len() - done.max(ahead)) as u64;
            match &mut self.lost {
                Some((all, _)) => *all += bytes,
                None => {
                    log::warn!("write the log of app {}: {error}", self.app);
                    self.lost = Some((bytes, error.to_string()));
                }
            }
        }
        empty(text);
    }

    /// The lines with which the file has its size: the next ones go to another file.
    fn part<'a>(&self, lines: &'a [u8]) -> &'a [u8] {
        let room = usize::try_from(self.bounds.size.saturating_sub(self.size)).unwrap_or(usize::MAX);
        let last = lines.get(room.saturating_sub(1)..).and_then(|rest| memchr::memchr(b'\n', rest));
        last.map_or(lines, |at| &lines[..room.saturating_sub(1) + at + 1])
    }

    /// Writes whole lines to the file. Returns how many bytes of them are there, and why the others are not.
    fn append(&mut self, lines: &[u8]) -> (usize, Option<std::io::Error>) {
        let mut done = 0;
        let failed = loop {
            let closed = || std::io::Error::other("it can't be opened");
            match self.file.as_mut().ok_or_else(closed).and_then(|file| file.write(&lines[done..])) {
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
            if done == lines.len() {
                break None;
            }
        };
        if failed.is_some() {
            // Cut off the line that was written in part.
            done = memchr::memrchr(b'\n', &lines[..done]).map_or(0, |at| at + 1);
            if let Some(Err(error)) = self.file.as_ref().map(|file| file.set_len(self.size + done as u64)) {
                log::warn!("truncate the log of app {}: {error}", self.app);
            }
        }
        self.size += done as u64;
        (done, failed)
    }

    fn rotate(&mut self) -> Result<()> {
        if self.size < self.bounds.size {
            return Ok(());
        }
        // Rotations are rare: the directory is not kept open, to save descriptors.
        let directory = directory(&self.app)?;
        self.file = Some(create(&directory, self.number + 1)?);
        self.number += 1;
        self.size = 0;
        let oldest = (self.number + 1).saturating_sub(self.bounds.files);
        for number in numbers(&directory)?.into_iter().filter(|number| *number < oldest) {
            match rustix::fs::unlinkat(&directory, layout::log_file(number), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).context(|| format!("unlink({:?})", layout::log_file(number))),
            }
        }
        Ok(())
    }
}

fn directory(app: &AcName) -> Result<OwnedFd> {
    dir::open_beneath(rustix::fs::CWD, layout::app_logs(app), OFlags::RDONLY | OFlags::DIRECTORY)
}

/// The numbers of the files in an app's directory, in order.
fn numbers(directory: &OwnedFd) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in Dir::read_from(directory).context(|| "read directory")? {
        let entry = entry.context(|| "read directory")?;
        numbers.extend(entry.file_name().to_str().ok().and_then(layout::log_file_number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn create(directory: &OwnedFd, number: u64) -> Result<File> {
    let name = layout::log_file(number);
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, &name, flags, Mode::from_raw_mode(0o640))
        .map(File::from)
        .context(|| format!("open({name:?})"))
}
