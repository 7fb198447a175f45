//! Thawing frozen processes of a pod: with cgroup v1 a frozen process does not end even when it is killed.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use super::{PodCgroup, Version};
use crate::error::{Context, Result};

impl PodCgroup {
    /// Thaws the pod's cgroups and those below in every hierarchy: cgroups(7). Host side.
    ///
    /// # Errors
    /// A cgroup can't be thawed; the others are.
    pub fn thaw(&self) -> Result<()> {
        let mut result = Ok(());
        for (hierarchy, top) in self.directories() {
            let (file, word) = match hierarchy.version {
                Version::V1 => ("freezer.state", "THAWED"),
                Version::V2 => ("cgroup.freeze", "0"),
            };
            let mut left = vec![top];
            while let Some(dir) = left.pop() {
                let path = dir.join(file);
                let opened = OpenOptions::new().write(true).open(&path);
                match opened.and_then(|mut file| file.write_all(word.as_bytes())) {
                    // The cgroup was removed, or its hierarchy does not have this controller.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    other => result = result.and(other.context(|| format!("write {path:?}"))),
                }
                let below = dir.read_dir().into_iter().flatten().flatten();
                left.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
            }
        }
        result
    }
}
