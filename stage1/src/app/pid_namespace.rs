//! The PID namespace of an app, if that is not the pod's.
//!
//! The supervisor has started a process of the pod's namespace. It bears one in the app's and makes that the app's main
//! process: CLONE_PARENT makes it a child of the supervisor, which so gets its exit status, and `MAINPID=` tells the
//! supervisor that it is the one. Until that is told the new process waits: it ends without having done anything if
//! the first one ends before.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::deadline;
use super::notify::supervisor;
use crate::appc::{AcName, PidNamespace};
use crate::cgroup::PodCgroup;
use crate::error::{Context, Error, Result, exit};
use crate::launch::LaunchRecord;
use crate::sys::dir;
use crate::sys::process::{self, Fork};
use crate::systemd::{Client, Interface, PRIVATE_SOCKET};
use crate::{layout, rootfs};

/// Goes on in the namespace: as this process in the pod's, in any other as the new main process of the app. Pod side.
///
/// # Errors
/// The namespace can't be made or joined, or the supervisor not be told.
pub(super) fn go_on_in(namespace: &PidNamespace) -> Result<()> {
    let new = match namespace {
        PidNamespace::Pod => return Ok(()),
        PidNamespace::Private => CloneFlags::CLONE_NEWPID,
        PidNamespace::Of(other) => {
            let what = || format!("PID namespace of app {other}");
            let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline())?;
            let main = main_pid(&mut systemd, other)
                .context(what)?
                .context(|| format!("app {other} does not run"))
                .context(what)?;
            process::setns(process::pidfd_open(main).context(what)?, CloneFlags::CLONE_NEWPID).context(what)?;
            CloneFlags::empty()
        }
    };
    let supervisor = supervisor()?.context(|| "nobody waits to be told the main process of the app")?;
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC).context(|| "pipe")?;
    match process::fork_into(new | CloneFlags::CLONE_PARENT)? {
        Fork::Parent(main) => {
            drop(wait);
            supervisor
                .send(format!("MAINPID={main}").as_bytes())
                .context(|| format!("tell the supervisor MAINPID={main}"))?;
            File::from(go).write_all(b"g").context(|| "let the main process go on")?;
            process::exit_now(0)
        }
        Fork::Child => {
            drop(go);
            if File::from(wait).read(&mut [0]).context(|| "wait for the word to go on")? == 0 {
                // What the first process has to say of it, it says itself.
                process::exit_now(exit::SETUP.into())
            }
            Ok(())
        }
    }
}

/// The main process of an app, in the pod's PID namespace; none if the app does not run. Pod side.
pub(super) fn main_pid(systemd: &mut Client, app: &AcName) -> Result<Option<i32>> {
    let properties = systemd.properties(&layout::app_unit(app), Interface::Service, deadline())?;
    Ok(properties.number("MainPID").and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0))
}

/// The first process of an app that runs in a PID namespace below the pod's, for what enters it.
#[derive(Debug)]
pub(super) struct First {
    pidfd: OwnedFd,
    /// Its number in the pod's namespace.
    in_pod: i32,
}

impl First {
    /// Of an app of the pod in the current directory, whose PID 1 has the number `pod`. `None` if the app has the pod's
    /// namespace, or does not run. Host side.
    ///
    /// # Errors
    /// Its launch record is damaged, or its processes can't be looked at.
    pub(super) fn of(cgroup: &PodCgroup, pod: i32, app: &AcName) -> Result<Option<Self>> {
        let record = dir::open_dir(layout::app_dir(app)).and_then(|dir| LaunchRecord::load(dir, layout::LAUNCH));
        let record = match record {
            // What enters finds out that the app was not added.
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
            record => record?,
        };
        if record.pid_namespace == PidNamespace::Pod {
            return Ok(None);
        }
        let depth = numbers(pod).map_or(0, |numbers| numbers.len());
        let place = layout::app_cgroup(app);
        let in_namespace = |pid: &i32| numbers(*pid).is_some_and(|numbers| numbers.len() == depth + 1);
        let members = cgroup.processes(&place)?.into_iter().filter(in_namespace);
        let Some(pid) = members.filter_map(|pid| Some((started(pid)?, pid))).min().map(|(_, pid)| pid) else {
            return Ok(None);
        };
        let pidfd = process::pidfd_open(pid)?;
        // Its number may be another's by now; the descriptor's can't change any more.
        let numbers = numbers(pid).filter(|_| cgroup.has_process(pid, &place).unwrap_or(false));
        let in_pod = numbers.and_then(|numbers| numbers.get(depth.checked_sub(1)?).copied());
        Ok(in_pod.map(|in_pod| Self { pidfd, in_pod }))
    }

    /// Children of this process are in its PID namespace from now on. Their [`Self::in_pod`] says whose root they join.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn join(&self) -> Result<()> {
        process::setns(&self.pidfd, CloneFlags::CLONE_NEWPID).context(|| "join the PID namespace of the app")
    }

    /// Its number in the pod's PID namespace.
    pub(super) fn in_pod(&self) -> i32 {
        self.in_pod
    }
}

/// Joins the mount namespace of a running app, whose main process has the number `main` in the pod's PID namespace and
/// whose PID namespace this process is in. Pod side, in the pod's root.
pub(super) fn join_root_of(main: i32) -> Result<()> {
    let open = |path: String| {
        rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .context(|| format!("open {path}"))
    };
    let root = open(format!("/proc/{main}/ns/mnt"))?;
    if !dir::same_file(open(format!("/proc/{main}/ns/pid"))?, open("/proc/self/ns/pid".to_owned())?)? {
        return Err(Error::new("the app has just ended"));
    }
    process::setns(root, CloneFlags::CLONE_NEWNS)
}

/// Joins the app's root: that of its running main process, or the one that each start begins with.
///
/// # Errors
/// The app was not added, or has just ended.
pub(super) fn join_root(app: &AcName, main: Option<i32>) -> Result<()> {
    main.map_or_else(|| rootfs::join_pinned(app), join_root_of)
}

/// The numbers of a process in each PID namespace, the outermost first: NSpid of proc_pid_status(5).
fn numbers(pid: i32) -> Option<Vec<i32>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect())
}

/// When a process was started, in ticks since the machine was: proc_pid_stat(5).
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
