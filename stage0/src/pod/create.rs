//! Making a pod without apps and running it: the phases embryo, prepare, prepared and run, then the pod's own process.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use rustix::io::FdFlags;
use stage1::appc::{self, NameValue, PodManifest};
use stage1::cli::FAILURE_CODE;
use stage1::error::{Context, Error, Result, exit};
use stage1::layout;
use stage1::net::{JOIN, LEAVE};
use stage1::sys::process::{self, Fork};
use stage1::sys::signal;
use stage1::sys::spawn::{self, Heritage};
use uuid::Uuid;

use crate::entrypoint::spawn::{Entrypoint, Stage1};
use crate::fsutil::atomic::write;
use crate::fsutil::dir::make_dir;
use crate::fsutil::{inotify, space};
use crate::image::store::Image;
use crate::image::tree as trees;
use crate::pod::settings::Launch;
use crate::pod::{gc, ports};
use crate::poddir::find as pods;
use crate::poddir::manifest;
use crate::poddir::phase::{HeldPod, Phase};
use crate::poddir::uid_range;
use crate::poddir::uid_range::PrivateUsers;
use crate::rootfs::{Roots, overlay};
use crate::store::Store;

/// Timeout for a pod to become ready. A pod that can't join a network may take [`JOIN`] to find out, and [`LEAVE`] to
/// leave those that it has joined.
pub(super) const BOOT: Duration = JOIN.saturating_add(LEAVE).saturating_add(Duration::from_secs(20));
/// How often `start` checks whether the supervisor is ready.
const BOOT_POLL: Duration = Duration::from_millis(4);
/// How often the background process that removes a failed pod checks it.
const GLANCE: Duration = Duration::from_millis(50);
/// How many bytes of the pod's console are read for the error if the pod does not come up; a network plugin's error
/// fits.
const CONSOLE_BYTES: u64 = 64 << 10;

/// Directories of the pod's root that the host writes to. podctl touches them before the pod runs, which copies them up
/// to the overlay's upper directory: other host managers read the first one there.
const HOST_WRITES: [&str; 3] = ["rkt/status", "rkt/env", "opt/stage2"];

/// Makes a pod's manifest mutable: apps can be added to the pod while it runs.
pub fn mutable(mut manifest: PodManifest) -> PodManifest {
    manifest.annotations.push(NameValue::new(appc::MUTABLE, "true"));
    manifest
}

/// Options for making a pod's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Making {
    /// Copies the images instead of mounting overlays.
    pub no_overlay: bool,
    /// A user namespace of its own; the host's if `None`.
    pub private_users: Option<PrivateUsers>,
}

/// Makes a pod and fills its directory; calls `more` with the directory at the end. The pod is prepared then, and held.
///
/// # Errors
/// The image's tree can't be made, a file can't be written, no user ids are free, or `more` fails. The pod is removed
/// then.
pub fn prepare(
    store: &Store,
    stage1: &Image,
    manifest: &PodManifest,
    making: Making,
    more: impl FnOnce(&Path) -> Result<()>,
) -> Result<HeldPod> {
    let mut pod = HeldPod::create(store)?;
    let filled = fill(store, &pod, stage1, manifest, making).and_then(|()| more(pod.dir()));
    match filled.and_then(|()| pod.move_to(store, Phase::Prepared)) {
        Ok(()) => Ok(pod),
        Err(error) => Err(given_up(store, pod, error)),
    }
}

fn fill(store: &Store, pod: &HeldPod, stage1: &Image, manifest: &PodManifest, making: Making) -> Result<()> {
    let dir = pod.dir();
    let tree = trees::ensure(store, &stage1.id)?;
    make_dir(&dir.join("appsinfo"), 0o750)?;
    make_dir(&dir.join("stage1"), 0o750)?;
    write(&dir.join(layout::STAGE1_MANIFEST), &stage1.manifest, 0o640)?;
    write(&dir.join(layout::STAGE1_TREE), tree.id().as_bytes(), 0o640)?;
    write(&dir.join(layout::LOCK), b"", 0o600)?;
    write(&dir.join(layout::MANIFEST), &serde_json::to_vec(manifest).context(|| "write the pod manifest")?, 0o640)?;
    write(&dir.join(layout::CREATED), b"", 0o640)?;
    if let Some(users) = making.private_users {
        uid_range::give(store, dir, pod.uuid(), users)?;
    }
    link_flavor(&trees::rootfs(store, tree.id()), dir)?;
    // the pod's record of the tree keeps it from being removed; making the root below may render it anew, under its
    // lock
    drop(tree);
    if making.no_overlay {
        return make_root(store, dir);
    }
    write(&dir.join(layout::OVERLAY_PREPARED), b"", 0o640)
}

/// Copies the link `flavor` of the stage1's root, which names the stage1's flavor, to the pod's directory.
fn link_flavor(rootfs: &Path, dir: &Path) -> Result<()> {
    let from = rootfs.join("flavor");
    match std::fs::read_link(&from) {
        Ok(flavor) => {
            let to = dir.join(layout::FLAVOR);
            std::os::unix::fs::symlink(flavor, &to).context(|| format!("symlink {to:?}"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::caused_by(format!("read link {from:?}"), error)),
    }
}

/// Moves a prepared pod to phase run and mounts its stage1's root, in this (the host's) mount namespace. A pod without
/// overlays has a copied root already.
///
/// # Errors
/// A port of the host that the pod publishes is taken, or the mount fails. The pod is removed then.
pub fn mount(store: &Store, mut pod: HeldPod) -> Result<HeldPod> {
    let mount = |dir: &Path| if Roots::of(dir)?.are_overlays() { make_root(store, dir) } else { Ok(()) };
    match move_to_run(store, &mut pod).and_then(|()| mount(pod.dir())) {
        Ok(()) => Ok(pod),
        Err(error) => Err(given_up(store, pod, error)),
    }
}

/// Moves the pod to phase run under the lock of ports: of two pods that publish the same port, one fails.
fn move_to_run(store: &Store, pod: &mut HeldPod) -> Result<()> {
    let manifest = manifest::read(pod.dir())?;
    let _lock = ports::lock(store, &manifest)?;
    pod.move_to(store, Phase::Run)?;
    ports::must_be_free(store, Some(pod.uuid()), &manifest)
}

/// Mounts the stage1's root of a pod with overlays that has run before, with the upper directory of that run.
///
/// # Errors
/// The tree can't be made, or the mount fails.
pub(super) fn mount_again(store: &Store, dir: &Path) -> Result<()> {
    let tree = stage1_tree(dir)?;
    overlay::forget_mapped(&dir.join(layout::overlay_work(&tree, None)))?;
    Roots::of(dir)?.make(store, &tree, None)
}

fn stage1_tree(dir: &Path) -> Result<String> {
    let path = dir.join(layout::STAGE1_TREE);
    Ok(std::fs::read_to_string(&path).context(|| format!("read {path:?}"))?.trim().to_owned())
}

fn make_root(store: &Store, dir: &Path) -> Result<()> {
    let tree = stage1_tree(dir)?;
    let rootfs = dir.join(layout::STAGE1_ROOTFS);
    Roots::of(dir)?.make_first(store, &tree)?;
    for name in HOST_WRITES {
        let path = rootfs.join(name);
        let dir = File::open(&path).context(|| format!("the stage1 image has no /{name}"))?;
        dir.set_modified(SystemTime::now()).context(|| format!("touch {path:?}"))?;
    }
    Ok(())
}

/// Removes a pod that could not be made or run. Returns `error`, with that of the removal if it fails too.
pub(crate) fn given_up(store: &Store, pod: HeldPod, error: Error) -> Error {
    match gc::discard(store, pod, false) {
        Ok(()) => error,
        Err(also) => Error::new(format!("{}; removing the pod failed, too: {}", error.one_line(), also.one_line())),
    }
}

/// Executes the run entrypoint in place of this process. A background process removes the pod if it does not come up.
///
/// # Errors
/// The background process or the run entrypoint can't be started. The pod is removed then.
pub fn become_pod(store: &Store, pod: HeldPod, launch: &Launch) -> Result<Infallible> {
    let error = match remove_unless_up(store, &pod, launch.debug).and_then(|()| exec_run(store, &pod, launch)) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    Err(given_up(store, pod, error))
}

/// Starts a background process that removes the pod if this process ends before the pod has come up. It is forked
/// twice: the run entrypoint does not have it as a child.
fn remove_unless_up(store: &Store, pod: &HeldPod, debug: bool) -> Result<()> {
    let run = process::pidfd_open(std::process::id().cast_signed())?;
    match process::fork()? {
        Fork::Parent(child) => process::wait_child(child).map(drop),
        Fork::Child => {
            if let Ok(Fork::Child) = process::fork()
                && let Err(error) = remove_if_it_fails(store, pod.uuid(), &run, debug)
            {
                eprintln!("podctl: pod {}: {}", pod.uuid(), error.one_line());
            }
            process::exit_now(0)
        }
    }
}

/// Waits until a pod is ready; removes the pod if the process `run` ends before.
fn remove_if_it_fails(store: &Store, uuid: Uuid, run: &OwnedFd, debug: bool) -> Result<()> {
    // signals from the terminal are for the pod only, and only the pod may hold its lock
    rustix::process::setsid().context(|| "setsid")?;
    process::close_all_but(&[run.as_fd()])?;
    loop {
        let ended = process::pidfd_wait_end(run, GLANCE)?;
        // another process may have removed it
        let Ok(pod) = pods::find_whole(store, uuid) else { return Ok(()) };
        if stage1::pod::is_ready(pod.dir())? {
            return Ok(());
        }
        if ended {
            return HeldPod::take(&pod)?.map_or(Ok(()), |held| gc::discard(store, held, debug));
        }
    }
}

/// Executes the run entrypoint in the background and waits up to two minutes until the pod is ready for apps. The
/// entrypoint's process is a child of this process: reap it if this process goes on.
///
/// # Errors
/// The pod does not come up, or not in time: the error has the last lines of its output, and the pod is removed. Or a
/// signal asked this process to end.
pub fn start(store: &Store, pod: HeldPod, launch: &Launch) -> Result<(Uuid, Child)> {
    match boot(store, &pod, launch) {
        Ok(run) => Ok((pod.uuid(), run)),
        Err(error) => Err(given_up(store, pod, error)),
    }
}

/// [`start`], but does not remove the pod if it does not come up.
pub(super) fn boot(store: &Store, pod: &HeldPod, launch: &Launch) -> Result<Child> {
    let before = signal::mask()?;
    let signals = signal::block(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
    let run = start_process(store, pod, launch)?;
    let run = wait_until_ready(pod.dir(), run, &signals)?;
    // this process may go on for long: it adds apps to the pod, and waits for them
    signal::set_mask(&before)?;
    Ok(run)
}

/// Starts the run entrypoint in a session of its own, with stdin from /dev/null and its output in the pod's console
/// file.
fn start_process(store: &Store, pod: &HeldPod, launch: &Launch) -> Result<Child> {
    let path = pod.dir().join(layout::CONSOLE);
    let console =
        File::options().create(true).append(true).mode(0o640).open(&path).context(|| format!("create {path:?}"))?;
    let output = || console.try_clone().map(Stdio::from).context(|| "dup");
    let Run { stage1, arguments, environment } = Run::new(store, pod, launch)?;
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut command = stage1.command(Entrypoint::Run, &arguments, &environment)?;
    command.stdin(Stdio::null()).stdout(output()?).stderr(output()?);
    let heritage = Heritage { descriptor: Some(pod.lock().as_fd()), session: true, signals: true };
    spawn::spawn(command, heritage)
}

/// How the run entrypoint is executed.
struct Run {
    stage1: Stage1,
    arguments: Vec<OsString>,
    environment: [(&'static str, String); 4],
}

impl Run {
    /// Writes the pod's settings, host name and name files, which the entrypoint reads.
    fn new(store: &Store, pod: &HeldPod, launch: &Launch) -> Result<Self> {
        let stage1 = Stage1::of(store, pod.dir())?;
        let hostname = launch.settings.hostname_of(pod.uuid());
        // for "podctl start"
        launch.settings.save(pod.dir())?;
        launch.settings.names.put_in_place(pod.dir(), &hostname)?;
        let lock = pod.lock().as_fd().as_raw_fd().to_string();
        let arguments = launch.arguments(pod.uuid(), uid_range::of_pod(pod.dir())?);
        let none = String::new;
        let environment = [
            ("RKT_LOCK_FD", lock),
            ("RKT_SELINUX_CONTEXT", none()),
            ("RKT_SELINUX_MOUNT_CONTEXT", none()),
            (FAILURE_CODE, exit::COMMAND.to_string()),
        ];
        Ok(Self { stage1, arguments, environment })
    }
}

/// Executes the run entrypoint in place of this process; it inherits the pod's lock.
pub(crate) fn exec_run(store: &Store, pod: &HeldPod, launch: &Launch) -> Result<Infallible> {
    let Run { stage1, arguments, environment } = Run::new(store, pod, launch)?;
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    rustix::io::fcntl_setfd(pod.lock(), FdFlags::empty()).context(|| "let run inherit the lock")?;
    stage1.exec(Entrypoint::Run, &arguments, &environment)
}

/// Waits until the pod is ready for apps. If that fails, kills the process of the run entrypoint and reaps it.
fn wait_until_ready(dir: &Path, mut run: Child, signals: &SignalFd) -> Result<Child> {
    let waited = i32::try_from(run.id())
        .context(|| "pid")
        .and_then(process::pidfd_open)
        .and_then(|pidfd| watch_boot(dir, &pidfd, signals));
    match waited {
        Ok(()) => Ok(run),
        Err(error) => {
            // the pod ends with its monitor; if that has ended, this only reaps it
            run.kill().context(|| "kill the pod's process")?;
            run.wait().context(|| "wait for the pod's process")?;
            Err(error)
        }
    }
}

fn watch_boot(dir: &Path, run: &OwnedFd, signals: &SignalFd) -> Result<()> {
    let deadline = Instant::now() + BOOT;
    loop {
        // the supervisor can be ready before the monitor has written its PID
        if stage1::pod::is_ready(dir)? && stage1::pod::read_pid(dir)?.is_some() {
            return Ok(());
        }
        if signal::is_asked_to_end(signals)? {
            return Err(Error::new("interrupted before the pod was ready"));
        }
        if process::pidfd_wait_end(run, BOOT_POLL)? {
            return Err(Error::new(format!("the pod did not come up: {}", end_of_console(dir)?)));
        }
        if Instant::now() >= deadline {
            let waited = BOOT.as_secs();
            return Err(Error::new(format!("the pod was not ready after {waited} s: {}", end_of_console(dir)?)));
        }
    }
}

/// The last five lines of the pod's console, joined to one line.
fn end_of_console(dir: &Path) -> Result<String> {
    let path: PathBuf = dir.join(layout::CONSOLE);
    let shown = || format!("read {path:?}");
    let mut file = File::open(&path).context(shown)?;
    let size = file.metadata().context(shown)?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(CONSOLE_BYTES))).context(shown)?;
    let mut bytes = Vec::new();
    file.take(CONSOLE_BYTES).read_to_end(&mut bytes).context(shown)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(5)..].join(" | ");
    let said = if last.is_empty() { "its process ended without a message".into() } else { last };
    let cause = space::shortage_at(dir).or_else(|| inotify::shortage(&said));
    Ok(cause.map_or_else(|| said.clone(), |why| format!("{why}; {said}")))
}
