//! Starting, stopping and removing an app by way of the pod's systemd. Host side.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::await_others::AFTER_TIMEOUT;
use super::reaper_notes::StopNote;
use super::{deadline, exit_status, streams};
use crate::appc::AcName;
use crate::cgroup::PodCgroup;
use crate::cross::{Begun, Target};
use crate::error::{Context, Error, Result, exit};
use crate::launch::LaunchOutline;
use crate::pod::{ExitDetails, remove_if_there, sweep_temporaries};
use crate::sys::mount;
use crate::systemd::{self, ActiveState, Client, Job, JobResult, Refused, Verb};
use crate::{layout, rootfs, unit};

/// How long a verb waits beyond the time that systemd gives an app.
const MARGIN: Duration = Duration::from_secs(60);
const SIGKILL: i32 = 9;
/// How long a unit may still be deactivating after the app's exit status has been written.
const REAPER_EXIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);
/// Exit code of a verb that is refused because the app runs.
const RUNS: u8 = exit::FAILURE;

/// Starts an app and waits until it has started: its command is being executed, or it has said that it is ready.
/// For an app with sockets, systemd opens these; the app starts with the first connection. Does nothing if it runs.
///
/// # Errors
/// The app was not added, or could not be started; the message tells why.
pub fn start(target: &Target, app: &AcName) -> Result<()> {
    if !unit::exists(app)? {
        return Err(Error::new(format!("app {app} was not added to this pod: app-add does that")));
    }
    forget_stale_names(app)?;
    let sockets = unit::has_sockets(app)?;
    let name = if sockets { layout::app_socket(app) } else { layout::app_unit(app) };
    let outline = LaunchOutline::load(app)?;
    let others = if outline.after.is_empty() { Duration::ZERO } else { AFTER_TIMEOUT };
    let deadline = Instant::now() + others + unit::START_TIMEOUT + MARGIN;
    with_systemd(target, deadline, |systemd| {
        exit_status::forget(app)?;
        let started = match systemd.start_unit(&name, deadline) {
            // The unit exists: systemd looks for new units when their directory's time has changed, and on an older
            // kernel two changes within one clock tick look like one.
            Err(error) if systemd::is_no_such_unit(&error) => {
                systemd.reload(deadline)?;
                systemd.start_unit(&name, deadline)?
            }
            started => started?,
        };
        match started {
            JobResult::Done | JobResult::Skipped => Ok(()),
            JobResult::Failed if sockets => Err(Error::new(format!(
                "start app {app}: its ports can't be listened on: they are in use, or not there"
            ))),
            JobResult::Failed => Err(start_failure(systemd, app, deadline)?),
            result => Err(Error::new(format!("start app {app}: systemd's job ended with {result:?}"))),
        }
    })
}

/// Why an app did not start, from what the reaper has written. Pod side.
fn start_failure(systemd: &mut Client, app: &AcName, deadline: Instant) -> Result<Error> {
    // An app with a restart policy would be started again in the background.
    match systemd.stop_unit(&layout::app_unit(app), deadline) {
        Err(error) if !systemd::is_no_such_unit(&error) => return Err(error),
        _ => {}
    }
    exit_status::settle(systemd, app, deadline)?;
    let why = match ExitDetails::load_in_pod(app)? {
        Some(ExitDetails { start_failure: Some(why), .. }) => why,
        Some(ExitDetails { exit_code, result, .. }) => {
            format!("it ended before it was ready, with {exit_code} ({result})")
        }
        None => "it ended before it was ready".to_owned(),
    };
    Ok(Error::new(format!("start app {app}: {why}")))
}

/// Whether the app runs, or systemd listens on its sockets.
pub(super) fn is_running(target: &Target, app: &AcName) -> Result<bool> {
    let mut units = Vec::new();
    // The cgroup may still have the reaper, which has just written the exit status: ask systemd.
    if PodCgroup::recorded(Path::new("."))?.unit_is_populated(&layout::app_cgroup(app))? {
        units.push(layout::app_unit(app));
    }
    if unit::has_sockets(app)? {
        units.push(layout::app_socket(app));
    }
    if units.is_empty() {
        return Ok(false);
    }
    match refuse_running(target, &units, app, deadline()) {
        Ok(()) => Ok(false),
        Err(error) if error.exit_code() == Some(RUNS) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Stops an app and waits until it has ended and its exit status is written. Does nothing if it does not run. After
/// `timeout`, or the app's own, all its processes are killed; zero kills them at once.
///
/// # Errors
/// The pod has no such app: exit code 5. Or systemd can't stop it.
pub fn stop(target: &Target, app: &AcName, timeout: Option<Duration>) -> Result<()> {
    if !unit::exists(app)? {
        return Err(Error::new(format!("app {app} is not in this pod")).with_exit_code(exit::UNKNOWN_APP));
    }
    let own = unit::allowed_stop_time(LaunchOutline::load(app)?.stop_timeout);
    let sockets = unit::has_sockets(app)?;
    let given = timeout.unwrap_or(own);
    // The app, the processes that it leaves behind, and its handlers each have this time.
    let deadline = Instant::now() + 3 * given.max(own) + MARGIN;
    with_systemd(target, deadline, |systemd| {
        let name = layout::app_unit(app);
        let _note = StopNote::leave(app);
        // A stop that was killed may have left its drop-in.
        Patience::of(app).end(systemd, deadline)?;
        let patience = if given > own { Some(Patience::with(systemd, app, given, deadline)?) } else { None };
        let mut jobs = vec![queue_stop(systemd, &name, deadline)?];
        if sockets {
            jobs.push(queue_stop(systemd, &layout::app_socket(app), deadline)?);
        }
        if given < own {
            kill_after(systemd, jobs[0].as_ref(), &name, given, deadline)?;
        }
        for (job, unit) in jobs.into_iter().zip([name, layout::app_socket(app)]) {
            finish_stop(systemd, job, &unit, deadline).context(|| format!("stop app {app}"))?;
        }
        if let Some(patience) = patience {
            patience.remove()?;
        }
        exit_status::settle(systemd, app, deadline)
    })
}

/// Queues the stop of a unit; `None` if the unit does not run, as systemd then does not know it.
fn queue_stop(systemd: &mut Client, unit: &str, deadline: Instant) -> Result<Option<Job>> {
    match systemd.queue(Verb::Stop, unit, deadline) {
        Ok(job) => Ok(Some(job)),
        Err(error) if systemd::is_no_such_unit(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Waits for a stop job. If another caller's start has replaced the job, stops that run too.
fn finish_stop(systemd: &mut Client, mut job: Option<Job>, unit: &str, deadline: Instant) -> Result<()> {
    while let Some(stop) = &job {
        match systemd.wait(stop, deadline)? {
            JobResult::Done | JobResult::Skipped => break,
            JobResult::Canceled => job = queue_stop(systemd, unit, deadline)?,
            result => return Err(Error::new(format!("systemd's job ended with {result:?}"))),
        }
    }
    Ok(())
}

/// Kills the main process of a unit that has not ended in time; systemd then kills the other processes. They are not
/// killed here, because the reaper is one of them later.
fn kill_after(systemd: &mut Client, job: Option<&Job>, unit: &str, timeout: Duration, deadline: Instant) -> Result<()> {
    let Some(job) = job else { return Ok(()) };
    if !timeout.is_zero() && systemd.ends_by(job, Instant::now() + timeout)? {
        return Ok(());
    }
    match systemd.kill_main_process(unit, SIGKILL, deadline) {
        // It has ended meanwhile.
        Err(error) if Refused::in_chain(&error).is_some() => Ok(()),
        done => done,
    }
}

/// A drop-in that changes a unit's stop timeout for one stop; dropping it removes the drop-in. Pod side.
struct Patience(PathBuf);

impl Patience {
    fn with(systemd: &mut Client, app: &AcName, timeout: Duration, deadline: Instant) -> Result<Self> {
        let patience = Self::of(app);
        let dir = &patience.0;
        std::fs::create_dir_all(dir).context(|| format!("mkdir {dir:?}"))?;
        let file = dir.join("stop.conf");
        std::fs::write(&file, unit::stop_timeout_text(timeout)).context(|| format!("write {file:?}"))?;
        systemd.reload(deadline)?;
        Ok(patience)
    }

    /// The drop-in of an app, whether it exists or not.
    fn of(app: &AcName) -> Self {
        Self(layout::stop_drop_in(app))
    }

    /// Removes it from a unit that may be loaded.
    fn end(self, systemd: &mut Client, deadline: Instant) -> Result<()> {
        if !self.0.exists() {
            return Ok(());
        }
        self.remove()?;
        systemd.reload(deadline)
    }

    /// systemd has unloaded the unit by then, and reads it anew for the next start.
    fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.0).context(|| format!("remove {:?}", self.0))
    }
}

/// Removes an app that does not run: its unit, its pin with all its mounts, its launch record and
/// environment. Missing files are not an error, so that an interrupted removal can be repeated.
///
/// # Errors
/// The app runs: nothing is removed. Or a file can't be removed.
pub fn rm(target: &Target, app: &AcName) -> Result<()> {
    let deadline = deadline();
    if unit::exists(app)? {
        let mut units = vec![layout::app_unit(app)];
        if unit::has_sockets(app)? {
            units.push(layout::app_socket(app));
        }
        refuse_running(target, &units, app, deadline)?;
    }
    // First: without them the app counts as half removed.
    let files = forget_files(app);
    let forgotten = streams::forget(app);
    // An `app-stop` that was killed has left its note.
    let inside = target.begin_inside(deadline, || rootfs::unpin(app).and(StopNote::remove_stale(app)));
    let parts = [
        files,
        unit::remove(app),
        remove_if_there(&layout::launch_record(app)),
        remove_if_there(&layout::env_file(app)),
        // Temporary files of an app-add that was killed. The host manager runs both verbs under one lock.
        sweep_temporaries(&layout::units_dir()),
        sweep_temporaries(&layout::app_dir(app)),
        layout::env_file(app).parent().map_or(Ok(()), sweep_temporaries),
        rootfs::volumes::sweep(),
        forgotten.remove(),
        inside.and_then(Begun::finish),
    ];
    let failed: Vec<String> = parts.into_iter().filter_map(|part| part.err().map(|e| e.one_line())).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::new(format!("remove app {app}: {}", failed.join("; ")))) }
}

/// Removes an app's files of the pod's status directory, through the mount: a host manager that removes them in the
/// overlay's upper directory leaves names that give ESTALE.
fn forget_files(app: &AcName) -> Result<()> {
    let removed =
        layout::status_files(app).iter().try_for_each(|name| remove_if_there(&layout::status_dir().join(name)));
    removed.and_then(|()| forget_stale_names(app))
}

/// Makes the names of an app's files usable again after a host manager has removed the files in the overlay's upper
/// directory, so that what is written later appears there. Such a file has no links.
pub(super) fn forget_stale_names(app: &AcName) -> Result<()> {
    let is_stale = |path: PathBuf| path.symlink_metadata().is_ok_and(|stat| stat.nlink() == 0);
    let files = layout::status_files(app).into_iter().map(|name| layout::status_dir().join(name));
    if files.chain([layout::env_file(app)]).any(is_stale) {
        mount::forget_names(Path::new(layout::STAGE1_ROOTFS))?;
    }
    Ok(())
}

fn refuse_running(target: &Target, units: &[String], app: &AcName, deadline: Instant) -> Result<()> {
    with_systemd(target, deadline, |systemd| {
        for unit in units {
            match state_after_end(systemd, unit, deadline)? {
                state if state.is_at_rest() => {}
                state => {
                    return Err(Error::new(format!("app {app} is {state:?}: stop it first")).with_exit_code(RUNS));
                }
            }
        }
        Ok(())
    })
}

/// The state of a unit. If it is deactivating, waits a moment: an app's exit status is written shortly before its unit
/// is inactive, and a caller that has read the status may start or remove the app at once.
fn state_after_end(systemd: &mut Client, unit: &str, deadline: Instant) -> Result<ActiveState> {
    let until = deadline.min(Instant::now() + REAPER_EXIT);
    loop {
        match systemd.active_state(unit, deadline)? {
            ActiveState::Deactivating if Instant::now() < until => std::thread::sleep(POLL),
            state => return Ok(state),
        }
    }
}

/// Talks to the pod's systemd from a process of the pod: systemd accepts no other peers.
fn with_systemd(target: &Target, deadline: Instant, talk: impl FnOnce(&mut Client) -> Result<()>) -> Result<()> {
    target.as_member(deadline, || {
        let mut systemd = Client::connect(Path::new(systemd::PRIVATE_SOCKET), deadline)?;
        talk(&mut systemd)
    })
}
