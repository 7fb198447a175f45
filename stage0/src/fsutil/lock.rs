//! Locks of files and directories (flock(2)), with a deadline; the error names the processes that hold the lock.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use stage1::error::{Context, Error, Result};
use stage1::sys::dir::same_file;

use crate::fsutil::dir::open_dir;

/// How long to wait for a lock that others hold for moments only.
pub(crate) const MOMENTS: Duration = Duration::from_secs(60);
/// How long to wait for a lock under which entrypoints run: they may take five minutes plus the app's stop timeout.
pub(crate) const ENTRYPOINTS: Duration = Duration::from_secs(660);
/// Mode of lock files: closed to other users, because a process that can open a file can lock it.
pub(crate) const FILE_MODE: u32 = 0o600;
/// An error names at most this many holders.
const NAMED: usize = 3;

/// The kind of a lock, as in flock(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `LOCK_EX`: one holder.
    Exclusive,
    /// `LOCK_SH`: any number of holders, none of them exclusive.
    Shared,
}

/// Locks an open file or directory, which messages call `path`; waits at most `limit` while others hold the lock.
///
/// # Errors
/// flock(2) fails, or the lock is still held after `limit`: the message names the processes that hold it.
pub(crate) fn wait(file: &File, path: &Path, kind: Kind, limit: Duration) -> Result<()> {
    if try_take(file, path, kind)? {
        return Ok(());
    }
    // Waiting in flock(2) queues in the order of the requests, but flock(2) has no timeout; so a thread waits. It
    // shares the open file description, so the lock that it gets belongs to `file`.
    let waiting = file.try_clone().context(|| format!("dup({path:?})"))?;
    let (send, receive) = mpsc::channel();
    let operation = match kind {
        Kind::Exclusive => FlockOperation::LockExclusive,
        Kind::Shared => FlockOperation::LockShared,
    };
    std::thread::Builder::new()
        .name("lock".into())
        .spawn(move || {
            let locked = loop {
                match flock(&waiting, operation) {
                    Err(Errno::INTR) => {}
                    other => break other,
                }
            };
            // fails if the receiver has timed out
            let _ = send.send(locked);
        })
        .context(|| "start a thread that waits for a lock")?;
    match receive.recv_timeout(limit) {
        Ok(locked) => locked.context(|| format!("flock({path:?})")),
        Err(_) => Err(Error::new(format!(
            "timed out after {} s: {path:?} is locked by {}",
            limit.as_secs(),
            holders(file).unwrap_or_else(|error| format!("an unknown process ({})", error.one_line())),
        ))),
    }
}

/// The outcome of [`directory`].
#[derive(Debug)]
pub(crate) enum Taken {
    /// This process holds the lock of this open directory, which is still the one at the path.
    Now(File),
    /// Another process holds the lock.
    ByOthers,
    /// The directory does not exist.
    Gone,
}

/// Opens the directory at `path` and locks it with `take`; starts again if another directory has replaced it meanwhile.
///
/// # Errors
/// The directory can't be opened, or `take` fails.
pub(crate) fn directory(path: &Path, take: impl Fn(&File) -> Result<bool>) -> Result<Taken> {
    loop {
        let Some(lock) = open_dir(path)? else { return Ok(Taken::Gone) };
        if !take(&lock)? {
            return Ok(Taken::ByOthers);
        }
        match open_dir(path)? {
            Some(now) if same_file(&lock, &now)? => return Ok(Taken::Now(lock)),
            _ => {}
        }
    }
}

/// Opens a lock file, and makes it with [`FILE_MODE`] if it is missing.
///
/// # Errors
/// The file can't be opened or made.
pub(crate) fn open_file(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true).mode(FILE_MODE);
    options.open(path).context(|| format!("open {path:?}"))
}

/// Opens the lock file at `path`, makes it if it is missing, and locks it with `take`; starts again if the last holder of
/// the lock has removed the file meanwhile. `None` if `take` returns `false`.
///
/// # Errors
/// The file can't be opened or made, or `take` fails.
pub(crate) fn removable_file(path: &Path, take: impl Fn(&File) -> Result<bool>) -> Result<Option<File>> {
    loop {
        let file = open_file(path)?;
        if !take(&file)? {
            return Ok(None);
        }
        match File::open(path) {
            Ok(now) if same_file(&file, &now)? => return Ok(Some(file)),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::caused_by(format!("open {path:?}"), error));
            }
            _ => {}
        }
    }
}

/// Locks the file without waiting; `false` if another process holds the lock.
///
/// # Errors
/// flock(2) fails.
pub(crate) fn try_take(file: &File, path: &Path, kind: Kind) -> Result<bool> {
    let operation = match kind {
        Kind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Kind::Shared => FlockOperation::NonBlockingLockShared,
    };
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(Error::caused_by(format!("flock({path:?})"), errno)),
    }
}

/// The processes that hold the lock of a file, for messages: `process 12 (podctl gc)`.
fn holders(file: &File) -> Result<String> {
    let stat = file.metadata().context(|| "stat")?;
    let table = std::fs::read_to_string("/proc/locks").context(|| "read /proc/locks")?;
    let shown: Vec<String> = pids(&table, stat.dev(), stat.ino()).into_iter().take(NAMED).map(process).collect();
    Ok(if shown.is_empty() { "a process of another PID namespace".into() } else { shown.join(", ") })
}

/// The PIDs that hold a flock of the file, from the text of /proc/locks: proc_locks(5). Its device number can differ
/// from that of stat(2) (btrfs, overlayfs), so it only decides between files with the same inode number.
fn pids(table: &str, device: u64, inode: u64) -> Vec<i32> {
    let exact = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    let mut found: Vec<(bool, i32)> = Vec::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // a waiting process has "->" in the second field
        let [_, "FLOCK", _, _, pid, file, ..] = fields.as_slice() else { continue };
        if file.rsplit(':').next() != Some(inode.to_string().as_str()) {
            continue;
        }
        if let Some(pid) = pid.parse::<i32>().ok().filter(|pid| *pid > 0) {
            found.push((*file == exact, pid));
        }
    }
    let any_exact = found.iter().any(|(exact, _)| *exact);
    found.into_iter().filter(|(exact, _)| *exact == any_exact).map(|(_, pid)| pid).collect()
}

fn process(pid: i32) -> String {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = command.split(|byte| *byte == 0).take(4).map(String::from_utf8_lossy).collect();
    match words.join(" ").trim() {
        "" => format!("process {pid}"),
        command => format!("process {pid} ({command})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_others_hold_is_waited_for_and_they_are_named() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("lock");
        let open = || File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        let held = open();
        wait(&held, &path, Kind::Shared, Duration::ZERO).unwrap();
        wait(&open(), &path, Kind::Shared, Duration::ZERO).unwrap();

        let error = wait(&open(), &path, Kind::Exclusive, Duration::from_millis(50)).unwrap_err().one_line();
        assert!(error.contains(&format!("is locked by process {}", std::process::id())), "{error}");

        let file = open();
        let waiting = std::thread::spawn(move || wait(&file, &path, Kind::Exclusive, Duration::from_secs(60)).is_ok());
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn a_lock_of_a_file_that_its_holder_removed_is_not_enough() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("note");
        let held = removable_file(&path, |file| try_take(file, &path, Kind::Exclusive)).unwrap().unwrap();
        assert!(removable_file(&path, |file| try_take(file, &path, Kind::Exclusive)).unwrap().is_none());
        let other = path.clone();
        let waiting = std::thread::spawn(move || {
            let take = |file: &File| wait(file, &other, Kind::Exclusive, Duration::from_secs(60)).map(|()| true);
            removable_file(&other, take).unwrap().unwrap()
        });
        std::thread::sleep(Duration::from_millis(50));
        std::fs::remove_file(&path).unwrap();
        drop(held);
        assert!(same_file(waiting.join().unwrap(), File::open(&path).unwrap()).unwrap());
    }

    #[test]
    fn holders_are_found_by_the_file() {
        let table = "1: FLOCK  ADVISORY  WRITE 12 08:01:77 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 13 08:01:77 0 EOF\n\
            2: POSIX  ADVISORY  WRITE 14 08:01:77 0 EOF\n3: FLOCK  ADVISORY  READ 15 00:21:77 0 EOF\n\
            4: FLOCK  ADVISORY  READ 0 08:01:78 0 EOF\n";
        let device = rustix::fs::makedev(8, 1);
        assert_eq!(pids(table, device, 77), [12]);
        assert_eq!(pids(table, rustix::fs::makedev(0, 50), 77), [12, 15]);
        assert!(pids(table, device, 78).is_empty() && pids(table, device, 7).is_empty());
    }
}
