//! Volumes with files of a ConfigMap or a Secret. They are in the pod's directory, and their name is a digest of their
//! content: so an app with other content differs in its manifest, too.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Map;
use sha2::{Digest, Sha256};
use stage1::appc::{AcName, Mount, PodManifest, Volume, VolumeKind};
use stage1::error::{Context, Error, Result};
use stage1::layout;

use crate::fsutil::dir::{make_dir, names_in};
use crate::fsutil::remove;
use crate::poddir::uid_range;

/// The start of the volumes' names; the start of a digest follows.
const PREFIX: &str = "content-";
/// The number of hexadecimal digits of the digest in the name.
const DIGITS: usize = 16;

/// The files of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The paths of the files, relative to the volume, each with its content and mode.
    pub files: BTreeMap<String, (Vec<u8>, u32)>,
    /// The GID of their group, as the pod sees it.
    pub group: u32,
}

impl Content {
    /// The volume's name: `content-` and 16 digits of the SHA-256 of group, names, modes and contents.
    ///
    /// # Errors
    /// None in practice: the name is a valid AC name.
    pub fn volume(&self) -> Result<AcName> {
        let mut digest = Sha256::new();
        digest.update(self.group.to_le_bytes());
        for (name, (text, mode)) in &self.files {
            // with the lengths, so that different files never give the same bytes
            digest.update(format!("{} {mode:o} {}\n{name}", name.len(), text.len()));
            digest.update(text);
        }
        let digits: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{PREFIX}{}", &digits[..DIGITS]).parse()
    }

    /// The read-only volume.
    ///
    /// # Errors
    /// As [`Self::volume`].
    pub fn as_volume(&self) -> Result<Volume> {
        Ok(Volume {
            name: self.volume()?,
            kind: VolumeKind::Empty,
            source: None,
            read_only: Some(true),
            recursive: None,
            mode: None,
            uid: None,
            gid: None,
            other: Map::new(),
        })
    }

    /// A mount of the volume at `path` in an app.
    ///
    /// # Errors
    /// As [`Self::volume`].
    pub fn mount(&self, path: &str) -> Result<Mount> {
        let volume = self.as_volume()?;
        Ok(Mount { volume: volume.name.clone(), path: path.to_owned(), app_volume: Some(volume), other: Map::new() })
    }

    /// Makes the volume in the pod's directory `pod`, by one rename; does nothing if it exists.
    ///
    /// # Errors
    /// A file can't be written or given to its group, or the pod's UID range can't be read.
    pub fn put_in_place(&self, pod: &Path) -> Result<()> {
        let volume = self.volume()?;
        let target = pod.join(layout::shared_volume(&volume));
        if target.exists() {
            return Ok(());
        }
        let new = pod.join(layout::unfinished_volume(&volume));
        remove::tree(&new)?;
        let first = uid_range::of_pod(pod)?.map_or(0, |ids| ids.first);
        let own = |path: &Path, mode: u32| {
            std::os::unix::fs::chown(path, Some(first), Some(first + self.group))
                .context(|| format!("chown({path:?})"))?;
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).context(|| format!("chmod({path:?})"))
        };
        make_dir(&new, 0o755)?;
        own(&new, 0o755)?;
        for (name, (text, mode)) in &self.files {
            let path = new.join(name);
            let mut above = new.clone();
            for part in Path::new(name).parent().into_iter().flat_map(Path::components) {
                above.push(part);
                make_dir(&above, 0o755)?;
                own(&above, 0o755)?;
            }
            std::fs::write(&path, text).context(|| format!("write {path:?}"))?;
            own(&path, *mode)?;
        }
        std::fs::rename(&new, &target).context(|| format!("rename {new:?} to {target:?}"))
    }

    /// Reads the files of a volume in the pod's directory `pod`.
    ///
    /// # Errors
    /// A file can't be read or has a name that is not UTF-8, or the pod's UID range can't be read.
    pub fn of_pod(pod: &Path, volume: &AcName) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let top = pod.join(layout::shared_volume(volume));
        let first = uid_range::of_pod(pod)?.map_or(0, |ids| ids.first);
        let group = top.metadata().context(|| format!("stat {top:?}"))?.gid().saturating_sub(first);
        let mut files = BTreeMap::new();
        let mut open = vec![String::new()];
        while let Some(below) = open.pop() {
            for name in names_in(&top.join(&below))? {
                let name = name.to_str().context(|| format!("{name:?} in {top:?} is not UTF-8"))?;
                let relative = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
                let path = top.join(&relative);
                let stat = path.symlink_metadata().context(|| format!("stat {path:?}"))?;
                if stat.is_dir() {
                    open.push(relative);
                } else {
                    let text = std::fs::read(&path).context(|| format!("read {path:?}"))?;
                    files.insert(relative, (text, stat.mode() & 0o777));
                }
            }
        }
        Ok(Self { files, group })
    }
}

/// Whether a volume has a name as [`Content::volume`] makes it.
pub fn is_content(volume: &AcName) -> bool {
    let digits = volume.as_ref().strip_prefix(PREFIX);
    digits.is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Removes the volumes with content that no app in the manifest mounts.
///
/// # Errors
/// The pod's directory can't be read, or a volume can't be removed.
pub fn sweep(pod: &Path, manifest: &PodManifest) -> Result<()> {
    for name in names_in(&pod.join(layout::SHARED_VOLUMES))? {
        let Some(name) = name.to_str().and_then(|name| name.parse::<AcName>().ok()) else { continue };
        let is_used = manifest.apps.iter().flat_map(|app| &app.mounts).any(|mount| mount.volume == name);
        if is_content(&name) && !is_used {
            remove::tree(&pod.join(layout::shared_volume(&name)))?;
        }
    }
    Ok(())
}

/// Checks a file's path, relative to its volume.
///
/// # Errors
/// The path is absolute, is empty, has a NUL byte, or has an empty component, `.` or `..`.
pub fn relative(path: &str) -> Result<String> {
    let parts: Vec<&str> = path.split('/').collect();
    if path.is_empty() || parts.iter().any(|part| matches!(*part, "" | "." | "..")) || path.contains('\0') {
        return Err(Error::new(format!("{path:?} is not a path below the volume")));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_back_as_they_were_and_name_their_volume() {
        let base = tempfile::tempdir().unwrap();
        let file = |text: &str, mode| (text.as_bytes().to_vec(), mode);
        let files = BTreeMap::from([("a".to_owned(), file("1", 0o400)), ("b/c/d".to_owned(), file("2", 0o644))]);
        let content = Content { files, group: 0 };
        let volume = content.volume().unwrap();
        assert!(is_content(&volume) && !is_content(&"content-x".parse().unwrap()));
        if rustix::process::geteuid().is_root() {
            content.put_in_place(base.path()).unwrap();
            content.put_in_place(base.path()).unwrap();
            assert_eq!(Content::of_pod(base.path(), &volume).unwrap(), content);
            sweep(base.path(), &PodManifest::default()).unwrap();
            assert_eq!(base.path().join("sharedVolumes").read_dir().unwrap().count(), 0);
        }
        let mut other = content.clone();
        other.files.insert("a".to_owned(), file("3", 0o400));
        assert_ne!(other.volume().unwrap(), volume);
        for bad in ["", "/a", "a/../b", "a//b", "."] {
            assert!(relative(bad).is_err(), "{bad}");
        }
    }
}
