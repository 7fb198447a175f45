//! Holding processes still, and letting them go on: in the unified hierarchy, where a pod and its apps have a place on
//! v1 too. Host side.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{PodCgroup, Version};
use crate::error::{Context, Error, Result};

/// How often is looked whether all are frozen.
const PAUSE: Duration = Duration::from_millis(5);

impl PodCgroup {
    /// Freezes what runs in `place`, a path below the pod's cgroup, or in all of the pod with an empty one, and waits
    /// until it is frozen.
    ///
    /// # Errors
    /// Nothing runs there; the kernel can't freeze; or something is not frozen by the deadline, and then all goes on.
    pub fn freeze(&self, place: &Path, deadline: Instant) -> Result<()> {
        let dir = self.unified(place)?;
        write(&dir, "1")?;
        while !state(&dir, "frozen")? {
            if Instant::now() >= deadline {
                write(&dir, "0")?;
                return Err(Error::new("a process can't be frozen: it is busy in the kernel, with a disk perhaps"));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Lets what is frozen in `place` go on; what is not is left alone.
    ///
    /// # Errors
    /// Nothing runs there, or the kernel does not let it.
    pub fn unfreeze(&self, place: &Path) -> Result<()> {
        write(&self.unified(place)?, "0")
    }

    /// Whether somebody has frozen `place`, or all of the pod with an empty one.
    ///
    /// # Errors
    /// That can't be read.
    pub fn is_frozen(&self, place: &Path) -> Result<bool> {
        let file = self.unified(place)?.join("cgroup.freeze");
        match fs::read_to_string(&file) {
            Ok(text) => Ok(text.trim() == "1"),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::caused_by(format!("read {file:?}"), error)),
        }
    }

    /// The place in the unified hierarchy.
    fn unified(&self, place: &Path) -> Result<PathBuf> {
        let found = self.directories().find(|(hierarchy, _)| hierarchy.version == Version::V2);
        found.map(|(_, dir)| dir.join(place)).context(|| "there is no unified cgroup hierarchy")
    }
}

fn write(dir: &Path, word: &str) -> Result<()> {
    let file = dir.join("cgroup.freeze");
    match fs::write(&file, word) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::new("it does not run")),
        other => other.context(|| format!("write {word} to {file:?}")),
    }
}

/// A word of a cgroup's events: cgroups(7).
fn state(dir: &Path, word: &str) -> Result<bool> {
    let file = dir.join("cgroup.events");
    let text = fs::read_to_string(&file).context(|| format!("read {file:?}"))?;
    Ok(text.lines().any(|line| line.split_once(' ') == Some((word, "1"))))
}
