//! The PID namespace of an app that has one of its own.
//!
//! systemd starts a process in the pod's namespace, which clones another one in the app's namespace. CLONE_PARENT makes
//! the new process a child of systemd, which so gets its exit status, and `MAINPID=` makes it the app's main process.
//! The new process waits until systemd has acted on that: systemd refuses a main process that has ended already, as one
//! does that is executed and ends at once. If the first process ends before that, the new one ends without having done
//! anything.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::deadline;
use super::notify::{supervisor, wait_until_heard};
use crate::appc::{AcName, Isolators, PidNamespace};
use crate::cgroup::PodCgroup;
use crate::error::{Context, Error, Result, exit};
use crate::launch::LaunchOutline;
use crate::pod::Pod;
use crate::sys::dir;
use crate::sys::process::{self, Fork};
use crate::systemd::{Client, Interface, PRIVATE_SOCKET};
use crate::{layout, rootfs};

/// Continues in the app's PID namespace: in this process if that is the pod's, else in a new main process of the app.
/// Pod side.
///
/// # Errors
/// The namespace can't be made or joined, or systemd can't be told.
pub(super) fn go_on_in(namespace: &PidNamespace) -> Result<()> {
    let new = match namespace {
        PidNamespace::Pod | PidNamespace::Host => return Ok(()),
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
            wait_until_heard(&supervisor)?;
            File::from(go).write_all(b"g").context(|| "let the main process go on")?;
            process::exit_now(0)
        }
        Fork::Child => {
            drop(go);
            if File::from(wait).read(&mut [0]).context(|| "wait for the word to go on")? == 0 {
                // The first process reports its own errors.
                process::exit_now(exit::SETUP.into())
            }
            Ok(())
        }
    }
}

/// The PID of an app's main process in the pod's PID namespace; `None` if the app does not run. Pod side.
pub(super) fn main_pid(systemd: &mut Client, app: &AcName) -> Result<Option<i32>> {
    let properties = systemd.properties(&layout::app_unit(app), Interface::Service, deadline())?;
    Ok(properties.number("MainPID").and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0))
}

/// The PID namespace in an app's launch record, which the pod's own root can change. Host side.
///
/// # Errors
/// The record is damaged.
pub(super) fn recorded(app: &AcName) -> Result<PidNamespace> {
    match LaunchOutline::load(app) {
        // What enters finds out that the app was not added.
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(PidNamespace::Pod),
        outline => Ok(outline?.pid_namespace),
    }
}

/// Whether the pod's manifest, which the host alone writes, gives the app the host's PID namespace. Host side, in the
/// pod's directory.
///
/// # Errors
/// The manifest can't be read, or is not valid.
pub(super) fn may_be_on_host(app: &AcName) -> Result<bool> {
    let manifest = Pod::load(Path::new("."))?.manifest;
    let isolators = manifest.app(app).and_then(|app| app.app.as_ref()).map(|app| Isolators::parse(&app.isolators));
    Ok(isolators.transpose()?.is_some_and(|isolators| isolators.pid_namespace == PidNamespace::Host))
}

/// The first process of an app's own PID namespace, for processes that enter it.
#[derive(Debug)]
pub(super) struct First {
    pidfd: OwnedFd,
    /// Its PID in the pod's namespace.
    in_pod: i32,
}

impl First {
    /// Finds that process of an app that has the PID namespace `namespace`, in the pod in the current directory, whose
    /// PID 1 is `pod`. `None` if the app uses the pod's namespace or the host's, or does not run. Host side.
    ///
    /// # Errors
    /// The app's processes can't be looked at.
    pub(super) fn of(cgroup: &PodCgroup, pod: i32, app: &AcName, namespace: &PidNamespace) -> Result<Option<Self>> {
        if matches!(namespace, PidNamespace::Pod | PidNamespace::Host) {
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
        // The PID may have been reused before the pidfd was opened; from here on the process can't change.
        let numbers = numbers(pid).filter(|_| cgroup.has_process(pid, &place).unwrap_or(false));
        let in_pod = numbers.and_then(|numbers| numbers.get(depth.checked_sub(1)?).copied());
        Ok(in_pod.map(|in_pod| Self { pidfd, in_pod }))
    }

    /// Makes later children of this process members of the PID namespace. [`Self::in_pod`] names the process whose root
    /// they join.
    ///
    /// # Errors
    /// The process has ended.
    pub(super) fn join(&self) -> Result<()> {
        process::setns(&self.pidfd, CloneFlags::CLONE_NEWPID).context(|| "join the PID namespace of the app")
    }

    /// Its PID in the pod's PID namespace.
    pub(super) fn in_pod(&self) -> i32 {
        self.in_pod
    }
}

/// Joins the mount namespace of a running app. `main` is the PID of its main process in the pod's PID namespace; this
/// process is in the app's PID namespace. Pod side, in the pod's root.
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

/// Joins the app's root: that of its running main process, else the pinned one that each start begins with.
///
/// # Errors
/// The app was not added, or has just ended.
pub(super) fn join_root(app: &AcName, main: Option<i32>) -> Result<()> {
    main.map_or_else(|| rootfs::join_pinned(app), join_root_of)
}

/// The PIDs of a process in each PID namespace, the outermost first: NSpid of proc_pid_status(5).
fn numbers(pid: i32) -> Option<Vec<i32>> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect())
}

/// The start time of a process, in clock ticks since boot: proc_pid_stat(5).
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
