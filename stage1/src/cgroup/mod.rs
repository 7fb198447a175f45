//! A pod's cgroups in the host's hierarchies, v1 and v2: create, join, remove. Host side.
//!
//! A pod has the same path in every hierarchy, which is recorded in the file `subcgroup` of the pod directory. The last
//! component has the pod's UUID, and a directory of that name stays until the pod's remains are removed. If the host's
//! PID 1 is systemd, the pod's cgroup is that of a scope of the host's systemd ([`scope`]).

pub mod devices;
mod end;
mod freeze;
mod hierarchy;
mod member;
mod parent;
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
use crate::systemd::Value;

pub use hierarchy::{Hierarchy, Version, hierarchies};
pub use member::{Running, is_frozen, join_like};
pub use parent::{CGROUP_PARENT, Parent};
use tree::members_below;
pub use usage::{OomKills, Usage};

/// The cgroup of all units of a pod's supervisor, relative to the pod's cgroup, and that of the supervisor itself.
const SLICE: &str = "system.slice";
const SUPERVISOR: &str = "init.scope";
/// The controllers of v1 in whose hierarchies the supervisor makes cgroups.
const SUPERVISED: [&str; 7] = ["name=systemd", "cpu", "cpuacct", "blkio", "memory", "devices", "pids"];
/// Timeout for the end of processes that were killed.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A pod's cgroups, one in each hierarchy.
#[derive(Clone, Debug)]
pub struct PodCgroup {
    path: PathBuf,
    hierarchies: Vec<Hierarchy>,
}

impl PodCgroup {
    /// The cgroups of the pod `uuid` where `run` makes them: in `parent` or, without it, in the default place. Creates
    /// nothing.
    ///
    /// # Errors
    /// The host has no cgroup hierarchy.
    pub fn of(uuid: &str, parent: Option<&Parent>) -> Result<Self> {
        let usual = || if scope::host_has_systemd() { scope::MACHINES.into() } else { PathBuf::new() };
        Self::at(parent.map_or_else(usual, Parent::path).join(scope::name(uuid)))
    }

    /// Whether the host's systemd makes and removes these cgroups.
    fn is_managed(&self) -> bool {
        scope::slice(&self.path).is_some() && scope::host_has_systemd()
    }

    /// The cgroups at `path`, relative to the root of each hierarchy. Creates nothing.
    ///
    /// # Errors
    /// `path` is empty, absolute or has a component `..`, or the host has no cgroup hierarchy.
    pub fn at(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let plain = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if !plain || path.components().next().is_none() {
            return Err(Error::new(format!("{path:?} is not the cgroup path of a pod")));
        }
        Ok(Self { path, hierarchies: hierarchies()? })
    }

    /// The cgroups that the file `subcgroup` in the pod directory `pod` records.
    ///
    /// # Errors
    /// The file can't be read, or as [`Self::at`].
    pub fn recorded(pod: &Path) -> Result<Self> {
        let file = pod.join(layout::SUBCGROUP);
        let text = fs::read_to_string(&file).context(|| format!("read {file:?}"))?;
        Self::at(text.trim_end().trim_start_matches('/'))
    }

    /// The path relative to the root of each hierarchy, without a leading `/`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The hierarchies, each with the pod's directory in it.
    pub fn directories(&self) -> impl Iterator<Item = (&Hierarchy, PathBuf)> {
        self.hierarchies.iter().map(|h| (h, h.mount.join(&self.path)))
    }

    /// The files and (existing) cgroups in the pod's cgroup of a hierarchy that the pod's supervisor writes to. All
    /// else is read-only in the pod.
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

    /// Whether the pod's cgroups have a file of this name, such as `memory.max`, by which a limit is set. That depends
    /// on the controllers and on the kernel's configuration.
    pub fn has_limit(&self, file: &str) -> bool {
        self.directories().any(|(_, dir)| dir.join(file).exists())
    }

    /// Sets limits as properties of the pod's scope, if the host's systemd manages these cgroups: it writes its own values
    /// over others.
    ///
    /// # Errors
    /// systemd refuses a property, or does not answer within 30 s.
    pub fn set_properties(&self, properties: &[(&str, Value)]) -> Result<()> {
        if properties.is_empty() || !self.is_managed() { Ok(()) } else { scope::set_properties(&self.path, properties) }
    }

    /// Creates the pod's cgroups and moves the process `pid`, the pod's future PID 1, into them. `owner` is the host id
    /// of the root of the pod's user namespace, or 0. Unless `any_device`, the pod is restricted to
    /// [`devices::CLOSED`].
    ///
    /// Controllers of v2 that can't be enabled are named in warnings.
    ///
    /// # Errors
    /// A cgroup can't be made or entered, or the host's systemd refuses the scope.
    pub fn create(&self, owner: u32, pid: i32, any_device: bool) -> Result<()> {
        let managed = self.is_managed();
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
            log::warn!("this host has no cgroup controllers: limits on memory, cpu, pids and io are not enforced");
        }
        Ok(())
    }

    /// The PIDs of the processes in a cgroup of the pod and below it, in the caller's PID namespace.
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

    /// Whether the cgroup `unit` of the pod, or one below it, has processes.
    ///
    /// # Errors
    /// A cgroup exists and can't be read.
    pub fn unit_is_populated(&self, unit: &Path) -> Result<bool> {
        self.processes_of_unit(unit).map(|pids| !pids.is_empty())
    }

    /// Kills all processes in the pod's cgroups, and removes the cgroups below them.
    ///
    /// # Errors
    /// Processes have not ended after 10 s, or a cgroup can't be removed; the others are.
    pub fn clear(&self) -> Result<()> {
        self.end(end::empty_tree)
    }

    /// Kills all processes in the pod's cgroups and removes these. Cgroups that do not exist are not an error. A cgroup
    /// whose name does not have the pod's UUID is left alone, because other processes than the pod's may be in it.
    ///
    /// # Errors
    /// As [`Self::clear`], or the host's systemd can't stop the pod's units.
    pub fn remove(&self, uuid: &str) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        if !name.contains(uuid) && !name.contains(&scope::escaped(uuid)) {
            log::debug!("the cgroup {:?} does not have the pod's UUID in its name: it is left alone", self.path);
            return Ok(());
        }
        let marker = Self { path: scope::marker(&self.path), hierarchies: self.hierarchies.clone() };
        let is_there = |cgroup: &Self| cgroup.directories().any(|(_, dir)| dir.is_dir());
        let managed = self.is_managed();
        let mut removed = Ok(());
        if managed && (is_there(self) || is_there(&marker)) {
            // The host's systemd removes the cgroups of its units itself: it might make one again that was removed
            // before.
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

/// Creates the cgroup `path`, and those above it, in a hierarchy.
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

/// Copies processors and memory nodes from the parent to a new cpuset of v1, which takes no process before: cpuset(7).
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

/// Enables every available controller in the cgroups above `path`.
fn enable_controllers(hierarchy: &Hierarchy, path: &Path) -> Result<()> {
    let mut dir = hierarchy.mount.clone();
    for name in path.components() {
        for controller in available_controllers(&dir)?.split_whitespace() {
            if let Err(error) = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
                log::warn!(
                    "cgroup controller {controller} can't be enabled in {dir:?}, its limits are not enforced: {error}"
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

/// Delegates a cgroup to the root of a user namespace, as cgroups(7) describes: changes the owner of the directory and
/// of the files by which processes are moved.
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
