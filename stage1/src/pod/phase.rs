//! A pod's phase and state, from the directory it is in and whether its lock is held. CONTRACT section 1.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{Context, Error, Result};
use crate::layout;

/// The directory below `pods` that a pod is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Just created.
    Embryo,
    /// Being prepared, or its preparation has failed.
    Prepare,
    /// Prepared.
    Prepared,
    /// Running or exited.
    Run,
    /// Exited and marked for deletion.
    ExitedGarbage,
    /// Its preparation has failed, and it is marked for deletion.
    Garbage,
}

impl Phase {
    /// All phases, in the order in which a pod goes through them.
    pub const ALL: [Self; 6] =
        [Self::Embryo, Self::Prepare, Self::Prepared, Self::Run, Self::ExitedGarbage, Self::Garbage];

    /// Name of the directory.
    pub const fn dir(self) -> &'static str {
        match self {
            Self::Embryo => "embryo",
            Self::Prepare => "prepare",
            Self::Prepared => "prepared",
            Self::Run => "run",
            Self::ExitedGarbage => "exited-garbage",
            Self::Garbage => "garbage",
        }
    }
}

/// A pod's state, as host managers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Just created.
    Embryo,
    /// Being prepared.
    Preparing,
    /// Its preparation has failed.
    PrepareFailed,
    /// Ready to run.
    Prepared,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// Marked for deletion after it ran.
    ExitedGarbage,
    /// Marked for deletion without having run.
    Garbage,
    /// Being deleted.
    Deleting,
}

impl State {
    /// Its name in the output of host managers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Embryo => "embryo",
            Self::Preparing => "preparing",
            Self::PrepareFailed => "aborted prepare",
            Self::Prepared => "prepared",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::ExitedGarbage => "exited garbage",
            Self::Garbage => "garbage",
            Self::Deleting => "deleting",
        }
    }

    /// The state that follows from the phase and from whether the pod's exclusive lock is held.
    pub const fn of(phase: Phase, locked: bool) -> Self {
        match (phase, locked) {
            (Phase::Embryo, _) => Self::Embryo,
            (Phase::Prepare, true) => Self::Preparing,
            (Phase::Prepare, false) => Self::PrepareFailed,
            (Phase::Prepared, _) => Self::Prepared,
            (Phase::Run, true) => Self::Running,
            (Phase::Run, false) => Self::Exited,
            (Phase::ExitedGarbage | Phase::Garbage, true) => Self::Deleting,
            (Phase::ExitedGarbage, false) => Self::ExitedGarbage,
            (Phase::Garbage, false) => Self::Garbage,
        }
    }
}

/// The state of the pod in the directory `dir`, whose phase is `phase`. The pod's lock is taken for a moment, shared.
///
/// # Errors
/// The pod directory can't be opened or locked.
pub fn state(phase: Phase, dir: &Path) -> Result<State> {
    Ok(State::of(phase, Lock::try_shared(dir)?.is_none()))
}

/// A flock(2) on a file or directory, held until dropped.
#[derive(Debug)]
pub struct Lock(OwnedFd);

impl Lock {
    /// Takes the exclusive lock, waiting at most `timeout`. `None` if another process holds a lock for that long.
    ///
    /// # Errors
    /// `path` can't be opened, or flock(2) fails for another reason.
    pub fn exclusive(path: &Path, timeout: Duration) -> Result<Option<Self>> {
        let fd = open(path)?;
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(200);
        loop {
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self(fd))),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno).context(|| format!("flock({path:?})")),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Takes a shared lock without waiting. `None` if another process holds the exclusive lock.
    ///
    /// # Errors
    /// `path` can't be opened, or flock(2) fails for another reason.
    pub fn try_shared(path: &Path) -> Result<Option<Self>> {
        let fd = open(path)?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Some(Self(fd))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(errno).context(|| format!("flock({path:?})")),
        }
    }

    /// Takes over `fd` from the program that executed this one, after checking that it is the directory `dir` and that
    /// an exclusive lock of it is held.
    ///
    /// # Errors
    /// `fd` is another directory, or there is no exclusive lock.
    pub fn adopt(fd: OwnedFd, dir: &Path) -> Result<Self> {
        if !crate::sys::dir::same_file(&fd, open(dir)?)? {
            return Err(Error::new(format!("the lock descriptor is not the directory {dir:?}")));
        }
        if Self::try_shared(dir)?.is_some() {
            return Err(Error::new(format!("the lock descriptor of {dir:?} is not locked exclusively")));
        }
        Ok(Self(fd))
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open {path:?}"))
}

/// Takes the lock for adding and removing apps of the pod in the directory `dir`, waiting at most `timeout`.
///
/// # Errors
/// Another process holds the lock for that long, or its file can't be opened or made.
pub fn lock_apps(dir: &Path, timeout: Duration) -> Result<Lock> {
    let path = dir.join(layout::LOCK);
    rustix::fs::open(
        &path,
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    )
    .context(|| format!("open {path:?}"))?;
    Lock::exclusive(&path, timeout)?.context(|| {
        let seconds = timeout.as_secs();
        format!("timed out after {seconds} s: another process that adds or removes apps holds the lock {path:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_tells_running_from_exited() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(state(Phase::Run, tmp.path()).unwrap(), State::Exited);
        let lock = Lock::exclusive(tmp.path(), Duration::ZERO).unwrap().unwrap();
        assert_eq!(state(Phase::Run, tmp.path()).unwrap(), State::Running);
        assert_eq!(state(Phase::ExitedGarbage, tmp.path()).unwrap(), State::Deleting);
        assert!(Lock::exclusive(tmp.path(), Duration::ZERO).unwrap().is_none());
        let lock = Lock::adopt(lock.0, tmp.path()).unwrap();
        drop(lock);
        assert_eq!(state(Phase::Prepare, tmp.path()).unwrap(), State::PrepareFailed);
        let unlocked = open(tmp.path()).unwrap();
        assert!(Lock::adopt(unlocked, tmp.path()).is_err());
        let soon = Duration::from_millis(20);
        let apps = lock_apps(tmp.path(), soon).unwrap();
        assert!(Lock::exclusive(&tmp.path().join("pod.lck"), Duration::ZERO).unwrap().is_none());
        let error = lock_apps(tmp.path(), soon).unwrap_err().one_line();
        assert!(error.contains("pod.lck"), "{error}");
        drop(apps);
        drop(lock_apps(tmp.path(), soon).unwrap());
    }
}
