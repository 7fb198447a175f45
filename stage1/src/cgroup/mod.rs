//! Where a pod lives in the host's cgroup hierarchies, v1 and v2: create, join, remove. Host side.
//!
//! A pod has one path, the same in every hierarchy, as cgroups(7) managers on v1 do; the file `subcgroup` of a pod
//! directory holds it. Its name holds the pod's UUID, and there is a directory of that name until the pod's remains
//! are removed. Where the host's own systemd manages the hierarchies, the pod's is a scope of its ([`scope`]).

pub mod devices;
mod end;
mod freeze;
mod hierarchy;
mod member;
mod scope;
mod thaw;
mod tree;
mod usage;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result, one_line};
use crate::layout;

pub use hierarchy::{Hierarchy, Version, hierarchies};
pub use member::{Running, join_like};
use tree::members_below;
pub use usage::Usage;

/// Where all units of a pod's supervisor are, below the pod's cgroup; and where the supervisor itself is.
const SLICE: &str = "system.slice";
const SUPERVISOR: &str = "init.scope";
/// The controllers of v1 that the supervisor makes cgroups for.
const SUPERVISED: [&str; 7] = ["name=systemd", "cpu", "cpuacct", "blkio", "memory", "devices", "pids"];
/// How long the kernel may take to give up the processes that were killed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A pod's cgroups, one in each hierarchy.
#[derive(Clone, Debug)]
pub struct PodCgroup {
    path: PathBuf,
    hierarchies: Vec<Hierarchy>,
}

impl PodCgroup {
    /// The cgroups of the pod `uuid` as we make them; nothing is created.
    ///
    /// # Errors
    /// The host has no cgroup hierarchy.
    pub fn of(uuid: &str) -> Result<Self> {
        let name = scope::name(uuid);
        Self::at(if scope::host_has_systemd() { Path::new(scope::MACHINES).join(name) } else { name.into() })
    }

    /// The cgroups at `path`, the content of a pod's file `subcgroup`; nothing is created.
    ///
    /// # Errors
    /// Also when `path` is not a plain relative path of at least one component.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let plain = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !plain || path.components().next().is_none() {
            return Err(Error::new(format!("{path:?} is not the cgroup path of a pod")));
        }
        Ok(Self { path, hierarchies: hierarchies()? })
    }

    /// The cgroups of the pod in the directory `pod`, as its file `subcgroup` has them.
    ///
    /// # Errors
    /// The file is missing, or not a plain relative path.
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

    /// What the pod's supervisor writes to in its cgroup of a hierarchy, where all else is read-only: cgroups that
    /// are there already, and files.
    pub fn writable(&self, hierarchy: &Hierarchy) -> &'static [&'static str] {
        match hierarchy.version {
            Version::V2 => &[SLICE, SUPERVISOR, "cgroup.procs", "cgroup.subtree_control"],
            Version::V1 if is_supervised(hierarchy) => &[SLICE, SUPERVISOR, "cgroup.procs"],
            Version::V1 => &[],
        }
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

    /// Creates the pod's cgroups and puts the process `pid`, the pod's future PID 1, into them, with v2's controllers
    /// enabled, and v1's cpusets filled. `owner` is the host's id for the root of the pod's user namespace.
    ///
    /// A controller that can't be had is a warning that names it. The pod has the closed list of devices, unless
    /// `any_device`.
    ///
    /// # Errors
    /// A cgroup can't be made or entered, or the host's systemd refuses the scope.
    pub fn create(&self, owner: u32, pid: i32, any_device: bool) -> Result<()> {
        let managed = self.path.starts_with(scope::MACHINES);
        if managed {
            scope::start(&self.path, pid)?;
        }
        let mut controllers = 0;
        for (hierarchy, dir) in self.directories() {
            controllers += hierarchy.controllers.iter().filter(|c| !c.starts_with("name=")).count();
            create_below(hierarchy, &self.path).context(|| format!("create the cgroup {dir:?}"))?;
            if hierarchy.version == Version::V2 {
                if !managed {
                    enable_controllers(hierarchy, &self.path)?;
                }
                controllers += available_controllers(&dir)?.split_whitespace().count();
            }
            if owner != 0 {
                delegate(&dir, owner)?;
            }
            write_pid(&dir, pid)?;
        }
        if !any_device {
            self.close_devices()?;
        }
        for (hierarchy, dir) in self.directories().filter(|(hierarchy, _)| is_supervised(hierarchy)) {
            for name in [SLICE, SUPERVISOR] {
                let below = dir.join(name);
                create_in(hierarchy, &dir, &below).context(|| format!("create the cgroup {below:?}"))?;
                if owner != 0 {
                    delegate(&below, owner)?;
                }
            }
        }
        if controllers == 0 {
            log::warn!("this host has no cgroup controllers: no limit on memory, cpu, pids or io will hold");
        }
        Ok(())
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
    ///
    /// # Errors
    /// A cgroup is there and can't be read.
    pub fn unit_is_populated(&self, unit: &Path) -> Result<bool> {
        self.processes_of_unit(unit).map(|pids| !pids.is_empty())
    }

    /// Kills what still runs in the pod's cgroups, and removes those below them.
    ///
    /// # Errors
    /// Processes do not end within ten seconds, or a cgroup can't be removed; the others are.
    pub fn clear(&self) -> Result<()> {
        self.end(end::empty_tree)
    }

    /// Removes the pod's cgroups; what still runs in them is killed. Removing what is gone succeeds, and cgroups whose
    /// name does not hold the pod's UUID are left alone: others than the pod may be in them.
    ///
    /// # Errors
    /// As [`Self::clear`].
    pub fn remove(&self, uuid: &str) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        if !name.contains(uuid) && !name.contains(&scope::escaped(uuid)) {
            log::debug!("the cgroup {:?} is not the pod's alone: it is left to whoever made it", self.path);
            return Ok(());
        }
        let marker = Self { path: scope::marker(&self.path), hierarchies: self.hierarchies.clone() };
        let is_there = |cgroup: &Self| cgroup.directories().any(|(_, dir)| dir.is_dir());
        let managed = self.path.starts_with(scope::MACHINES) && scope::host_has_systemd();
        let mut removed = Ok(());
        if managed && (is_there(self) || is_there(&marker)) {
            // What systemd made it removes; a cgroup of its that is taken from it, it might make once more.
            removed = self.end(end::empty_tree).and_then(|()| scope::forget(&self.path));
        }
        removed.and(self.end(end::remove_tree)).and(marker.end(end::remove_tree))
    }

    fn end(&self, end: impl Fn(&Path, Instant) -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let failed: Vec<String> =
            self.directories().filter_map(|(_, dir)| end(&dir, deadline).err()).map(|e| one_line(&e)).collect();
        if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
    }
}

fn is_supervised(hierarchy: &Hierarchy) -> bool {
    hierarchy.version == Version::V2 || hierarchy.controllers.iter().any(|c| SUPERVISED.contains(&c.as_str()))
}

/// Creates `path` below the hierarchy's root.
fn create_below(hierarchy: &Hierarchy, path: &Path) -> io::Result<()> {
    let mut dir = hierarchy.mount.clone();
    for name in path.components() {
        let parent = dir.clone();
        dir.push(name);
        create_in(hierarchy, &parent, &dir)?;
    }
    Ok(())
}

fn create_in(hierarchy: &Hierarchy, parent: &Path, dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        _ => fill_cpuset(hierarchy, parent, dir),
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

/// Enables every available controller on the way to `path`.
fn enable_controllers(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
    let mut dir = hierarchy.mount.clone();
    for name in path.components() {
        for controller in available_controllers(&dir)?.split_whitespace() {
            if let Err(error) = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
                log::warn!(
                    "cgroup controller {controller} can't be enabled below {dir:?}, its limits won't hold: {error}"
                );
            }
        }
        dir.push(name);
    }
    Ok(())
}

fn available_controllers(dir: &Path) -> Result<String> {
    let file = dir.join("cgroup.controllers");
    fs::read_to_string(&file).context(|| format!("read {file:?}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pods_path_is_taken() {
        for bad in ["", "/", "../x/y", "/pods/x", "pods/../x", ".."] {
            assert!(PodCgroup::at(bad).is_err(), "{bad:?}");
        }
        for good in ["machine-rkt\\x2dx.scope", "machine.slice/machine-rkt\\x2dx.scope", "pods/x"] {
            assert_eq!(PodCgroup::at(good).unwrap().path(), Path::new(good));
        }
    }

    #[test]
    fn cgroups_of_others_are_never_removed() {
        let tmp = tempfile::tempdir().unwrap();
        let uuid = "01234567-89ab-4def-8123-456789abcdef";
        let hierarchy = Hierarchy::detached(Version::V2, tmp.path());
        for (path, removed) in [
            ("system.slice", false),
            ("system.slice/docker.service", false),
            ("machine.slice/machine-rkt\\x2d11234567\\x2d89ab\\x2d4def\\x2d8123\\x2d456789abcdef.scope", false),
            ("machine-rkt\\x2d01234567\\x2d89ab\\x2d4def\\x2d8123\\x2d456789abcdef.scope", true),
            ("pods/01234567-89ab-4def-8123-456789abcdef", true),
        ] {
            fs::create_dir_all(tmp.path().join(path)).unwrap();
            let cgroup = PodCgroup { path: path.into(), hierarchies: vec![hierarchy.clone()] };
            cgroup.remove(uuid).unwrap();
            assert_eq!(!tmp.path().join(path).exists(), removed, "{path}");
        }
    }
}
