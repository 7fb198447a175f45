//! Running an ended pod again, with its UUID, its apps and the files they wrote, its volumes, networks and ports: after
//! an orderly end, after it was killed, or after a reboot.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::pod::{RuntimeConfig, remove_if_there};
use stage1::sys::dir;

use crate::app::{interrupted, run_again};
use crate::fsutil::{lock, remove};
use crate::pod::create::BOOT;
use crate::pod::ending::Run;
use crate::pod::settings::{Ipc, Launch, Settings};
use crate::pod::{create, ending, gc, ports};
use crate::poddir::find::{self as pods, Pod, State};
use crate::poddir::manifest;
use crate::poddir::phase::HeldPod;
use crate::rootfs::{Roots, overlay};
use crate::store::Store;

/// The file in the pod's directory whose lock the podctl that starts the pod holds.
const LOCK: &str = "start.lock";
/// The time between two looks at a pod that another process starts.
const POLL: Duration = Duration::from_millis(20);

/// Starts an ended pod in the background and waits until it is ready; in a mutable pod, then starts the apps that ran.
/// Waits first for the end of a pod that is ending. In a pod that runs, only finishes interrupted starts and
/// replacements of apps; if another process stops the pod meanwhile, runs it again.
///
/// # Errors
/// The pod was never run or is marked for removal, a port is taken, or the pod does not come up: it stays ended then.
/// Or an app can't be started; all others are. Or a pod that is ending does not end in time, or is removed then.
pub fn start(store: &Store, pod: &Pod, debug: bool) -> Result<()> {
    // the second of two starts finds the pod as the first has left it, with its apps
    let path = pod.dir().join(LOCK);
    let one_at_a_time = lock::open_file(&path)?;
    lock::wait(&one_at_a_time, &path, lock::Kind::Exclusive, lock::ENTRYPOINTS)?;
    loop {
        let is_new = bring_up(store, pod, debug)?;
        let pod = pods::find_whole(store, pod.uuid())?;
        match pod.state() {
            State::Running => {}
            // an immutable pod whose apps have ended already
            State::Exited if is_new => return Ok(()),
            State::Exited => continue,
            State::Prepared => return Err(Error::new("it is prepared: \"podctl run-prepared\" runs it")),
            State::ExitedGarbage => return Err(Error::new("it was marked for removal: make a new one")),
            other => return Err(Error::new(format!("it is {}", other.word()))),
        }
        let run = Run::of(&pod)?;
        match go_on(store, &pod, debug) {
            // another process has stopped the run that was found
            Err(error) if !is_new && is_over(store, &pod, run).unwrap_or(false) => log::debug!("{}", error.one_line()),
            done => return done,
        }
    }
}

/// Waits until a pod that runs is ready, and in a mutable pod goes on with its apps.
fn go_on(store: &Store, pod: &Pod, debug: bool) -> Result<()> {
    await_ready(store, pod)?;
    if !manifest::read(pod.dir())?.is_mutable()? {
        return Ok(());
    }
    run_again::go_on(store, pod, debug)?;
    interrupted::finish(store, pod, debug)
}

/// Runs a pod again if it has ended, after waiting for its end if it is ending. Returns whether it was run again.
fn bring_up(store: &Store, pod: &Pod, debug: bool) -> Result<bool> {
    let deadline = Instant::now() + BOOT;
    loop {
        let mut pod = pods::find_whole(store, pod.uuid())?;
        if let Some(run) = ending::of(store, &pod)? {
            ending::wait(store, &pod, run)?;
            pod = pods::find_whole(store, pod.uuid())?;
        }
        if pod.state() != State::Exited {
            return Ok(false);
        }
        if run_again(store, &pod, debug)? {
            return Ok(true);
        }
        // another process has just begun to start it
        if Instant::now() >= deadline {
            return Err(Error::new("another process is at work on it"));
        }
        std::thread::sleep(POLL);
    }
}

/// Whether a run of a pod has ended or is ending; `None` is one that had no PID yet.
fn is_over(store: &Store, pod: &Pod, run: Option<Run>) -> Result<bool> {
    let goes_on = run.map_or_else(|| pods::is_running(store, pod), |run| run.goes_on(store, pod))?;
    Ok(!goes_on || ending::of(store, pod)?.is_some())
}

/// Waits until a pod that another process is starting has come up.
///
/// # Errors
/// It is not ready within two minutes, or ends before; or its directory can't be read.
pub(crate) fn await_ready(store: &Store, pod: &Pod) -> Result<()> {
    let until = Instant::now() + BOOT;
    while !stage1::pod::is_ready(pod.dir())? || stage1::pod::read_pid(pod.dir())?.is_none() {
        if !pods::is_running(store, pod)? {
            return Err(Error::new("it ended before it was ready"));
        }
        if Instant::now() >= until {
            return Err(Error::new(format!("it has not become ready in {} s", BOOT.as_secs())));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Runs a pod that has ended again; `false` if another process is at work on it.
fn run_again(store: &Store, pod: &Pod, debug: bool) -> Result<bool> {
    let wanted = manifest::read(pod.dir())?;
    // dropped once the pod is held, which makes it a running pod for other processes' checks of ports
    let ports = ports::lock(store, &wanted)?;
    let Some(held) = HeldPod::take(pod)? else { return Ok(false) };
    let settings = settings(&held)?;
    if settings.interactive {
        return Err(Error::new(
            "its app had the terminal of \"podctl run --interactive\", and only has that of a new run",
        ));
    }
    run_again::undo_interrupted(pod)?;
    let manifest = manifest::read(pod.dir())?;
    ports::must_be_free(store, Some(pod.uuid()), &manifest)?;
    drop(ports);
    let mutable = manifest.is_mutable()?;
    if mutable {
        run_again::note_wanted(pod, &manifest)?;
    }
    // remove the last run's remains on the host and in the pod's directory
    gc::leave_host(store, &held, debug)?;
    let dir = held.dir();
    overlay::unmount_below(dir)?;
    for name in [layout::PID, layout::PPID, layout::SUBCGROUP, layout::MONITOR_SOCKET] {
        remove_if_there(&dir.join(name))?;
    }
    if Roots::of(dir)?.are_overlays() {
        create::mount_again(store, dir)?;
    }
    forget_ready(dir)?;
    run_again::mount(store, pod, &manifest)?;
    if !mutable {
        run_again::forget_exits(pod, &manifest)?;
    }
    create::boot(store, &held, &Launch { settings, mutable, debug }).map(|_| true)
}

/// Removes the pod's ready mark of the last run.
fn forget_ready(pod: &Path) -> Result<()> {
    let root = dir::open_dir(pod.join(layout::STAGE1_ROOTFS))?;
    let rkt = dir::open_beneath(root, "rkt", OFlags::PATH | OFlags::DIRECTORY)?;
    let link = layout::supervisor_status();
    remove::file(&rkt, link.file_name().unwrap_or_default()).context(|| format!("remove {link:?}"))
}

/// The settings that the pod was run with. If an older podctl or another host manager made the pod, derives them from
/// the options that its run entrypoint recorded.
fn settings(pod: &HeldPod) -> Result<Settings> {
    if let Some(settings) = Settings::find(pod.dir())? {
        return Ok(settings);
    }
    let config = RuntimeConfig::load(pod.dir())?;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let modes = [("resolv", config.resolv_conf_mode), ("hosts", config.etc_hosts_mode)];
    let modes: Vec<String> =
        modes.into_iter().filter(|(_, mode)| !mode.is_empty()).map(|(name, mode)| format!("{name}={mode}")).collect();
    Ok(Settings {
        hostname: given(config.hostname),
        network: given(config.net_list.join(",")),
        ipc: match config.ipc_mode.as_str() {
            "parent" => Some(Ipc::Parent),
            "private" => Some(Ipc::Private),
            _ => None,
        },
        dns_conf_mode: given(modes.join(",")),
        interactive: config.interactive,
        insecure: config.insecure_options,
        ..Settings::default()
    })
}
