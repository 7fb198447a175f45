//! Booting a pod: its namespaces and root, its PID 1, and the monitor, which stays on the host side.
//!
//! [`launch`] forks the pod's PID 1 into its namespaces and returns on the host side when PID 1 has executed the
//! supervisor; [`Monitor::watch`] then returns when the pod has ended.

mod apps;
mod console_file;
mod monitor;
mod pod_limits;
mod root;
mod run;
mod sysctl;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

pub use monitor::Monitor;
pub use pod_limits::set as set_limits;
pub use run::{Run, check_hostname};
pub use sysctl::SYSCTLS;

use crate::appc::Isolators;
use crate::cgroup::{Parent, PodCgroup};
use crate::confine::caps::CapSet;
use crate::error::{Context, Error, Result};
use crate::inherited;
use crate::layout;
use crate::mux::{self, Link, Listeners, Mux};
use crate::pod::{Directory, write_atomic};
use crate::sys::process::{self, Fork};
use crate::sys::{caps, dir, net, pty, signal, userns};
use crate::uid_range::UidRange;

/// Timeout for each step of PID 1 before it executes the supervisor.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(30);

/// What a pod is made with: its namespaces, limits and privileges.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// The pod's UUID, lower case with dashes.
    pub uuid: String,
    /// Host name in the pod.
    pub hostname: String,
    /// Whether it has its own network namespace, which at first has the loopback interface only.
    pub own_network: bool,
    /// Whether that namespace joins networks before the supervisor is executed.
    pub joins_networks: bool,
    /// Whether it has its own IPC namespace.
    pub own_ipc: bool,
    /// The host ids of its own user namespace; `None` if it has none.
    pub private_users: Option<UidRange>,
    /// Whether the supervisor writes debug messages to the console.
    pub debug: bool,
    /// Whether the pod's only app is attached to the caller's standard input or terminal.
    pub interactive: bool,
    /// Settings of its apps' logs.
    pub logs: mux::Settings,
    /// Limits of the pod as a whole.
    pub isolators: Isolators,
    /// The bounding set of PID 1, and so of all apps.
    pub capabilities: CapSet,
    /// The parent of the pod's cgroup; `None` means the default.
    pub cgroup_parent: Option<Parent>,
    /// Kernel parameters of its namespaces: names and values.
    pub sysctls: BTreeMap<String, String>,
    /// Whether its processes may use any device.
    pub any_device: bool,
}

impl PodSpec {
    /// The host's id of the pod's root user.
    fn root_id(&self) -> u32 {
        self.private_users.map_or(0, |range| range.first)
    }
}

/// Starts the pod in the current directory and waits until its PID 1 has executed the supervisor. If the pod joins
/// networks, `join` is called to do that, with the host PID of the future PID 1, which is in the pod's network
/// namespace.
///
/// The pod gets nothing that this process inherited: the program has called [`inherited::settle`] at its start, and
/// this function calls [`inherited::leave_caller`]. Host side.
///
/// # Errors
/// A step failed; then no process of the pod runs any more, and its cgroup is removed.
pub fn launch(spec: &PodSpec, join: impl FnOnce(i32, &SignalFd) -> Result<()>) -> Result<Monitor> {
    let kept = inherited::leave_caller()?;
    if !kept.is_empty() {
        log::warn!(
            "limits of the caller stay in force for the pod, because this process may not lift them: {}",
            kept.join(", ")
        );
    }
    let signals = signal::block(monitor::SIGNALS)?;
    let cgroup = PodCgroup::of(&spec.uuid, spec.cgroup_parent.as_ref())?;
    let (console, terminal) = pty::open_pair().context(|| "allocate the pod's console")?;
    pty::plain_output(&terminal)?;
    let link = if spec.interactive { Some(Link::new()?) } else { None };
    let listeners = Listeners::new()?;
    let root = (rustix::fs::Uid::from_raw(spec.root_id()), rustix::fs::Gid::from_raw(spec.root_id()));
    rustix::fs::fchown(&terminal, Some(root.0), Some(root.1)).context(|| "chown the pod's console")?;
    let sources = root::HostSources::open(&terminal)?;
    let started = start_pid1(spec, &cgroup, &sources, &listeners, |pid| join(pid, &signals)).and_then(|pid1| {
        let mux = Mux::new(&spec.uuid, spec.logs, cgroup.clone(), listeners, link)?;
        Ok((pid1, mux))
    });
    match started {
        Ok((pid1, mux)) => Monitor::new(pid1, cgroup.clone(), (console, terminal), mux, signals, spec.debug),
        Err(error) => match cgroup.remove(&spec.uuid) {
            Ok(()) => Err(error),
            Err(cleanup) => Err(Error::new(format!("{}; then {}", error.one_line(), cleanup.one_line()))),
        },
    }
}

fn start_pid1(
    spec: &PodSpec,
    cgroup: &PodCgroup,
    sources: &root::HostSources,
    listeners: &Listeners,
    join: impl FnOnce(i32) -> Result<()>,
) -> Result<(Pid, OwnedFd)> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(|| "pipe");
    let (go_read, go_write) = pipe()?;
    let (report_read, report_write) = pipe()?;
    let parent = process::pidfd_open(std::process::id().cast_signed())?;
    let user = if spec.private_users.is_some() { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
    match process::fork_into(CloneFlags::CLONE_NEWPID | user)? {
        Fork::Child => {
            drop((go_write, report_read));
            let mut report = File::from(report_write);
            let Err(error) = become_pid1(spec, cgroup, &parent, go_read.into(), &mut report, (sources, listeners));
            let text = error.one_line();
            if let Err(io) = report.write_all(text.as_bytes()) {
                log::error!("{text} (and reporting it to the monitor failed: {io})");
            }
            process::exit_now(1)
        }
        Fork::Parent(pid) => {
            drop((go_read, report_write));
            let pidfd = process::pidfd_open(pid.as_raw())?;
            let (mut go, mut report) = (File::from(go_write), File::from(report_read));
            let mut go_on = || go.write_all(b"g").context(|| "let PID 1 go on");
            let start = || {
                place(spec, cgroup, pid)?;
                go_on()?;
                if spec.joins_networks {
                    wait_for_step(&mut report)?;
                    join(pid.as_raw())?;
                    go_on()?;
                }
                wait_for_step(&mut report)?;
                record(cgroup, pid)?;
                go_on()?;
                wait_for_exec(&mut report)
            };
            if let Err(error) = start() {
                process::pidfd_kill(&pidfd, Signal::KILL)?;
                process::wait_child(pid)?;
                return Err(error);
            }
            Ok((pid, pidfd))
        }
    }
}

/// Makes the pod's cgroups, moves the waiting PID 1 into them, and maps its user namespace. Host side.
fn place(spec: &PodSpec, cgroup: &PodCgroup, pid: Pid) -> Result<()> {
    cgroup.create(spec.root_id(), pid.as_raw(), spec.any_device)?;
    pod_limits::set(cgroup, &spec.isolators)?;
    if let Some(UidRange { first, count }) = spec.private_users {
        userns::set_ids(pid.as_raw(), first, count)?;
    }
    Ok(())
}

/// Writes the files that name the pod's cgroup and PID 1, in this order: CONTRACT section 1. Host side.
fn record(cgroup: &PodCgroup, pid: Pid) -> Result<()> {
    let here = Directory::Trusted(Path::new("."));
    write_atomic(here, layout::SUBCGROUP, cgroup.path().to_string_lossy().as_bytes(), 0o644)?;
    write_atomic(here, layout::PID, format!("{pid}\n").as_bytes(), 0o644)
}

/// Byte by which PID 1 reports that a step (its network namespace, its root) is done and that it waits to go on. No
/// error message begins with it.
const WAITS: u8 = 0;

/// Waits until PID 1 reports a step or an error.
fn wait_for_step(report: &mut File) -> Result<()> {
    wait_for_report(report)?;
    let mut word = [WAITS];
    match report.read(&mut word).context(|| "read PID 1's report")? {
        1 if word == [WAITS] => Ok(()),
        read => {
            let mut text = word[..read].to_vec();
            report.read_to_end(&mut text).context(|| "read PID 1's report")?;
            let text = String::from_utf8_lossy(&text);
            Err(Error::new(if text.is_empty() { "PID 1 ended early".into() } else { text }))
        }
    }
}

/// Waits until PID 1 has executed the supervisor, which closes the pipe, or has reported an error.
fn wait_for_exec(report: &mut File) -> Result<()> {
    wait_for_report(report)?;
    let mut text = String::new();
    report.read_to_string(&mut text).context(|| "read PID 1's report")?;
    if text.is_empty() { Ok(()) } else { Err(Error::new(text)) }
}

/// Waits until the pipe is readable or closed.
fn wait_for_report(report: &File) -> Result<()> {
    let deadline = Instant::now() + LAUNCH_TIMEOUT;
    let mut fds = [nix::poll::PollFd::new(report.as_fd(), nix::poll::PollFlags::POLLIN)];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = nix::poll::PollTimeout::try_from(left).unwrap_or(nix::poll::PollTimeout::MAX);
        match nix::poll::poll(&mut fds, left) {
            Ok(0) => return Err(Error::new(format!("PID 1 timed out after {} s", LAUNCH_TIMEOUT.as_secs()))),
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "poll"),
        }
    }
}

/// In the new PID (and user) namespace: makes the other namespaces, enters the root, executes the supervisor.
fn become_pid1(
    spec: &PodSpec,
    cgroup: &PodCgroup,
    parent: &OwnedFd,
    mut go: File,
    report: &mut File,
    (sources, listeners): (&root::HostSources, &Listeners),
) -> Result<Infallible> {
    let mut may_go_on = || go.read_exact(&mut [0]).context(|| "the monitor ended early");
    may_go_on()?;
    become_root()?;
    // The pod must not outlive its monitor, which holds the pod's lock.
    process::die_with_parent()?;
    if process::pidfd_wait_end(parent, Duration::ZERO)? {
        return Err(Error::new("the monitor ended early"));
    }
    if spec.own_network {
        process::unshare(CloneFlags::CLONE_NEWNET)?;
        net::loopback_up()?;
    }
    if spec.joins_networks {
        report.write_all(&[WAITS]).context(|| "report the network namespace")?;
        may_go_on()?;
    }
    let own = |wanted: bool, flag| if wanted { flag } else { CloneFlags::empty() };
    process::unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP
            | own(spec.own_ipc, CloneFlags::CLONE_NEWIPC),
    )?;
    nix::unistd::sethostname(&spec.hostname).context(|| format!("sethostname({:?})", spec.hostname))?;
    sysctl::set(&spec.sysctls)?;
    root::enter(cgroup, sources, &spec.hostname)?;
    listeners.bind_in_pod()?;
    // The supervisor starts only after the monitor has written the files that name the pod's cgroup and PID 1: so they
    // exist when the pod says that it is ready.
    report.write_all(&[WAITS]).context(|| "report the root")?;
    may_go_on()?;
    exec_supervisor(spec)
}

/// Becomes root of the current user namespace, without supplementary groups.
fn become_root() -> Result<()> {
    use rustix::process::{Gid, Uid};
    nix::unistd::setgroups(&[]).context(|| "setgroups([])")?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).context(|| "setresgid(0)")?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).context(|| "setresuid(0)")
}

/// Tells the host that the pod takes apps. Pod side, executed by a unit.
///
/// It also turns off the output processing of the console again, which the supervisor turned on when it reset the
/// console at its start: the host's terminal does that processing.
///
/// # Errors
/// The console can't be opened or set, or as [`crate::pod::mark_supervisor_ready`].
pub fn supervisor_is_ready() -> Result<()> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let console = rustix::fs::open(CONSOLE, flags, Mode::empty()).context(|| format!("open {CONSOLE}"))?;
    pty::plain_output(console)?;
    crate::pod::mark_supervisor_ready()
}

/// The pod's console, pod side.
const CONSOLE: &str = "/dev/console";

fn exec_supervisor(spec: &PodSpec) -> Result<Infallible> {
    let open = |path: &str| {
        rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
            .context(|| format!("open {path}"))
    };
    process::set_standard_fd(open("/dev/null")?, 0)?;
    let console = open(CONSOLE)?;
    process::set_standard_fd(&console, 1)?;
    process::set_standard_fd(&console, 2)?;
    nix::unistd::setsid().context(|| "setsid")?;
    caps::limit_bounding_set(spec.capabilities.bits())?;
    let path = dir::c_string(layout::SUPERVISOR.as_bytes())?;
    // At lower levels it logs errors about things that are intended, such as read-only sysctls.
    let level: &[u8] = if spec.debug { b"--log-level=debug" } else { b"--log-level=crit" };
    let argv =
        [path.clone(), dir::c_string(b"--system")?, dir::c_string(level)?, dir::c_string(b"--log-target=console")?];
    let env =
        ["container=rkt".to_owned(), format!("container_uuid={}", spec.uuid), format!("PATH={}", layout::POD_PATH)];
    let env = env.iter().map(|e| dir::c_string(e.as_bytes())).collect::<Result<Vec<_>>>()?;
    signal::exec_with_defaults(&path, &argv, &env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_ranges() {
        assert_eq!("1000:65536".parse::<UidRange>().unwrap(), UidRange { first: 1000, count: 65536 });
        for bad in ["", "1", "1:", ":1", "1:0", "-1:5", "4294967295:2", "1:2:3", "a:b"] {
            assert!(bad.parse::<UidRange>().is_err(), "{bad}");
        }
    }
}
