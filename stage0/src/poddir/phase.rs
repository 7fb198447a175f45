//! The phase of a pod, which only the process that holds the pod changes.
//!
//! The phase is the name of the directory that the pod's directory is in. A process changes it with one rename, while
//! it holds the lock of the pod's directory. In phase `run` the lock is held as long as the pod runs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stage1::error::{Context, Error, Result};
pub use stage1::pod::Phase;
use uuid::Uuid;

use crate::fsutil::dir::{PRIVATE, make_dir, sync_dir};
use crate::fsutil::lock::{self, Taken};
use crate::poddir::find::Pod;
use crate::store::Store;

/// How often to make a new pod again that another process removed before it was locked.
const EMBRYOS: usize = 20;
/// How long to wait for a process that locks a pod only to look at it.
const GLANCE: Duration = Duration::from_millis(100);

/// A pod that this process holds: no other process changes its phase or runs it.
#[derive(Debug)]
pub struct HeldPod {
    uuid: Uuid,
    phase: Phase,
    dir: PathBuf,
    lock: File,
}

impl HeldPod {
    /// Makes a pod in phase `embryo`, locks it and moves it to phase `prepare`.
    ///
    /// # Errors
    /// A directory can't be made, locked or renamed, or other processes removed the new pod 20 times.
    pub fn create(store: &Store) -> Result<Self> {
        store.make()?;
        for phase in Phase::ALL {
            make_dir(&store.pods().join(phase.dir()), PRIVATE)?;
        }
        for _ in 0..EMBRYOS {
            if let Some(mut pod) = Self::embryo(store)? {
                pod.move_to(store, Phase::Prepare)?;
                return Ok(pod);
            }
        }
        Err(Error::new(format!("other processes removed {EMBRYOS} new pods, each before it was locked")))
    }

    /// Makes and locks a new pod; `None` if a process that removes pods found it before it was locked.
    fn embryo(store: &Store) -> Result<Option<Self>> {
        let uuid = Uuid::new_v4();
        let dir = store.pods().join(Phase::Embryo.dir()).join(uuid.to_string());
        make_dir(&dir, 0o750)?;
        Ok(match lock::directory(&dir, |lock| try_briefly(lock, &dir))? {
            Taken::Now(lock) => Some(Self { uuid, phase: Phase::Embryo, dir, lock }),
            Taken::ByOthers | Taken::Gone => None,
        })
    }

    /// Locks a pod; `None` if another process holds it.
    ///
    /// # Errors
    /// The pod's directory can't be locked, or the pod is gone or in another phase since it was found.
    pub fn take(pod: &Pod) -> Result<Option<Self>> {
        let (uuid, phase, dir) = (pod.uuid(), pod.phase(), pod.dir().to_owned());
        match lock::directory(&dir, |lock| try_briefly(lock, &dir))? {
            Taken::Now(lock) => Ok(Some(Self { uuid, phase, dir, lock })),
            Taken::ByOthers => Ok(None),
            Taken::Gone => Err(Error::new(format!("pod {} is not in phase {} any more", pod.short(), phase.dir()))),
        }
    }

    /// Moves the pod to another phase. The move to `prepared` survives a power cut.
    ///
    /// # Errors
    /// The phase directory can't be made, the rename fails, or fsync(2) fails.
    pub fn move_to(&mut self, store: &Store, phase: Phase) -> Result<()> {
        let to = store.pods().join(phase.dir());
        make_dir(&to, PRIVATE)?;
        if phase == Phase::Prepared {
            sync_dir(&self.dir)?;
        }
        let to = to.join(self.uuid.to_string());
        std::fs::rename(&self.dir, &to).context(|| format!("rename {:?} to {to:?}", self.dir))?;
        self.dir = to;
        self.phase = phase;
        if phase == Phase::Prepared { sync_dir(&store.pods().join(phase.dir())) } else { Ok(()) }
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The absolute path of its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Its open, locked directory.
    pub fn lock(&self) -> &File {
        &self.lock
    }
}

/// Locks a pod's directory; `false` if another process holds it for longer than [`GLANCE`].
fn try_briefly(dir: &File, path: &Path) -> Result<bool> {
    let deadline = Instant::now() + GLANCE;
    loop {
        let taken = lock::try_take(dir, path, lock::Kind::Exclusive)?;
        if taken || Instant::now() >= deadline {
            return Ok(taken);
        }
        std::thread::sleep(GLANCE / 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poddir::find::{State, find, list};

    #[test]
    fn phases_locks_and_prefixes() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        let mut held = HeldPod::create(&store).unwrap();
        let uuid = held.uuid().to_string();
        assert_eq!(find(&store, &uuid).unwrap().state(), State::Preparing);
        held.move_to(&store, Phase::Prepared).unwrap();
        held.move_to(&store, Phase::Run).unwrap();
        let pod = find(&store, &uuid[..6]).unwrap();
        assert_eq!(pod.state(), State::Running);
        assert!(HeldPod::take(&pod).unwrap().is_none());
        drop(held);
        let pod = find(&store, &uuid.to_uppercase()).unwrap();
        assert_eq!(pod.state(), State::Exited);

        let mut held = HeldPod::take(&pod).unwrap().unwrap();
        held.move_to(&store, Phase::ExitedGarbage).unwrap();
        assert_eq!(list(&store).unwrap()[0].state(), State::Deleting);
        drop(held);
        assert!(HeldPod::take(&pod).unwrap_err().one_line().contains("not in phase run"));

        for digit in ["0", "1"] {
            std::fs::create_dir(store.pods().join("run").join(format!("aaaaaaaa-0000-4000-8000-00000000000{digit}")))
                .unwrap();
        }
        let error = find(&store, "aaaa").unwrap_err().one_line();
        assert!(error.contains("ambiguous"), "{error}");
        for unknown in ["", "zz", "../run", "\n"] {
            assert!(find(&store, unknown).unwrap_err().one_line().contains("there is no pod"), "{unknown}");
        }
    }
}
