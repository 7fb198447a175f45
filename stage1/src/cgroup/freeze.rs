//! Freezing and unfreezing processes: `cgroup.freeze` of cgroup v2, in which a pod and its apps have cgroups on a host
//! with v1 too. Host side.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tree::is_gone;
use super::{PodCgroup, Version};
use crate::error::{Context, Error, Result};

/// Time between checks whether all processes are frozen.
const PAUSE: Duration = Duration::from_millis(5);

impl PodCgroup {
    /// Freezes the cgroup `place`, relative to the pod's cgroup (empty for the whole pod), and waits until all its
    /// processes are frozen.
    ///
    /// # Errors
    /// The cgroup does not exist, the kernel can't freeze it, or a process is not frozen by `deadline`; then the cgroup
    /// is unfrozen again.
    pub fn freeze(&self, place: &Path, deadline: Instant) -> Result<()> {
        let dir = self.unified(place)?;
        write(&dir, "1")?;
        while !state(&dir, "frozen")? {
            if Instant::now() >= deadline {
                write(&dir, "0")?;
                return Err(Error::new("a process can't be frozen: it waits in the kernel, perhaps for a disk"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Unfreezes the cgroup `place`, relative to the pod's cgroup. One that is not frozen is not an error.
    ///
    /// # Errors
    /// The cgroup does not exist, or the kernel refuses it.
    pub fn unfreeze(&self, place: &Path) -> Result<()> {
        write(&self.unified(place)?, "0")
    }

    /// Whether the cgroup `place`, relative to the pod's cgroup, was frozen by itself: not only because a cgroup above
    /// it was. A cgroup that does not exist is not frozen.
    ///
    /// # Errors
    /// `cgroup.freeze` can't be read.
    pub fn is_frozen(&self, place: &Path) -> Result<bool> {
        is_frozen(&self.unified(place)?)
    }

    /// The directory of `place` in cgroup v2.
    fn unified(&self, place: &Path) -> Result<PathBuf> {
        let found = self.directories().find(|(hierarchy, _)| hierarchy.version == Version::V2);
        found.map(|(_, dir)| dir.join(place)).context(|| "there is no unified cgroup hierarchy")
    }
}

/// Whether the cgroup with this directory was frozen by itself: `cgroup.freeze` of cgroups(7). A cgroup that does not
/// exist is not frozen.
///
/// # Errors
/// `cgroup.freeze` can't be read.
pub(super) fn is_frozen(dir: &Path) -> Result<bool> {
    let file = dir.join("cgroup.freeze");
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim() == "1"),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(Error::caused_by(format!("read {file:?}"), error)),
    }
}

fn write(dir: &Path, word: &str) -> Result<()> {
    let file = dir.join("cgroup.freeze");
    match fs::write(&file, word) {
        Err(error) if is_gone(&error) => Err(Error::new("it does not run")),
        other => other.context(|| format!("write {word} to {file:?}")),
    }
}

/// Whether an event of a cgroup is on: `cgroup.events` of cgroups(7).
fn state(dir: &Path, word: &str) -> Result<bool> {
    let file = dir.join("cgroup.events");
    let text = fs::read_to_string(&file).context(|| format!("read {file:?}"))?;
    Ok(text.lines().any(|line| line.split_once(' ') == Some((word, "1"))))
}
