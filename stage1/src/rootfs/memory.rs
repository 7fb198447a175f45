//! Volumes in memory: tmpfs(5). A volume that the apps of a pod share is mounted in the pod's mount namespace when the
//! first app is added, and exists until the pod ends; one that belongs to a single app is removed with the app.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::appc::{self, AcName, Memory};
use crate::error::{Context, Result};
use crate::layout;
use crate::sys::mount::{Attributes, DetachedMount, Scope, is_mount_point};

/// Options of a tmpfs: names and values.
pub(super) type MemoryOptions = Vec<(&'static str, String)>;

/// A volume in memory.
#[derive(Debug)]
pub(super) struct InMemory {
    pub(super) name: AcName,
    pub(super) memory: Memory,
    pub(super) options: MemoryOptions,
    pub(super) read_only: bool,
}

/// The options of a volume's tmpfs; its ids are those inside the pod. Pure.
pub(super) fn options(volume: &appc::Volume) -> Result<MemoryOptions> {
    let number = |name, value: Option<u64>| value.map(|value| (name, value.to_string()));
    let mode = ("mode", format!("{:o}", volume.mode()?));
    let others = [
        number("size", volume.size()),
        number("uid", volume.uid.map(u64::from)),
        number("gid", volume.gid.map(u64::from)),
    ];
    Ok(std::iter::once(mode).chain(others.into_iter().flatten()).collect())
}

impl InMemory {
    fn place(&self) -> PathBuf {
        PathBuf::from(layout::MEMORY).join(self.name.as_ref())
    }

    fn make(&self) -> Result<DetachedMount> {
        let options: Vec<_> = self.options.iter().map(|(name, value)| (*name, Some(value.as_str()))).collect();
        DetachedMount::new("tmpfs", &options, Attributes { nosuid: true, nodev: true, ..Attributes::default() })
    }

    /// Mounts a shared volume in the pod, unless that was done before. Pod side, in the pod's mount namespace.
    pub(super) fn share(&self) -> Result<()> {
        let place = self.place();
        if self.memory == Memory::Own || is_mount_point(&place)? {
            return Ok(());
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&place)
            .context(|| format!("make directory {place:?}"))?;
        self.make()?.attach_path(&place)
    }

    /// The mount for an app. Pod side, in a copy of the pod's mount namespace.
    pub(super) fn open(&self) -> Result<DetachedMount> {
        let mount = match self.memory {
            Memory::Shared => DetachedMount::clone_path(self.place(), Scope::One)?,
            Memory::Own => self.make()?,
        };
        if self.read_only {
            mount.set(Attributes { read_only: true, ..Attributes::default() }, Scope::One)?;
        }
        Ok(mount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_file_system() {
        let volume =
            r#"{"name":"m","kind":"empty","mode":"2777","gid":5,"podctl.io/medium":"memory","podctl.io/size":4096}"#;
        let volume: appc::Volume = serde_json::from_str(volume).unwrap();
        assert_eq!(volume.memory().unwrap(), Some(Memory::Shared));
        let options = options(&volume).unwrap();
        let expected = [("mode", "2777"), ("size", "4096"), ("gid", "5")].map(|(name, v)| (name, v.to_owned()));
        assert_eq!(options, expected);
        let strange: appc::Volume =
            serde_json::from_str(r#"{"name":"m","kind":"empty","podctl.io/medium":"tape"}"#).unwrap();
        assert!(strange.memory().is_err());
    }
}
