//! Running a stage1's entrypoints as docs/contract.md requires.
//!
//! Nothing here enters a pod; the entrypoints do that. podctl executes them from the tree store, not from the pod's own
//! mount of the same tree, which the pod could have written to.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rustix::fs::MemfdFlags;
use stage1::appc::{self, ImageManifest};
use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::sys::mount::{Attributes, DetachedMount, Scope};
use stage1::sys::spawn::{self, Program};
use stage1::sys::{dir, process};

use crate::image::tree as trees;
use crate::store::Store;

/// How long an entrypoint may run, on top of the time that its own flags tell it to wait; then podctl kills it.
const DEADLINE: Duration = Duration::from_secs(300);
/// How much of the end of an entrypoint's output podctl reads, in bytes.
const OUTPUT_BYTES: u64 = 64 << 10;

/// The programs of a stage1 image that podctl runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrypoint {
    /// Becomes the pod's monitor.
    Run,
    /// Runs a command in a pod or an app.
    Enter,
    /// Removes what an ended pod left on the host: its cgroups and networks.
    Gc,
    /// Ends a pod.
    Stop,
    /// Prepares an app so that it can be started.
    AppAdd,
    /// Starts an app.
    AppStart,
    /// Stops an app.
    AppStop,
    /// Undoes `AppAdd`.
    AppRm,
    /// Connects to an app's streams.
    Attach,
}

impl Entrypoint {
    /// The entrypoints that every stage1 must have.
    pub const ALL: [Self; 8] =
        [Self::Run, Self::Enter, Self::Gc, Self::Stop, Self::AppAdd, Self::AppStart, Self::AppStop, Self::AppRm];

    /// Its path in the stage1 image with this manifest.
    ///
    /// # Errors
    /// The manifest does not name it.
    pub fn named_by(self, stage1: &ImageManifest) -> Result<&str> {
        appc::find(&stage1.annotations, self.annotation())
            .context(|| format!("the stage1 image has no {} entrypoint", self.name()))
    }

    /// The annotation of the stage1 image's manifest that holds its path.
    fn annotation(self) -> &'static str {
        match self {
            Self::Run => "coreos.com/rkt/stage1/run",
            Self::Enter => "coreos.com/rkt/stage1/enter",
            Self::Gc => "coreos.com/rkt/stage1/gc",
            Self::Stop => "coreos.com/rkt/stage1/stop",
            Self::AppAdd => "coreos.com/rkt/stage1/app/add",
            Self::AppStart => "coreos.com/rkt/stage1/app/start",
            Self::AppStop => "coreos.com/rkt/stage1/app/stop",
            Self::AppRm => "coreos.com/rkt/stage1/app/rm",
            Self::Attach => "coreos.com/rkt/stage1/attach",
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Enter => "enter",
            Self::Gc => "gc",
            Self::Stop => "stop",
            Self::AppAdd => "app-add",
            Self::AppStart => "app-start",
            Self::AppStop => "app-stop",
            Self::AppRm => "app-rm",
            Self::Attach => "attach",
        }
    }
}

/// The stage1 of one pod, as the host executes it.
#[derive(Debug)]
pub struct Stage1 {
    pod: PathBuf,
    rootfs: PathBuf,
    manifest: ImageManifest,
}

impl Stage1 {
    /// The stage1 of the pod in the directory `pod`.
    ///
    /// # Errors
    /// The pod's stage1 manifest or tree id can't be read or is invalid, or its tree is not in the store.
    pub fn of(store: &Store, pod: &Path) -> Result<Self> {
        let path = pod.join(layout::STAGE1_MANIFEST);
        let json = std::fs::read(&path).context(|| format!("read {path:?}"))?;
        let manifest = ImageManifest::parse(&json).context(|| format!("{path:?}"))?;
        Ok(Self { pod: pod.to_owned(), rootfs: executable_rootfs(store, pod)?, manifest })
    }

    /// Whether it is this project's stage1, which understands flags beyond the contract.
    pub fn is_ours(&self) -> bool {
        self.manifest.name.as_ref() == "coreos.com/rkt/stage1-crossing"
    }

    /// The path of an entrypoint on the host.
    ///
    /// # Errors
    /// The manifest does not name it, or names a path that is not a file inside the image.
    pub fn path(&self, entrypoint: Entrypoint) -> Result<PathBuf> {
        let named = entrypoint.named_by(&self.manifest)?;
        let shown = || format!("the {} entrypoint {named:?} of the pod's stage1", entrypoint.name());
        let mut path = self.rootfs.clone();
        for component in Path::new(named).components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::RootDir | Component::CurDir => {}
                _ => return Err(Error::new(format!("{} leaves the image", shown()))),
            }
        }
        let real = path.canonicalize().context(shown)?;
        if !real.starts_with(&self.rootfs) || !real.is_file() {
            return Err(Error::new(format!("{} is not a file in the image", shown())));
        }
        Ok(path)
    }

    /// Runs an entrypoint with podctl's own environment and waits until it ends, at most 300 s.
    ///
    /// # Errors
    /// It can't be run, timed out and was killed, or failed; the message has the line in which it says why.
    pub fn run(&self, entrypoint: Entrypoint, args: &[OsString]) -> Result<()> {
        self.run_for(entrypoint, args, DEADLINE)
    }

    /// [`Self::run`] with another time limit.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_for(&self, entrypoint: Entrypoint, args: &[OsString], limit: Duration) -> Result<()> {
        self.finish(entrypoint, args, &own_environment()?, limit, None)?.success()
    }

    /// Runs an entrypoint as [`Self::run_for`] does, and returns what it printed, whatever its exit status is.
    ///
    /// # Errors
    /// It can't be run, or timed out and was killed.
    pub fn ask(&self, entrypoint: Entrypoint, args: &[OsString], limit: Duration) -> Result<String> {
        self.finish(entrypoint, args, &own_environment()?, limit, None).map(|outcome| outcome.output)
    }

    /// Replaces this process with an entrypoint, with podctl's own environment and `more`.
    ///
    /// # Errors
    /// The entrypoint can't be executed, or an argument holds a NUL byte.
    pub fn exec(&self, entrypoint: Entrypoint, args: &[OsString], more: &[(&str, &str)]) -> Result<Infallible> {
        let path = self.path(entrypoint)?;
        let mut argv = vec![c_string(path.as_os_str())?];
        for arg in args {
            argv.push(c_string(arg)?);
        }
        let is_replaced = |name: &OsStr| more.iter().any(|(other, _)| name == *other);
        let mut environment = Vec::new();
        for (name, value) in std::env::vars_os().filter(|(name, _)| !is_replaced(name)) {
            environment.push(c_string(&joined(&name, &value))?);
        }
        for (name, value) in more {
            environment.push(c_string(&joined(OsStr::new(name), OsStr::new(value)))?);
        }
        std::env::set_current_dir(&self.pod).context(|| format!("chdir({:?})", self.pod))?;
        stage1::sys::signal::exec_with_defaults(&argv[0], &argv, &environment)
    }

    /// An entrypoint as a command to spawn, with podctl's own environment and `more`.
    ///
    /// # Errors
    /// As [`Self::path`].
    pub fn command(&self, entrypoint: Entrypoint, args: &[OsString], more: &[(&str, &str)]) -> Result<Command> {
        let mut command = Command::new(self.path(entrypoint)?);
        command.args(args).envs(more.iter().copied()).current_dir(&self.pod);
        Ok(command)
    }

    /// A crossing entrypoint as a command to spawn, in exactly the environment that the contract requires. `pid` is the
    /// pod's PID 1 (host view).
    ///
    /// # Errors
    /// As [`Self::path`].
    pub fn crossing(&self, entrypoint: Entrypoint, pid: i32, args: &[String]) -> Result<Command> {
        let mut command = Command::new(self.path(entrypoint)?);
        command.args(args).current_dir(&self.pod).env_clear().envs(self.crossing_variables(pid)?);
        Ok(command)
    }

    /// All variables of a crossing entrypoint.
    fn crossing_variables(&self, pid: i32) -> Result<[(&'static str, OsString); 3]> {
        Ok([
            ("RKT_STAGE1_ENTERCMD", self.path(Entrypoint::Enter)?.into()),
            ("RKT_STAGE1_ENTERPID", pid.to_string().into()),
            ("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into())),
        ])
    }

    /// The whole environment of a crossing entrypoint.
    fn crossing_environment(&self, pid: i32) -> Result<Vec<CString>> {
        let variables = self.crossing_variables(pid)?;
        variables.iter().map(|(name, value)| c_string(&joined(OsStr::new(name), value))).collect()
    }

    /// Replaces this process with a crossing entrypoint, in exactly the environment that the contract requires. `pid`
    /// is the pod's PID 1 (host view).
    ///
    /// # Errors
    /// The entrypoint can't be executed, or an argument holds a NUL byte.
    pub fn cross_for_good(&self, entrypoint: Entrypoint, pid: i32, args: &[String]) -> Result<Infallible> {
        let path = self.path(entrypoint)?;
        let mut argv = vec![c_string(path.as_os_str())?];
        for arg in args {
            argv.push(c_string(OsStr::new(arg))?);
        }
        let environment = self.crossing_environment(pid)?;
        std::env::set_current_dir(&self.pod).context(|| format!("chdir({:?})", self.pod))?;
        stage1::sys::signal::exec_with_defaults(&argv[0], &argv, &environment)
    }

    /// Runs a crossing entrypoint for an app, in exactly the environment that the contract requires, and waits until it
    /// ends: at most 300 s plus `wait`. `pid` is the pod's PID 1 (host view).
    ///
    /// The entrypoint inherits `lock`: if podctl is killed meanwhile, the lock stays held until the entrypoint ends.
    ///
    /// # Errors
    /// It can't be run, or timed out and was killed. How it ended is in the [`Outcome`].
    pub fn cross(
        &self,
        entrypoint: Entrypoint,
        pid: i32,
        args: &[String],
        wait: Option<Duration>,
        lock: Option<&File>,
    ) -> Result<Outcome> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        let environment = self.crossing_environment(pid)?;
        self.finish(entrypoint, &args, &environment, DEADLINE + wait.unwrap_or_default(), lock)
    }

    /// Runs an entrypoint to its end. Its output goes to a memfd, not a pipe: nothing then waits for a process that it
    /// left behind with the output still open.
    fn finish(
        &self,
        entrypoint: Entrypoint,
        args: &[OsString],
        environment: &[CString],
        limit: Duration,
        lock: Option<&File>,
    ) -> Result<Outcome> {
        let path = self.path(entrypoint)?;
        log::debug!("run {path:?} {args:?}");
        let directory = self.is_ours().then(|| read_only_directory(&path)).transpose()?;
        let file = match &directory {
            Some((directory, name)) => {
                Path::new("/proc/self/fd").join(directory.as_fd().as_raw_fd().to_string()).join(name)
            }
            None => path.clone(),
        };
        let words = [path.as_os_str()].into_iter().chain(args.iter().map(OsString::as_os_str));
        let memory = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC).context(|| "memfd_create")?;
        let mut output = File::from(memory);
        let null = File::open("/dev/null").context(|| "open(\"/dev/null\")")?;
        let child = spawn::start(&Program {
            path: &c_string(file.as_os_str())?,
            arguments: &words.map(c_string).collect::<Result<Vec<_>>>()?,
            environment,
            directory: &c_string(self.pod.as_os_str())?,
            standard: [null.as_fd(), output.as_fd(), output.as_fd()],
            descriptor: lock.map(AsFd::as_fd),
        });
        let child = child.context(|| format!("{path:?}"))?;
        drop(directory);
        let ended_in_time = wait_or_kill(child, limit);
        let status = process::wait_child(child)?;
        let output = read_end(&mut output)?;
        for line in output.lines() {
            // pass on its warnings (a limit that the host can't enforce, for example); the rest is for debugging. If it
            // fails, its error says enough; but a warning of gc may be about a network that it has left, and comes once
            let warning = line.strip_prefix(entrypoint.name()).and_then(|rest| rest.strip_prefix(": warn: "));
            match warning {
                Some(warning) if entrypoint == Entrypoint::Gc || matches!(status, WaitStatus::Exited(_, 0)) => {
                    log::warn!("{}: {warning}", entrypoint.name());
                }
                _ => log::debug!("{line}"),
            }
        }
        ended_in_time.context(|| entrypoint.name())?;
        Ok(Outcome { entrypoint, status, output })
    }
}

/// podctl's own environment.
fn own_environment() -> Result<Vec<CString>> {
    std::env::vars_os().map(|(name, value)| c_string(&joined(&name, &value))).collect()
}

/// The rendered tree that the pod's stage1 was made from: in podctl's store, or in that of another host manager. For a
/// pod without overlays whose tree is in neither, the pod's own copy.
fn executable_rootfs(store: &Store, pod: &Path) -> Result<PathBuf> {
    let path = pod.join(layout::STAGE1_TREE);
    let tree = std::fs::read_to_string(&path).context(|| format!("read {path:?}"))?;
    let tree = tree.trim();
    if tree.is_empty() || tree.contains('/') || tree.starts_with('.') {
        return Err(Error::new(format!("{path:?} holds {tree:?}, which is not a tree id")));
    }
    let overlay = pod.join(layout::OVERLAY_PREPARED).exists();
    let in_stores = [trees::rootfs(store, tree), store.dir().join("cas/tree").join(tree).join("rootfs")];
    match in_stores.into_iter().find(|rootfs| rootfs.is_dir()) {
        Some(rootfs) => Ok(rootfs),
        None if !overlay => Ok(pod.join(layout::STAGE1_ROOTFS)),
        None => Err(Error::new(format!("the pod's stage1 tree {tree} is not in the store {:?}", store.dir()))),
    }
}

/// How an entrypoint ended, and what it printed.
#[derive(Debug)]
pub struct Outcome {
    entrypoint: Entrypoint,
    status: WaitStatus,
    output: String,
}

impl Outcome {
    /// Its exit code; `None` if a signal killed it.
    pub fn code(&self) -> Option<i32> {
        match self.status {
            WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        }
    }

    /// Fails unless it exited with 0.
    ///
    /// # Errors
    /// It exited with another code, or a signal killed it; the message has the line in which it says why.
    pub fn success(&self) -> Result<()> {
        let ended = match self.status {
            WaitStatus::Exited(_, 0) => return Ok(()),
            WaitStatus::Exited(_, code) => format!("ended with {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("was killed by signal {}", signal as i32),
            other => format!("ended with {other:?}"),
        };
        let name = self.entrypoint.name();
        match cause(name, &self.output) {
            Some(line) => Err(Error::new(format!("{name}: {line} ({ended})"))),
            None => Err(Error::new(format!("{name} {ended} without a message"))),
        }
    }
}

/// Why an entrypoint failed: the last line of its output that begins with its name and is not a log message (a usage
/// text may follow it); if there is none, the last line that is not empty.
fn cause<'a>(name: &str, output: &'a str) -> Option<&'a str> {
    let of_log = |line: &str| ["debug: ", "info: ", "warn: "].iter().any(|level| line.starts_with(level));
    let own = |line: &'a str| line.strip_prefix(name)?.strip_prefix(": ").filter(|line| !of_log(line));
    let mut lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.clone().filter_map(own).next_back().or_else(|| lines.next_back())
}

/// The directory of an entrypoint, in a read-only clone of the mount that it is on, and the entrypoint's name. One that
/// was executed from a writable mount executes itself again from such a clone, which takes longer: no process of a pod may
/// open its file for writing.
fn read_only_directory(path: &Path) -> Result<(DetachedMount, &OsStr)> {
    let (directory, name) = dir::split(path)?;
    let directory = DetachedMount::clone_path(directory, Scope::One)?;
    directory.set(Attributes { read_only: true, ..Attributes::default() }, Scope::One)?;
    Ok((directory, name))
}

fn wait_or_kill(child: Pid, limit: Duration) -> Result<()> {
    let pidfd = process::pidfd_open(child.as_raw())?;
    if process::pidfd_wait_end(pidfd.as_fd(), limit)? {
        return Ok(());
    }
    process::pidfd_kill(pidfd, rustix::process::Signal::KILL)?;
    Err(Error::new(format!("timed out after {} s and was killed", limit.as_secs())))
}

fn read_end(output: &mut File) -> Result<String> {
    let size = output.metadata().context(|| "stat output")?.len();
    output.seek(SeekFrom::Start(size.saturating_sub(OUTPUT_BYTES))).context(|| "seek in output")?;
    let mut bytes = Vec::new();
    output.take(OUTPUT_BYTES).read_to_end(&mut bytes).context(|| "read output")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn joined(name: &OsStr, value: &OsStr) -> OsString {
    let mut joined = name.to_owned();
    joined.push("=");
    joined.push(value);
    joined
}

fn c_string(text: &OsStr) -> Result<CString> {
    CString::new(text.as_bytes()).context(|| format!("{text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_failure_is_the_entrypoints_last_own_message() {
        let usage = "stop: no such flag\nUsage: stop [--force]\n\n  --help   tells more\n";
        assert_eq!(cause("stop", usage), Some("no such flag"));
        assert_eq!(cause("stop", "stop: first\nstop: second\nstop: debug: going\n"), Some("second"));
        assert_eq!(cause("stop", "systemctl: one\n\n  two \n\n"), Some("two"));
        assert_eq!(cause("stop", " \n"), None);
    }
}
