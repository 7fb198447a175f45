//! Removing pods, with their cgroups, networks and mounts on the host.

use std::ffi::OsString;
use std::time::{Duration, Instant, SystemTime};

use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::net::LEAVE;

use super::{ending, events};
use crate::entrypoint::spawn::{Entrypoint, Stage1};
use crate::fsutil::remove;
use crate::poddir::find as pods;
use crate::poddir::find::{PAUSE, Pod, State};
use crate::poddir::phase::{HeldPod, Phase};
use crate::rootfs::overlay;
use crate::store::Store;

/// The age from which an embryo is garbage: its maker may not have locked a younger one yet.
const EMBRYO: Duration = Duration::from_secs(10);

/// How long `rm` waits for the end of a monitor, and for another process that removes the pod. Both leave its networks.
const OTHERS: Duration = LEAVE.saturating_add(Duration::from_secs(60));

/// How long `rm` watches a locked pod in phase run without a process: if it stays so, it is starting; otherwise another
/// process was just marking it.
const STARTING: Duration = Duration::from_millis(500);

/// Removes one pod that does not run, without a grace period. Waits for other processes that mark or remove it, and for
/// its monitor, which leaves its networks.
///
/// # Errors
/// The pod runs or is being prepared, another process holds it for more than two minutes, or a part of it can't be
/// removed.
pub fn rm(store: &Store, pod: Pod, debug: bool) -> Result<()> {
    let mut deadline = Instant::now() + OTHERS;
    let mut pod = pod;
    loop {
        match pod.state() {
            State::Running if ending::only_monitor_is_left(&pod)? => {}
            // a pod that is starting has no process yet, and neither has one that another process is marking
            State::Running if pods::has_process(&pod)? || is_held_for(STARTING, store, &pod)? => {
                return Err(Error::new("it is running; \"podctl stop\" ends it"));
            }
            State::Preparing => return Err(Error::new("it is being prepared")),
            _ => {}
        }
        let taken = if pod.state() == State::Running { Ok(None) } else { HeldPod::take(&pod) };
        if let Ok(Some(held)) = taken {
            return discard(store, held, debug);
        }
        let Ok(now) = pods::find_whole(store, pod.uuid()) else { return Ok(()) };
        if now.phase() == pod.phase() {
            taken?;
        } else {
            deadline = Instant::now() + OTHERS;
        }
        if Instant::now() >= deadline {
            let holder = if now.state() == State::Running { "its monitor goes on" } else { "another process holds it" };
            return Err(Error::new(format!("timed out after {} s: {holder}", OTHERS.as_secs())));
        }
        std::thread::sleep(PAUSE);
        pod = now;
    }
}

/// Whether another process holds the pod, in phase run, for all of this time.
fn is_held_for(time: Duration, store: &Store, pod: &Pod) -> Result<bool> {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        if !pods::is_running(store, pod)? {
            return Ok(false);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(true)
}

/// Which pods [`all`] marks and removes.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The grace period: how long a pod that ran stays after it was marked.
    pub grace: Duration,
    /// The age from which a pod that is prepared and was never run is garbage.
    pub prepared: Duration,
    /// Marks pods and removes none.
    pub mark_only: bool,
}

/// Marks the pods that have ended, those whose preparation failed, and those that were prepared for too long. Removes
/// the marked ones: at once if they never ran, otherwise after the grace period.
///
/// # Errors
/// The pods can't be listed, or some can't be removed; all others are.
pub fn all(store: &Store, rules: Rules, debug: bool) -> Result<()> {
    let mut failed = Vec::new();
    for pod in pods::list(store)? {
        if let Err(error) = one(store, &pod, rules, debug) {
            failed.push(format!("pod {}: {}", pod.uuid(), error.one_line()));
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
}

fn one(store: &Store, pod: &Pod, rules: Rules, debug: bool) -> Result<()> {
    let (mark, after) = match pod.state() {
        State::Running | State::Preparing | State::Deleting => return Ok(()),
        State::Exited => (Some(Phase::ExitedGarbage), Duration::ZERO),
        State::PrepareFailed => (Some(Phase::Garbage), Duration::ZERO),
        // its maker is about to lock it
        State::Embryo => (Some(Phase::Garbage), EMBRYO),
        State::Prepared => (Some(Phase::Garbage), rules.prepared),
        State::ExitedGarbage | State::Garbage => (None, Duration::ZERO),
    };
    let mut held = match HeldPod::take(pod) {
        Ok(Some(held)) => held,
        // another process holds the pod, or has removed it
        Ok(None) => return Ok(()),
        Err(error) => {
            log::debug!("{}", error.one_line());
            return Ok(());
        }
    };
    if let Some(phase) = mark {
        if changed_ago(&held)? < after {
            return Ok(());
        }
        held.move_to(store, phase)?;
    }
    // a pod that was marked just now is removed only if the grace period is 0
    let kept = held.phase() == Phase::ExitedGarbage && changed_ago(&held)? < rules.grace;
    if rules.mark_only || kept { Ok(()) } else { discard(store, held, debug) }
}

/// The time since the pod's directory was moved or changed (ctime).
fn changed_ago(pod: &HeldPod) -> Result<Duration> {
    let stat = pod.lock().metadata().context(|| format!("stat {:?}", pod.dir()))?;
    Ok(SystemTime::now().duration_since(pods::changed(&stat)).unwrap_or_default())
}

/// Removes a pod that this process holds: its cgroups and networks, its mounts, its directory.
///
/// # Errors
/// Something can't be removed. The pod is marked for removal then; a later call goes on.
pub(crate) fn discard(store: &Store, mut pod: HeldPod, debug: bool) -> Result<()> {
    match pod.phase() {
        Phase::Run => pod.move_to(store, Phase::ExitedGarbage)?,
        Phase::Embryo | Phase::Prepare | Phase::Prepared => pod.move_to(store, Phase::Garbage)?,
        Phase::ExitedGarbage | Phase::Garbage => {}
    }
    if pod.phase() == Phase::ExitedGarbage && pod.dir().join(layout::STAGE1_MANIFEST).exists() {
        leave_host(store, &pod, debug)?;
        // without it, a later call after an interruption does not run the gc entrypoint again, which may be damaged by
        // then
        let manifest = pod.dir().join(layout::STAGE1_MANIFEST);
        std::fs::remove_file(&manifest).context(|| format!("remove {manifest:?}"))?;
    }
    if let Err(error) = events::keep(store, &pod) {
        log::warn!("pod {}: cannot keep its events: {}", pod.uuid(), error.one_line());
    }
    // before the overlays: unmounting one syncs the file system of its upper directory, which takes long with unwritten
    // logs
    remove::tree(&pod.dir().join(layout::LOGS))?;
    overlay::unmount_below(pod.dir())?;
    remove::tree(pod.dir())
}

/// Removes an ended pod's cgroups and networks, by the gc entrypoint of its stage1; by podctl itself if the stage1
/// can't be used.
///
/// # Errors
/// The entrypoint fails, or a cgroup or network can't be removed.
pub(crate) fn leave_host(store: &Store, pod: &HeldPod, debug: bool) -> Result<()> {
    let mut args: Vec<OsString> = Vec::new();
    if debug {
        args.push("--debug".into());
    }
    args.push(pod.uuid().to_string().into());
    let stage1 = Stage1::of(store, pod.dir()).and_then(|stage1| stage1.path(Entrypoint::Gc).map(|_| stage1));
    match stage1 {
        Ok(stage1) => stage1.run(Entrypoint::Gc, &args),
        // a power cut may have damaged files that were just written
        Err(error) => {
            log::warn!("pod {}: its cgroups are removed without its stage1: {}", pod.uuid(), error.one_line());
            let local_config = std::path::Path::new(stage1::net::LOCAL_CONFIG);
            stage1::shutdown::remove_remains_of(pod.dir(), &pod.uuid().to_string(), local_config)
        }
    }
}
