//! The cgroup hierarchies that are mounted on the host. Host side.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Context, Error, Result};
use crate::sys::mount::{Attributes, DetachedMount};
use crate::sys::procfs;

/// The version of a hierarchy's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// cgroup v1: a hierarchy for each controller or group of controllers.
    V1,
    /// cgroup v2: one unified hierarchy.
    V2,
}

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Version of its interface.
    pub version: Version,
    /// Path of its root.
    pub mount: PathBuf,
    /// v1: its controllers or `name=…`, as in the mount options; v2: empty.
    pub controllers: Vec<String>,
    /// The mount, if it is not attached to a mount namespace: kept open because `mount` is a path through it.
    _detached: Option<Arc<DetachedMount>>,
}

#[cfg(test)]
impl Hierarchy {
    /// A directory in the place of a hierarchy.
    pub(super) fn detached(version: Version, mount: &std::path::Path) -> Self {
        Self { version, mount: mount.to_owned(), controllers: Vec::new(), _detached: None }
    }
}

/// The hierarchies whose root is mounted in this mount namespace, and always the unified one: on a host with v1 only,
/// it is mounted for this process, because the pod's systemd mounts it too, to follow its processes, and needs its
/// cgroup there.
///
/// # Errors
/// No hierarchy is mounted, or the unified one can't be mounted.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = procfs::read("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
    let mut found = parse_mountinfo(&text);
    if found.is_empty() {
        return Err(Error::new(
            "no cgroup hierarchy is mounted: mount one, e.g. `mount -t cgroup2 none /sys/fs/cgroup`",
        ));
    }
    if found.iter().all(|h| h.version == Version::V1) {
        let unified = DetachedMount::new("cgroup2", &[], Attributes::default())?;
        let mount = PathBuf::from(format!("/proc/self/fd/{}", unified.as_fd().as_raw_fd()));
        found.push(Hierarchy { version: Version::V2, mount, controllers: Vec::new(), _detached: Some(unified.into()) });
    }
    Ok(found)
}

/// Finds the cgroup mounts in the text of /proc/self/mountinfo: proc_pid_mountinfo(5). A hierarchy that is mounted
/// twice counts once; one that a later mount hides does not count.
fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(root), Some(mount)) = (words.nth(3), words.next()) else { continue };
        // Skips the optional fields, which a dash ends.
        if !words.any(|word| word == "-") {
            continue;
        }
        let mount = PathBuf::from(unescape(mount));
        // A later mount on the same path or above hides an earlier one.
        found.retain(|earlier| !earlier.mount.starts_with(&mount));
        let version = match words.next() {
            Some("cgroup") => Version::V1,
            Some("cgroup2") => Version::V2,
            _ => continue,
        };
        if root != "/" {
            continue;
        }
        let options = words.nth(1).unwrap_or_default();
        let controllers = match version {
            Version::V1 => options.split(',').filter(|o| is_controller(o)).map(str::to_owned).collect(),
            Version::V2 => Vec::new(),
        };
        if !found.iter().any(|h| h.version == version && h.controllers == controllers) {
            found.push(Hierarchy { version, mount, controllers, _detached: None });
        }
    }
    found
}

fn is_controller(option: &str) -> bool {
    !matches!(option, "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "none" | "cpuset_v2_mode")
        && !option.starts_with("release_agent=")
}

/// Resolves the octal escapes of /proc/self/mountinfo.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
35 30 0:27 /x /mnt rw - cgroup cgroup rw,memory
36 30 0:28 / /second\\040one rw - cgroup cgroup rw,cpu,cpuacct
";

    #[test]
    fn mountinfo_is_read() {
        let found = parse_mountinfo(HYBRID);
        let summary: Vec<_> = found.iter().map(|h| (h.mount.to_str().unwrap(), h.controllers.join(","))).collect();
        assert_eq!(
            summary,
            [
                ("/sys/fs/cgroup/memory", "memory".to_owned()),
                ("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct".to_owned()),
                ("/sys/fs/cgroup/systemd", "name=systemd".to_owned()),
                ("/sys/fs/cgroup/unified", String::new()),
            ]
        );
    }

    #[test]
    fn a_later_mount_hides_what_is_below() {
        let text = format!("{HYBRID}40 24 0:40 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let found = parse_mountinfo(&text);
        assert_eq!(found.iter().filter(|h| h.mount.starts_with("/sys/fs/cgroup")).count(), 1);
        assert_eq!(found.last().unwrap().version, Version::V2);
    }
}
