//! Moving a process into the cgroups of a running unit or PID 1 of a pod, in every hierarchy. Host side, except for
//! [`join_like`].

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use super::tree::is_gone;
use super::{Hierarchy, PodCgroup, Version, freeze};
use crate::error::{Context, Error, Result};
use crate::sys::{dir, process, procfs};

/// Number of looks at a unit whose processes are being moved between cgroups, and the time between two looks.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// Maximum number of processes that are watched to find out whether a unit still runs.
const WITNESSES: usize = 64;

/// The cgroups of a running unit or PID 1 of a pod, one in each hierarchy, and pidfds of its processes, the witnesses.
///
/// A supervisor removes a cgroup, or takes limits and device policy from it, only when it is empty. So a process that
/// was moved into these cgroups while a witness still ran is under the unit's limits, and the supervisor ends it with
/// the unit.
#[derive(Debug)]
pub struct Running {
    /// PID of one of its processes, in the caller's PID namespace.
    pid: i32,
    dirs: Vec<MemberDirectory>,
    witnesses: Vec<OwnedFd>,
}

#[derive(Debug)]
struct MemberDirectory {
    path: PathBuf,
    dir: OwnedFd,
    /// For PID 1: the pod's own cgroup, to which the supervisor moves itself before it removes the cgroup `dir`.
    pods: Option<OwnedFd>,
}

impl Running {
    /// PID of one of its processes, in the caller's PID namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Moves the process `pid`, in the caller's PID namespace, into these cgroups. `Ok(false)` if the unit has ended
    /// meanwhile; then the caller must end the process, because it may be in only some of the cgroups.
    ///
    /// # Errors
    /// The kernel refuses to move the process, for another reason than that a cgroup was removed.
    pub fn admit(&self, pid: nix::unistd::Pid) -> Result<bool> {
        for MemberDirectory { path, dir, pods } in &self.dirs {
            let write = |dir: &OwnedFd| -> std::io::Result<()> {
                let file = rustix::fs::openat(dir, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
                File::from(file).write_all(pid.to_string().as_bytes())
            };
            match (write(dir), pods) {
                (Err(error), None) if is_gone(&error) => return Ok(false),
                (Err(error), Some(pods)) if is_gone(&error) => {
                    write(pods).context(|| format!("join the pod's cgroup above {path:?}"))?;
                }
                (done, _) => done.context(|| format!("join the cgroup {path:?}"))?,
            }
        }
        self.is_running()
    }

    fn is_running(&self) -> Result<bool> {
        for witness in &self.witnesses {
            if !process::pidfd_wait_end(witness, Duration::ZERO)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl PodCgroup {
    /// The cgroups of the running unit `unit`, a path relative to the pod's cgroup; `None` if it does not run.
    ///
    /// # Errors
    /// A cgroup or a file in /proc can't be read, or for a second no process was in all cgroups of the unit.
    pub fn running(&self, unit: &Path) -> Result<Option<Running>> {
        for _ in 0..TRIES {
            let pids = self.processes_of_unit(unit)?;
            if pids.is_empty() {
                return Ok(None);
            }
            // Processes that have ended since are left out.
            let witnesses: Vec<_> =
                pids.iter().take(WITNESSES).filter_map(|pid| process::pidfd_open(*pid).ok()).collect();
            for pid in pids.into_iter().take(WITNESSES) {
                if let Some(dirs) = self.dirs_of(pid, unit)? {
                    let running = Running { pid, dirs, witnesses };
                    if running.is_running()? {
                        return Ok(Some(running));
                    }
                    break;
                }
            }
            std::thread::sleep(PAUSE);
        }
        Err(Error::new(format!("no process of {unit:?} is in all its cgroups: is the unit being started or stopped?")))
    }

    /// The cgroups of the pod's PID 1, whose PID in the caller's PID namespace is `pid`.
    ///
    /// # Errors
    /// PID 1 has ended, or is not in the pod's cgroups.
    pub fn running_pid1(&self, pid: i32, pidfd: OwnedFd) -> Result<Running> {
        let tries = std::iter::repeat_with(|| self.dirs_of(pid, Path::new(""))).take(3);
        let dirs = tries.into_iter().find_map(Result::transpose).transpose()?;
        let mut dirs = dirs.context(|| format!("PID 1 of the pod ({pid}) is not in the pod's cgroups"))?;
        for (place, (_, pods)) in dirs.iter_mut().zip(self.directories()) {
            place.pods = Some(dir::open_dir(pods)?);
        }
        Ok(Running { pid, dirs, witnesses: vec![pidfd] })
    }

    /// The cgroups of the process `pid`, each of which must be the unit's cgroup or below it or, in a hierarchy without
    /// a cgroup for the unit, the pod's. `None` if one is not, as during a start or a stop, or if the process has
    /// ended.
    fn dirs_of(&self, pid: i32, unit: &Path) -> Result<Option<Vec<MemberDirectory>>> {
        let file = format!("/proc/{pid}/cgroup");
        let text = match procfs::read(&file) {
            Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            text => text.context(|| format!("read {file}"))?,
        };
        let mut dirs = Vec::new();
        for (hierarchy, pods) in self.directories() {
            let path = path_in(&text, hierarchy);
            let path = path.context(|| format!("{file} does not name the hierarchy {:?}", hierarchy.mount))?;
            let place = hierarchy.mount.join(path.trim_start_matches('/'));
            let unit = pods.join(unit);
            if !place.starts_with(if unit.is_dir() { &unit } else { &pods }) {
                return Ok(None);
            }
            match dir::open_dir(&place) {
                // The process was moved and the cgroup removed.
                Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
                opened => dirs.push(MemberDirectory { dir: opened?, path: place, pods: None }),
            }
        }
        Ok(Some(dirs))
    }
}

impl PodCgroup {
    /// Whether the process `pid`, in the caller's PID namespace, is in the cgroup `unit` of the pod or below it;
    /// `false` if it has ended.
    ///
    /// # Errors
    /// /proc/PID/cgroup can't be read.
    pub fn has_process(&self, pid: i32, unit: &Path) -> Result<bool> {
        let file = format!("/proc/{pid}/cgroup");
        let text = match procfs::read(&file) {
            Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ESRCH) => return Ok(false),
            text => text.context(|| format!("read {file}"))?,
        };
        // A pod always has a cgroup in the unified hierarchy.
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        Ok(path.is_some_and(|path| Path::new(path).starts_with(self.path.join(unit))))
    }
}

/// Moves the process `pid` into the cgroup of the process `like` in every hierarchy. `Ok(false)` if one of them has
/// ended or a cgroup was removed. Pod side, where the supervisor's cgroups are writable.
///
/// # Errors
/// The kernel refuses to move the process, for another reason than that a cgroup was removed.
pub fn join_like(pid: nix::unistd::Pid, like: i32) -> Result<bool> {
    let read = |pid: i32| {
        let file = format!("/proc/{pid}/cgroup");
        match procfs::read(&file) {
            Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            text => text.context(|| format!("read {file}")).map(Some),
        }
    };
    let (Some(wanted), Some(own)) = (read(like)?, read(pid.as_raw())?) else { return Ok(false) };
    for hierarchy in super::hierarchies()? {
        let (wanted, own) = (path_in(&wanted, &hierarchy), path_in(&own, &hierarchy));
        // In a hierarchy without a cgroup for the unit both are in the same one.
        let Some(wanted) = wanted.filter(|_| wanted != own) else { continue };
        let procs = hierarchy.mount.join(wanted.trim_start_matches('/')).join("cgroup.procs");
        match fs::write(&procs, pid.to_string()) {
            Err(error) if is_gone(&error) => return Ok(false),
            done => done.context(|| format!("join {procs:?}"))?,
        }
    }
    Ok(true)
}

/// Whether the cgroup of the process `pid` was frozen by itself: `cgroup.freeze` of cgroups(7). A process that has ended
/// is not frozen. Pod side.
///
/// # Errors
/// A file can't be read.
pub fn is_frozen(pid: i32) -> Result<bool> {
    let file = format!("/proc/{pid}/cgroup");
    let groups = match procfs::read(&file) {
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ESRCH) => return Ok(false),
        text => text.context(|| format!("read {file}"))?,
    };
    for hierarchy in super::hierarchies()?.iter().filter(|hierarchy| hierarchy.version == Version::V2) {
        let Some(path) = path_in(&groups, hierarchy) else { continue };
        if freeze::is_frozen(&hierarchy.mount.join(path.trim_start_matches('/')))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The path of a process in a hierarchy, from the text of its /proc/PID/cgroup: cgroups(7).
fn path_in<'a>(text: &'a str, hierarchy: &Hierarchy) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let is_it = match hierarchy.version {
            Version::V2 => number == "0" && controllers.is_empty(),
            Version::V1 => controllers.split(',').any(|name| hierarchy.controllers.iter().any(|c| c == name)),
        };
        is_it.then_some(path)
    })
}
