//! Where a pod lives in the host's cgroup hierarchies, v1 and v2: create, join, remove. Host side.
//!
//! A pod has one path, the same in every hierarchy (`pods/<uuid>` below each root), as
//! cgroups(7) managers on v1 do; the file `subcgroup` of a pod directory holds it.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result, one_line};
use crate::layout;
use crate::sys::mount::{Attributes, DetachedMount};
use crate::sys::process;

/// Parent of all pods' cgroups, below each hierarchy's root.
const PARENT: &str = "pods";
/// How long the kernel may take to give up the processes that were killed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The version of a hierarchy's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller or group of controllers.
    V1,
    /// The unified hierarchy.
    V2,
}

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Interface version.
    pub version: Version,
    /// Where its root is mounted.
    pub mount: PathBuf,
    /// v1: its controllers or `name=…`, as mount options; v2: empty.
    pub controllers: Vec<String>,
    /// Keeps a mount alive that is in no namespace.
    _detached: Option<Arc<DetachedMount>>,
}

/// The hierarchies whose root is mounted in this mount namespace, and the unified one in any case:
/// beside v1's, systemd mounts that by itself to follow its processes, so the pod needs its place there.
///
/// # Errors
/// When there is none at all: no pod can be supervised then.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
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

/// Finds the cgroup mounts in the text of /proc/self/mountinfo: proc_pid_mountinfo(5).
/// A hierarchy mounted twice counts once; a mount over it hides it.
fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(root), Some(mount)) = (words.nth(3), words.next()) else { continue };
        // Fields that may be there or not, up to a dash.
        if !words.any(|word| word == "-") {
            continue;
        }
        let mount = PathBuf::from(unescape(mount));
        // What is mounted later over a path, or over a parent of it, hides what was there.
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

/// Undoes the octal escapes of /proc/self/mountinfo.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// A pod's cgroups, one in each hierarchy.
#[derive(Clone, Debug)]
pub struct PodCgroup {
    path: PathBuf,
    hierarchies: Vec<Hierarchy>,
}

impl PodCgroup {
    /// The cgroups of the pod `uuid`; nothing is created.
    pub fn of(uuid: &str) -> Result<Self> {
        Self::at(Path::new(PARENT).join(uuid))
    }

    /// The cgroups at `path`, the content of a pod's file `subcgroup`; nothing is created.
    ///
    /// # Errors
    /// Also when `path` is no plain relative path of at least two components: removing it could hit others.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let plain = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !plain || path.components().count() < 2 {
            return Err(Error::new(format!("{path:?} is not the cgroup path of a pod")));
        }
        Ok(Self { path, hierarchies: hierarchies()? })
    }

    /// The cgroups of the pod in the directory `pod`, as its file `subcgroup` has them.
    pub fn recorded(pod: &Path) -> Result<Self> {
        let file = pod.join(layout::SUBCGROUP);
        let text = fs::read_to_string(&file).context(|| format!("read {file:?}"))?;
        Self::at(text.trim_end().trim_start_matches('/'))
    }

    /// The path below each hierarchy's root, without a leading `/`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hierarchies and the pod's directory in each.
    pub fn directories(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        self.hierarchies.iter().map(|h| (h, h.mount.join(&self.path)))
    }

    /// Whether the unified hierarchy is the only one.
    pub fn is_unified(&self) -> bool {
        self.hierarchies.iter().all(|h| h.version == Version::V2)
    }

    /// Whether the kernel lets a limit of the pod's be set by a file of this name, such as `memory.max`: it needs
    /// the controller, and to be built with that limit.
    pub fn has_limit(&self, file: &str) -> bool {
        self.directories().any(|(_, dir)| dir.join(file).exists())
    }

    /// Creates the pod's cgroups, with v2's controllers enabled, and v1's cpusets filled.
    /// `owner` is the host's id for the root of the pod's user namespace.
    ///
    /// A controller that can't be had is a warning that names it.
    pub fn create(&self, owner: u32) -> Result<()> {
        let mut controllers = 0;
        for (hierarchy, dir) in self.directories() {
            controllers += hierarchy.controllers.iter().filter(|c| !c.starts_with("name=")).count();
            create_below(hierarchy, &self.path).context(|| format!("create the cgroup {dir:?}"))?;
            if hierarchy.version == Version::V2 {
                controllers += enable_controllers(hierarchy, &self.path)?;
            }
            if owner != 0 {
                delegate(&dir, owner)?;
            }
        }
        if controllers == 0 {
            log::warn!("this host has no cgroup controllers: no limit on memory, cpu, pids or io will hold");
        }
        Ok(())
    }

    /// Moves the process `pid` into the pod's own cgroups.
    pub fn attach(&self, pid: i32) -> Result<()> {
        self.directories().try_for_each(|(_, dir)| write_pid(&dir, pid))
    }

    /// Moves this process to where the unit `unit` (a path below the pod's cgroup) runs, in each
    /// hierarchy as deep as that exists there. On v2, where inner cgroups take no processes, to a
    /// leaf below it that has some.
    pub fn join_unit(&self, unit: &Path) -> Result<()> {
        for (hierarchy, dir) in self.directories() {
            let exact = dir.join(unit);
            let place = exact.ancestors().take_while(|a| a.starts_with(&dir)).find(|a| a.is_dir());
            let place = place.context(|| format!("the cgroup {dir:?} of the pod is gone"))?;
            match write_pid(place, 0) {
                Err(error) if error.errno() == Some(libc::EBUSY) && hierarchy.version == Version::V2 => {
                    let (leaf, _) =
                        populated_leaf(place)?.context(|| format!("no cgroup below {place:?} takes processes"))?;
                    write_pid(&leaf, 0)?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// A process of a unit of the pod, if it has one; its PID in the caller's PID namespace.
    pub fn process_of_unit(&self, unit: &Path) -> Result<Option<i32>> {
        for (_, dir) in self.directories() {
            let dir = dir.join(unit);
            if dir.is_dir()
                && let Some((_, first)) = populated_leaf(&dir)?
            {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// Whether a unit of the pod has processes.
    pub fn unit_is_populated(&self, unit: &Path) -> Result<bool> {
        self.process_of_unit(unit).map(|process| process.is_some())
    }

    /// Removes the pod's cgroups; what still runs in them is killed. Removing what is gone succeeds.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let mut failed = Vec::new();
        for (hierarchy, dir) in self.directories() {
            if let Err(error) = remove_tree(&dir, deadline) {
                failed.push(one_line(&error));
            }
            // The parent belongs to all pods: it stays while another one has a cgroup in it.
            let parent = hierarchy.mount.join(PARENT);
            match fs::remove_dir(&parent) {
                Err(e) if !matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTEMPTY | libc::EBUSY)) => {
                    failed.push(format!("rmdir {parent:?}: {e}"));
                }
                _ => {}
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
    }
}

/// Creates `path` below the hierarchy's root. Another pod's end may remove the shared parent in between.
fn create_below(hierarchy: &Hierarchy, path: &Path) -> io::Result<()> {
    let mut tries = 0;
    'again: loop {
        let mut dir = hierarchy.mount.clone();
        for name in path.components() {
            let parent = dir.clone();
            dir.push(name);
            match fs::create_dir(&dir) {
                Err(e) if is_gone(&e) && tries < 100 => {
                    tries += 1;
                    continue 'again;
                }
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            match fill_cpuset(hierarchy, &parent, &dir) {
                Err(e) if is_gone(&e) && tries < 100 => {
                    tries += 1;
                    continue 'again;
                }
                other => other?,
            }
        }
        return Ok(());
    }
}

/// A new v1 cpuset is empty and takes no process until it has cpus and memory nodes: cpuset(7).
fn fill_cpuset(hierarchy: &Hierarchy, parent: &Path, dir: &Path) -> io::Result<()> {
    if !hierarchy.controllers.iter().any(|c| c == "cpuset") {
        return Ok(());
    }
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(dir.join(name))?.trim().is_empty() {
            fs::write(dir.join(name), fs::read(parent.join(name))?)?;
        }
    }
    Ok(())
}

/// Enables every available controller on the way to `path`; returns how many the pod has.
fn enable_controllers(hierarchy: &Hierarchy, path: &Path) -> Result<usize> {
    let mut dir = hierarchy.mount.clone();
    for name in path.components() {
        let file = dir.join("cgroup.controllers");
        let available = fs::read_to_string(&file).context(|| format!("read {file:?}"))?;
        for controller in available.split_whitespace() {
            if let Err(error) = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
                log::warn!(
                    "cgroup controller {controller} can't be enabled below {dir:?}, its limits won't hold: {error}"
                );
            }
        }
        dir.push(name);
    }
    let file = dir.join("cgroup.controllers");
    Ok(fs::read_to_string(&file).context(|| format!("read {file:?}"))?.split_whitespace().count())
}

/// Gives a cgroup to the root of a user namespace: the directory and the files that move processes.
fn delegate(dir: &Path, owner: u32) -> Result<()> {
    let own = |path: &Path| match chown(path, Some(owner), Some(owner)) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("chown({path:?}, {owner})")),
    };
    own(dir)?;
    ["cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control"].iter().try_for_each(|f| own(&dir.join(f)))
}

fn write_pid(dir: &Path, pid: i32) -> Result<()> {
    let file = dir.join("cgroup.procs");
    fs::write(&file, pid.to_string()).context(|| format!("write {pid} to {file:?}"))
}

/// Whether a cgroup is not there, or was removed while one of its files was open.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// `dir` or the first cgroup below it that has processes of its own, and the first of these. A process of another
/// PID namespace than the caller's, to whom it has no number, is 0.
fn populated_leaf(dir: &Path) -> Result<Option<(PathBuf, i32)>> {
    let file = dir.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Err(e) if is_gone(&e) => return Ok(None),
        // A threaded cgroup has no list of processes; its parent does.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(None),
        members => {
            if let Some(first) = members.context(|| format!("read {file:?}"))?.lines().next() {
                let first = first.parse().context(|| format!("{file:?} has the line {first:?}"))?;
                return Ok(Some((dir.to_owned(), first)));
            }
        }
    }
    let children = match fs::read_dir(dir) {
        Err(e) if is_gone(&e) => return Ok(None),
        other => other.context(|| format!("read {dir:?}"))?,
    };
    for child in children {
        let child = child.context(|| format!("read {dir:?}"))?;
        if child.file_type().is_ok_and(|t| t.is_dir())
            && let Some(leaf) = populated_leaf(&child.path())?
        {
            return Ok(Some(leaf));
        }
    }
    Ok(None)
}

/// Removes a cgroup and those below it, killing what runs in them, until `deadline`.
fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    let children = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.context(|| format!("read {dir:?}"))?,
    };
    for child in children {
        let child = child.context(|| format!("read {dir:?}"))?;
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&child.path(), deadline)?;
        }
    }
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                kill_members(dir)?;
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e).context(|| format!("rmdir {dir:?}")),
        }
    }
}

/// Kills every process of one cgroup, each by a descriptor that was checked to be a member still.
fn kill_members(dir: &Path) -> Result<()> {
    let file = dir.join("cgroup.procs");
    let members = || -> Result<Vec<i32>> {
        match fs::read_to_string(&file) {
            Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            text => Ok(text.context(|| format!("read {file:?}"))?.lines().filter_map(|l| l.parse().ok()).collect()),
        }
    };
    let opened: Vec<_> = members()?
        .into_iter()
        .filter(|pid| *pid > 0)
        .filter_map(|pid| process::pidfd_open(pid).ok().map(|fd| (pid, fd)))
        .collect();
    let still = members()?;
    opened
        .iter()
        .filter(|(pid, _)| still.contains(pid))
        .try_for_each(|(_, fd)| process::pidfd_kill(fd, rustix::process::Signal::KILL))
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

    #[test]
    fn only_a_pods_path_is_taken() {
        for bad in ["", "/", "pods", "../x/y", "/pods/x", "pods/../x"] {
            assert!(PodCgroup::at(bad).is_err(), "{bad:?}");
        }
        assert_eq!(PodCgroup::of("x").unwrap().path(), Path::new("pods/x"));
    }
}
