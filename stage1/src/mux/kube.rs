//! Log files of apps where a kubelet reads them: in a directory of the host, as annotations of pod and app say.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::streams::{Format, LogFile};
use crate::sys::dir::{self, EntryKind};

/// A log file that is being written. Host side.
#[derive(Debug)]
pub(super) struct KubeLog {
    pub(super) format: Format,
    directory: OwnedFd,
    path: String,
    file: File,
    failed: bool,
}

impl KubeLog {
    /// Opens the file; makes it and its missing parent directories.
    pub(super) fn open(file: &LogFile, directory: &str) -> Result<Self> {
        let directory = dir::open_dir(directory).context(|| "directory of log files")?;
        let opened = create(&directory, &file.path)?;
        Ok(Self { format: file.format, directory, path: file.path.clone(), file: opened, failed: false })
    }

    /// Opens it anew: it may have been renamed.
    pub(super) fn reopen(&mut self) -> Result<()> {
        self.file = create(&self.directory, &self.path)?;
        self.failed = false;
        Ok(())
    }

    /// Appends to the file. A failure does not end the app, as on a full disk; only the first of several is logged.
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
            dir::create_in(directory, parent, EntryKind::Directory).context(what)?;
            // Do not follow a link: it may lead to another file of the same directory.
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
}
