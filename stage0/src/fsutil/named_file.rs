//! Writing a file that the user named, of which a kill leaves nothing behind.
//!
//! The file has no name (O_TMPFILE) until it is whole. Where the file system can't do that, it has a temporary name, and
//! its writer a lock on it: the next writer in that directory removes it if nobody holds the lock.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};

use super::dir;
use super::lock::{self, Kind};

/// The start of temporary names.
const TEMPORARY: &str = ".podctl-export-";
/// Permissions of new files, before the umask.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// Writes a file that the user named, atomically and synced. An existing one is replaced only if `overwrite` is set.
///
/// # Errors
/// The file exists and `overwrite` is not set, `write` fails, or the file can't be made, synced or named. Nothing is left
/// of it then.
pub(crate) fn write(path: &Path, overwrite: bool, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let Some(name) = path.file_name().filter(|_| !path.as_os_str().as_encoded_bytes().ends_with(b"/")) else {
        return Err(Error::new(format!("can't write {path:?}: it does not name a file")));
    };
    if !overwrite && path.symlink_metadata().is_ok() {
        return Err(exists(path));
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // all names are relative to this descriptor, as `write` may move this process to another mount namespace
    let directory = dir::open_dir_of_user(above).map_err(|error| match dir::missing(path, error) {
        Ok(missing) => Error::new(format!("can't write {}", missing.one_line())),
        Err(error) => Error::caused_by(format!("can't write {path:?}"), error),
    })?;
    let place = Place { directory: directory.as_fd(), name, path, overwrite };
    sweep(place.directory, above);
    match place.unnamed()? {
        Some(file) => place.fill(&file, write).and_then(|()| place.link(&file)),
        None => {
            let (file, temporary) = place.temporary()?;
            match place.fill(&file, write).and_then(|()| place.rename(&temporary)) {
                Ok(()) => Ok(()),
                Err(error) => place.remove(&temporary).and(Err(error)),
            }
        }
    }
}

fn exists(path: &Path) -> Error {
    Error::new(format!("{path:?} exists: --overwrite replaces it"))
}

fn new_name() -> OsString {
    format!("{TEMPORARY}{}", uuid::Uuid::new_v4()).into()
}

/// Where the file is to be.
struct Place<'a> {
    directory: BorrowedFd<'a>,
    name: &'a OsStr,
    /// Its path for messages.
    path: &'a Path,
    overwrite: bool,
}

impl Place<'_> {
    fn shown(&self) -> String {
        format!("write {:?}", self.path)
    }

    fn fill(&self, file: &File, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
        write(file)?;
        file.sync_all().context(|| self.shown())
    }

    /// A file without a name in the directory; `None` if the file system can't make one.
    fn unnamed(&self) -> Result<Option<File>> {
        match fs::openat(self.directory, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, MODE) {
            Ok(fd) => Ok(Some(fd.into())),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).context(|| self.shown()),
        }
    }

    /// Gives a file without a name its own.
    fn link(&self, file: &File) -> Result<()> {
        let from = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |name: &OsStr| fs::linkat(CWD, &from, self.directory, name, AtFlags::SYMLINK_FOLLOW);
        match link(self.name) {
            Err(Errno::EXIST) if self.overwrite => {}
            Err(Errno::EXIST) => return Err(exists(self.path)),
            linked => return linked.context(|| self.shown()),
        }
        // only a rename replaces a file; the lock keeps others from removing the temporary name
        let temporary = new_name();
        lock::try_take(file, Path::new(&temporary), Kind::Exclusive)?;
        link(&temporary).context(|| self.shown())?;
        self.rename(&temporary).or_else(|error| self.remove(&temporary).and(Err(error)))
    }

    /// A new file with a temporary name in the directory, locked.
    fn temporary(&self) -> Result<(File, OsString)> {
        loop {
            let name = new_name();
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
            let file = File::from(fs::openat(self.directory, &name, flags, MODE).context(|| self.shown())?);
            let is_locked = lock::try_take(&file, Path::new(&name), Kind::Exclusive)?;
            // a writer that sweeps the directory may have removed it before it was locked
            if is_locked && fs::fstat(&file).context(|| self.shown())?.st_nlink > 0 {
                return Ok((file, name));
            }
        }
    }

    /// Gives a file with a temporary name its own.
    fn rename(&self, temporary: &OsStr) -> Result<()> {
        let rename = || fs::renameat(self.directory, temporary, self.directory, self.name);
        let renamed = match self.overwrite {
            true => rename(),
            false => {
                match fs::renameat_with(self.directory, temporary, self.directory, self.name, RenameFlags::NOREPLACE) {
                    // the file system has no such rename
                    Err(Errno::INVAL) => rename(),
                    other => other,
                }
            }
        };
        match renamed {
            Err(Errno::EXIST) => Err(exists(self.path)),
            other => other.context(|| self.shown()),
        }
    }

    fn remove(&self, temporary: &OsStr) -> Result<()> {
        match fs::unlinkat(self.directory, temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno).context(|| format!("remove {temporary:?}")),
        }
    }
}

/// Removes the temporary files that killed writers have left in the directory. One that can't be removed only takes room:
/// that is no reason to fail.
fn sweep(directory: BorrowedFd<'_>, path: &Path) {
    for name in dir::names_in(path).unwrap_or_default() {
        let end = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY));
        if end.is_some_and(|end| uuid::Uuid::parse_str(end).is_ok()) {
            match remove_unheld(directory, &name) {
                Ok(true) => log::info!("removed {:?}, which a killed podctl has left", path.join(&name)),
                Ok(false) => {}
                Err(error) => log::debug!("{}", error.one_line()),
            }
        }
    }
}

/// Removes a file of this user that nobody has locked. Returns whether it did.
fn remove_unheld(directory: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = fs::openat(directory, name, flags, Mode::empty()).context(|| format!("open {name:?}"))?;
    let stat = fs::fstat(file.as_fd()).context(|| format!("stat {name:?}"))?;
    let is_own = stat.st_uid == rustix::process::geteuid().as_raw();
    let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
    if !is_own || !is_file || !lock::try_take(&file.into(), Path::new(name), Kind::Exclusive)? {
        return Ok(false);
    }
    fs::unlinkat(directory, name, AtFlags::empty()).context(|| format!("remove {name:?}"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            dir::names_in(dir).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("out");
        let text = |text: &'static str| move |mut file: &File| file.write_all(text.as_bytes()).context(|| "write");
        write(&path, false, text("one")).unwrap();
        let line = write(&path, false, text("two")).unwrap_err().one_line();
        assert!(line.ends_with("exists: --overwrite replaces it"), "{line}");
        write(&path, true, text("two")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        // one that appears meanwhile
        let late = tmp.path().join("late");
        let line = write(&late, false, |_| std::fs::write(&late, "x").context(|| "write")).unwrap_err().one_line();
        assert!(line.contains("exists"), "{line}");
        write(&path, true, |_| Err(Error::new("failed"))).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(names(tmp.path()), ["late", "out"]);
        let line = write(&tmp.path().join("no/out"), false, text("")).unwrap_err().one_line();
        assert!(line.starts_with("can't write ") && line.contains("there is no directory"), "{line}");
        let line = write(&tmp.path().join("out/x"), false, text("")).unwrap_err().one_line();
        assert!(line.contains("not a directory"), "{line}");
        let line = write(&tmp.path().join("no/"), false, text("")).unwrap_err().one_line();
        assert!(line.contains("does not name a file"), "{line}");
    }

    #[test]
    fn nothing_is_there_while_it_is_written_and_old_rests_go() {
        let tmp = tempfile::tempdir().unwrap();
        let rest = tmp.path().join(new_name());
        let (held, other) = (tmp.path().join(new_name()), tmp.path().join(format!("{TEMPORARY}mine")));
        for path in [&rest, &held, &other] {
            std::fs::write(path, "").unwrap();
        }
        let lock = lock::open_file(&held).unwrap();
        assert!(lock::try_take(&lock, &held, Kind::Exclusive).unwrap());
        write(&tmp.path().join("out"), false, |_| {
            assert_eq!(names(tmp.path()).len(), 2, "{:?}", names(tmp.path()));
            Ok(())
        })
        .unwrap();
        assert!(!rest.exists() && held.exists() && other.exists());
    }

    #[test]
    fn a_file_system_without_unnamed_files_gets_a_locked_one() {
        let tmp = tempfile::tempdir().unwrap();
        let directory = File::open(tmp.path()).unwrap();
        let path = tmp.path().join("out");
        let place = Place { directory: directory.as_fd(), name: "out".as_ref(), path: &path, overwrite: false };
        let (file, temporary) = place.temporary().unwrap();
        assert!(!remove_unheld(directory.as_fd(), &temporary).unwrap(), "its writer is at work");
        place.rename(&temporary).unwrap();
        drop(file);
        let (file, temporary) = place.temporary().unwrap();
        assert!(place.rename(&temporary).unwrap_err().one_line().contains("exists"));
        drop(file);
        assert!(remove_unheld(directory.as_fd(), &temporary).unwrap());
        assert_eq!(names(tmp.path()), ["out"]);
    }
}
