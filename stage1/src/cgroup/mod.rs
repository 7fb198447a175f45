//! Where a pod lives in the host's cgroup hierarchies, v1 and v2: create, join, remove. Host side.
//!
//! A pod has one path, the same in every hierarchy (`pods/<uuid>` below each root), as
//! cgroups(7) managers on v1 do; the file `subcgroup` of a pod directory holds it.

mod end;
mod hierarchy;
mod member;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::end::remove_tree;
use crate::error::{Context, Error, Result, one_line};
use crate::layout;

pub use hierarchy::{Hierarchy, Version, hierarchies};
pub use member::Running;

/// Parent of all pods' cgroups, below each hierarchy's root.
const PARENT: &str = "pods";
/// How long the kernel may take to give up the processes that were killed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

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

    /// The processes of a unit of the pod, in the caller's PID namespace.
    fn processes_of_unit(&self, unit: &Path) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for (_, dir) in self.directories() {
            members_below(&dir.join(unit), &mut pids)?;
            if !pids.is_empty() {
                break;
            }
        }
        Ok(pids)
    }

    /// Whether a unit of the pod has processes.
    pub fn unit_is_populated(&self, unit: &Path) -> Result<bool> {
        self.processes_of_unit(unit).map(|pids| !pids.is_empty())
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

/// Adds the processes of `dir` and of the cgroups below it to `pids`; none of a cgroup that is gone. A process of
/// another PID namespace than the caller's, to whom it has no number, is 0.
fn members_below(dir: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let file = dir.join("cgroup.procs");
    match fs::read_to_string(&file) {
        Err(e) if is_gone(&e) => return Ok(()),
        // A threaded cgroup has no list of processes; its parent does.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        members => {
            for line in members.context(|| format!("read {file:?}"))?.lines() {
                pids.push(line.parse().context(|| format!("{file:?} has the line {line:?}"))?);
            }
        }
    }
    let children = match fs::read_dir(dir) {
        Err(e) if is_gone(&e) => return Ok(()),
        other => other.context(|| format!("read {dir:?}"))?,
    };
    for child in children {
        let child = child.context(|| format!("read {dir:?}"))?;
        if child.file_type().is_ok_and(|t| t.is_dir()) {
            members_below(&child.path(), pids)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pods_path_is_taken() {
        for bad in ["", "/", "pods", "../x/y", "/pods/x", "pods/../x"] {
            assert!(PodCgroup::at(bad).is_err(), "{bad:?}");
        }
        assert_eq!(PodCgroup::of("x").unwrap().path(), Path::new("pods/x"));
    }
}
