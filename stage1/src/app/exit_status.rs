//! How an app ended: from systemd's report to the status file. Pod side.

use std::path::Path;
use std::time::{Duration, Instant};

use super::reaper_notes::{self, StartFailure, StopNote};
use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::events::Event;
use crate::pod::{Durable, ExitDetails, Health, keep_room, read_bounded, remove_if_there, write_kept};
use crate::streams::handover;
use crate::systemd::{self, Client, Interface, Verb};
use crate::unit::{RESTART_RESET, Restart, restart_delay};

/// How long systemd may take to answer the reaper.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What systemd tells an ExecStopPost= command about the main process: systemd.exec(5), `$EXIT_CODE`.
#[derive(Clone, Copy, Debug)]
struct Ending<'a> {
    result: &'a str,
    code: &'a str,
    status: &'a str,
}

/// What may start an app again after its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Again {
    /// Its restart policy.
    pub restart: Restart,
    /// How many restarts in a row it allows.
    pub limit: Option<u32>,
    /// Its health check restarts it when it is unhealthy.
    pub checked: bool,
    /// systemd listens on its sockets while it does not run.
    pub sockets: bool,
}

impl Again {
    /// Whether the app will be started again, so that it counts as running.
    fn applies(self, result: &str) -> bool {
        let success = result == "success";
        match self.restart {
            Restart::Always => true,
            Restart::OnFailure if !success => true,
            _ => self.sockets && success,
        }
    }
}

/// Writes how `app` has ended. Its status file gets its exit status, or 128 + signal if a signal killed it, in decimal
/// with a newline; a file with the details is written before it. An app that will be started again gets no status file;
/// the details tell how it ended last.
///
/// Before that, the monitor gets `wait` to read the rest of the app's output.
///
/// # Errors
/// The environment is not that of an ExecStopPost= command, or a file can't be written.
pub fn record_exit(app: &AcName, again: Again, wait: Duration) -> Result<()> {
    take_output(app, wait);
    let get = |name: &str| std::env::var(name).unwrap_or_default();
    let (result, code, status) = (get("SERVICE_RESULT"), get("EXIT_CODE"), get("EXIT_STATUS"));
    let ending = Ending { result: &result, code: &code, status: &status };
    let start_failure = reaper_notes::take(app).unwrap_or_else(|error| {
        log::warn!("{}", error.one_line());
        None
    });
    let mut details = details(&ending, start_failure, oom_killed(app))?;
    details.unhealthy = ended_by_health_check(app);
    if details.signal.is_some() && !details.is_end_by_oom() && !StopNote::is_left(app) && pod_is_ending()? {
        // The end of the pod killed the app: not a failure of the app.
        details.exit_code = 0;
    }
    let before = ExitDetails::load_in_pod(app).unwrap_or_else(|error| {
        log::warn!("{}", error.one_line());
        None
    });
    let before = before.unwrap_or_default();
    if before.restarting {
        // It was stopped before its restart: its last end still counts.
        details = before.clone();
    }
    (details.restarts, details.in_a_row, details.restarting) = (before.restarts, 0, false);
    let is_restarted = again.checked && pending_job(app)?.as_deref() == Some("restart");
    let mut goes_on = is_restarted || again.applies(&result) && !ends_for_good(app)?;
    if goes_on && (is_restarted || again.restart != Restart::No) {
        let in_a_row = if ran_for(app)? >= RESTART_RESET { 1 } else { before.in_a_row.saturating_add(1) };
        if again.limit.is_some_and(|limit| in_a_row > limit) {
            goes_on = false;
            details.gave_up = true;
            stay_ended(app)?;
        } else {
            (details.restarts, details.in_a_row) = (before.restarts.saturating_add(1), in_a_row);
            details.restarting = true;
        }
    }
    tell(app, &details);
    let noted =
        if goes_on || !details.is_plain() { details.store_in_pod(app) } else { ExitDetails::remove_in_pod(app) };
    say_unless(noted);
    if goes_on {
        return Ok(());
    }
    write_status(app, details.exit_code)?;
    if again.sockets {
        close_sockets(app)?;
    }
    Ok(())
}

/// Whether the app's health check asked systemd to end it.
fn ended_by_health_check(app: &AcName) -> bool {
    let health = Health::load_in_pod(app).unwrap_or_else(|error| {
        log::warn!("{}", error.one_line());
        None
    });
    health.is_some_and(|health| health.ends_app)
}

/// How long the app's last run took.
fn ran_for(app: &AcName) -> Result<Duration> {
    let deadline = Instant::now() + TIMEOUT;
    let mut systemd = Client::connect(Path::new(systemd::PRIVATE_SOCKET), deadline)?;
    let properties = systemd.properties(&layout::app_unit(app), Interface::Service, deadline)?;
    let time = |name| properties.number(name).unwrap_or_default();
    let (started, ended) = (time("ExecMainStartTimestampMonotonic"), time("ExecMainExitTimestampMonotonic"));
    Ok(Duration::from_micros(u64::try_from(ended - started).unwrap_or_default()))
}

/// Tells systemd not to start the app again. Does not wait for the stop job, which itself waits for the reaper.
fn stay_ended(app: &AcName) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let mut systemd = Client::connect(Path::new(systemd::PRIVATE_SOCKET), deadline)?;
    systemd.queue(Verb::Stop, &layout::app_unit(app), deadline).map(drop)
}

/// Waits until the monitor has read the app's output, so that the app's end is reported after its output. A failure
/// does not keep the end from being reported.
fn take_output(app: &AcName, wait: Duration) {
    if let Err(error) = handover::ended(app, wait) {
        log::warn!("app {app}: its last output may come late: {}", error.one_line());
    }
}

/// As [`record_exit`], for an app whose unit has failed and whose reaper has written nothing. The reaper runs in the
/// app's cgroup, and is killed there if files in memory have used up the cgroup's limit.
///
/// # Errors
/// As [`record_exit`].
pub fn record_exit_late(app: &AcName) -> Result<()> {
    let get = |name: &str| std::env::var(name).unwrap_or_default();
    if layout::in_pod_status(app).symlink_metadata().is_ok() || get("MONITOR_UNIT") != layout::app_unit(app) {
        return Ok(());
    }
    let (result, code, status) = (get("MONITOR_SERVICE_RESULT"), get("MONITOR_EXIT_CODE"), get("MONITOR_EXIT_STATUS"));
    let ending = Ending { result: &result, code: &code, status: &status };
    // The app's counters went with its cgroup; only a lack of memory kills both the app and its reaper.
    let oom_killed = code == "killed" && status == "KILL";
    take_output(app, TIMEOUT);
    let details = details(&ending, reaper_notes::take(app)?, oom_killed)?;
    tell(app, &details);
    say_unless(details.store_in_pod(app));
    write_status(app, details.exit_code)
}

/// Records the events of an app's end, and of what follows from it.
fn tell(app: &AcName, details: &ExitDetails) {
    let event = |name: &str| Event::now(name, Some(app));
    if details.oom_killed {
        event("out-of-memory").note_in_pod();
    }
    let ended = Event {
        exit_code: Some(details.exit_code),
        signal: details.signal.clone(),
        why: details.start_failure.clone().or_else(|| details.unhealthy.then(|| "health check failed".to_owned())),
        ..event("exited")
    };
    ended.note_in_pod();
    if details.restarting {
        let delay = restart_delay(details.in_a_row).as_secs();
        Event { why: Some(format!("restart {} in {delay} s", details.restarts)), ..event("restarting") }.note_in_pod();
    }
    if details.gave_up {
        event("gave-up").note_in_pod();
    }
}

/// Logs an error. Failing to write the details must not keep the status from being written.
fn say_unless(noted: Result<()>) {
    if let Err(error) = noted {
        log::warn!("{}", error.one_line());
    }
}

fn write_status(app: &AcName, code: u8) -> Result<()> {
    let dir = Path::new(layout::IN_POD_STATUS);
    write_kept(dir, app.as_ref(), format!("{code}\n").as_bytes(), 0o644, Durable::Yes)
        .context(|| format!("write the exit status of {app}"))
}

/// Whether the whole pod is being shut down.
fn pod_is_ending() -> Result<bool> {
    let deadline = Instant::now() + TIMEOUT;
    let mut systemd = Client::connect(Path::new(systemd::PRIVATE_SOCKET), deadline)?;
    Ok(systemd.pending_job(SHUTDOWN, deadline)?.as_deref() == Some("start"))
}

/// The type of the job that systemd has queued for the app's unit, if any.
fn pending_job(app: &AcName) -> Result<Option<String>> {
    let deadline = Instant::now() + TIMEOUT;
    let mut systemd = Client::connect(Path::new(systemd::PRIVATE_SOCKET), deadline)?;
    systemd.pending_job(&layout::app_unit(app), deadline)
}

/// The target that every app's unit conflicts with.
const SHUTDOWN: &str = "shutdown.target";

/// Prepares for the end of an app that is about to be executed. Removes what an `app-stop` that was killed has left.
/// Allocates space for the app's exit status and its details, as the disk may be full by then. Removes the status of the
/// previous run: the caller that starts the app has removed it too, but the previous end may have been written after that.
///
/// # Errors
/// The file system of the status is full, or a file can't be written.
pub(super) fn prepare(app: &AcName) -> Result<()> {
    remove_if_there(&layout::in_pod_status(app))?;
    StopNote::remove_stale(app)?;
    if let Some(mut details) = ExitDetails::load_in_pod(app)?.filter(|details| details.restarting) {
        details.restarting = false;
        say_unless(details.store_in_pod(app));
    }
    let dir = Path::new(layout::IN_POD_STATUS);
    keep_room(dir, app.as_ref()).context(|| "its exit status could not be written down")?;
    say_unless(keep_room(dir, &layout::exit_details(app)));
    Ok(())
}

/// Removes the details of an app's last end, before the app is started by hand.
pub(super) fn forget(app: &AcName) -> Result<()> {
    ExitDetails::remove_in_pod(app)
}

/// Writes the status file of a stopped app if the reaper did not: because it expected a restart, or because it was
/// killed.
pub(super) fn settle(systemd: &mut Client, app: &AcName, deadline: Instant) -> Result<()> {
    if layout::in_pod_status(app).symlink_metadata().is_ok() {
        return Ok(());
    }
    match ExitDetails::load_in_pod(app)? {
        Some(details) => write_status(app, details.exit_code),
        // Also if it never ran; then the unit does nothing. If it has been started already, this waits for it.
        None => systemd.start_unit(&layout::late_reaper_unit(app), deadline).map(drop),
    }
}

/// Whether the app must not be started again: it is being stopped, or a start by hand has just failed.
fn ends_for_good(app: &AcName) -> Result<bool> {
    let deadline = Instant::now() + TIMEOUT;
    let unit = layout::app_unit(app);
    let mut systemd = Client::connect(Path::new(systemd::PRIVATE_SOCKET), deadline)?;
    Ok(match systemd.pending_job(&unit, deadline)?.as_deref() {
        Some("stop") => true,
        // systemd's own restart is a start job too at this time.
        Some("start") => {
            let restarts = systemd.properties(&unit, Interface::Service, deadline)?;
            restarts.number("NRestarts") == Some(0)
        }
        _ => false,
    })
}

/// Stops listening on the app's sockets after a failure, so that no connection starts it again. Does not wait for the
/// stop job, which itself waits for the reaper.
fn close_sockets(app: &AcName) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    let mut systemd = Client::connect(Path::new(systemd::PRIVATE_SOCKET), deadline)?;
    match systemd.queue(Verb::Stop, &layout::app_socket(app), deadline) {
        Err(error) if !systemd::is_no_such_unit(&error) => Err(error),
        _ => Ok(()),
    }
}

fn details(ending: &Ending<'_>, note: Option<StartFailure>, oom_killed: bool) -> Result<ExitDetails> {
    // If the app was started again, systemd still reports the end of its previous run.
    let before_start = note.as_ref().is_some_and(|failure| failure.before_start);
    let ending = &Ending { code: if before_start { "" } else { ending.code }, ..*ending };
    let killed = matches!(ending.code, "killed" | "dumped");
    let start_failure = note.map(|failure| failure.why).or_else(|| match (ending.code, ending.result) {
        ("", "success") => Some("it was stopped before it had started".to_owned()),
        ("", result) => Some(format!("systemd could not start it ({result})")),
        _ => None,
    });
    Ok(ExitDetails {
        exit_code: exit_status(ending)?,
        result: ending.result.to_owned(),
        signal: killed.then(|| signal_name(ending.status)),
        core_dumped: ending.code == "dumped",
        oom_killed,
        start_failure,
        ..ExitDetails::default()
    })
}

/// systemd's name of a signal with its prefix; a signal without a name is a number.
fn signal_name(name: &str) -> String {
    match name {
        "RTMIN+0" => "SIGRTMIN".to_owned(),
        number if number.bytes().all(|b| b.is_ascii_digit()) => number.to_owned(),
        name => format!("SIG{name}"),
    }
}

/// Whether the kernel has killed a process of the app for lack of memory. The reaper runs in the app's cgroup, whose
/// counters are gone when the run has ended.
///
/// Without a memory limit an app has no memory cgroup of its own, and no counter.
fn oom_killed(app: &AcName) -> bool {
    let count = || -> Result<u64> {
        let groups = read_bounded(Path::new("/proc/self/cgroup"), 64 << 10)?;
        let Some(file) = oom_counter(&String::from_utf8_lossy(&groups), &layout::app_unit(app)) else { return Ok(0) };
        match read_bounded(Path::new(&file), 64 << 10) {
            // The unified hierarchy without the memory controller.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(0),
            text => Ok(oom_kills(&String::from_utf8_lossy(&text?))),
        }
    };
    count().unwrap_or_else(|error| {
        log::warn!("whether app {app} ran out of memory is not known: {}", error.one_line());
        0
    }) > 0
}

/// The file that counts the processes killed for lack of memory in the memory cgroup of `unit`, found in the text of
/// /proc/self/cgroup: cgroups(7). `None` if this process is not in a memory cgroup of that unit.
fn oom_counter(cgroups: &str, unit: &str) -> Option<String> {
    let own = |path: &str| path.rsplit('/').next() == Some(unit);
    let mut unified = None;
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        if controllers.split(',').any(|controller| controller == "memory") {
            return own(path).then(|| format!("/sys/fs/cgroup/memory{path}/memory.oom_control"));
        }
        if controllers.is_empty() && own(path) {
            unified = Some(format!("/sys/fs/cgroup{path}/memory.events"));
        }
    }
    unified
}

/// The counter `oom_kill` of memory.oom_control or memory.events.
fn oom_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Exit status of an app that never had a process.
const NOT_STARTED: u8 = 254;

fn exit_status(ending: &Ending<'_>) -> Result<u8> {
    match ending.code {
        "exited" => ending.status.parse().context(|| format!("exit status {:?} of systemd", ending.status)),
        "killed" | "dumped" => {
            let signal = signal_number(ending.status)
                .ok_or_else(|| Error::new(format!("unknown signal {:?} in systemd's words", ending.status)))?;
            Ok(128 + signal)
        }
        "" if !ending.result.is_empty() => Ok(NOT_STARTED),
        _ => Err(Error::new(format!("{ending:?} is not what systemd tells an ExecStopPost= command"))),
    }
}

/// The number of a signal that systemd names without its prefix (`KILL`, `RTMIN+3`), or of one it has no name for.
pub(super) fn signal_number(name: &str) -> Option<u8> {
    // glibc's SIGRTMIN, which is systemd's.
    const SIGRTMIN: u8 = 34;
    const SIGRTMAX: u8 = 64;
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: u8 = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
        return SIGRTMIN.checked_add(offset).filter(|n| *n <= 64);
    }
    if let Some(offset) = name.strip_prefix("RTMAX") {
        let offset: u8 = if offset.is_empty() { 0 } else { offset.strip_prefix('-')?.parse().ok()? };
        return SIGRTMAX.checked_sub(offset).filter(|n| *n >= SIGRTMIN);
    }
    // second names of signal(7)
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    u8::try_from(signal as i32).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(result: &str, code: &str, status: &str) -> Option<u8> {
        details(&Ending { result, code, status }, None, false).ok().map(|details| details.exit_code)
    }

    #[test]
    fn every_way_to_end() {
        assert_eq!(status("success", "exited", "0"), Some(0));
        assert_eq!(status("exit-code", "exited", "255"), Some(255));
        assert_eq!(status("signal", "killed", "KILL"), Some(137));
        assert_eq!(status("core-dump", "dumped", "SEGV"), Some(139));
        assert_eq!(status("signal", "killed", "RTMIN+3"), Some(128 + 37));
        assert_eq!(status("signal", "killed", "RTMIN"), Some(128 + 34));
        assert_eq!(status("signal", "killed", "32"), Some(160));
        assert_eq!(status("resources", "", ""), Some(254));
        assert_eq!(status("", "", ""), None);
        assert_eq!(status("signal", "killed", "BANANA"), None);
        assert_eq!(status("exit-code", "exited", "256"), None);
    }

    #[test]
    fn details_of_every_way_to_end() {
        let noted = |code, status, note: Option<(&str, bool)>, oom| {
            let note = note.map(|(why, before_start)| StartFailure { why: why.to_owned(), before_start });
            details(&Ending { result: "x", code, status }, note, oom).unwrap()
        };
        let of = |code, status, note: Option<&str>, oom| noted(code, status, note.map(|why| (why, false)), oom);
        assert!(of("exited", "127", None, false).is_plain());
        let failed = of("exited", "127", Some("exec \"/x\": no such file"), false);
        assert_eq!((failed.exit_code, failed.start_failure.as_deref()), (127, Some("exec \"/x\": no such file")));
        let dumped = of("dumped", "SEGV", None, false);
        assert_eq!((dumped.signal.as_deref(), dumped.core_dumped, dumped.oom_killed), (Some("SIGSEGV"), true, false));
        let killed = of("killed", "KILL", None, true);
        assert_eq!((killed.exit_code, killed.core_dumped, killed.oom_killed), (137, false, true));
        assert_eq!(of("killed", "32", None, false).signal.as_deref(), Some("32"));
        // The end of the previous run does not count.
        let before = noted("exited", "3", Some(("pre-start handler [\"/x\"] exited with 7", true)), false);
        assert_eq!((before.exit_code, before.start_failure.is_some()), (254, true));
        // Only the note tells a failed handler, whatever its text is.
        assert_eq!(of("exited", "3", Some("pre-start handler is the app's name"), false).exit_code, 3);
        assert!(of("", "", None, false).start_failure.unwrap().contains("(x)"));
    }

    #[test]
    fn what_starts_an_app_again() {
        let applies = |restart, sockets| {
            ["success", "exit-code", "signal"]
                .map(|result| Again { restart, sockets, ..Again::default() }.applies(result))
        };
        assert_eq!(applies(Restart::No, false), [false, false, false]);
        assert_eq!(applies(Restart::No, true), [true, false, false]);
        assert_eq!(applies(Restart::OnFailure, false), [false, true, true]);
        assert_eq!(applies(Restart::OnFailure, true), [true, true, true]);
        assert_eq!(applies(Restart::Always, false), [true, true, true]);
    }

    #[test]
    fn where_the_kernel_counts() {
        let v1 = "5:memory:/system.slice/app-a.service\n1:name=systemd:/system.slice/app-a.service\n0::/x\n";
        let of = |text: &str| oom_counter(text, "app-a.service");
        assert_eq!(of(v1).unwrap(), "/sys/fs/cgroup/memory/system.slice/app-a.service/memory.oom_control");
        assert_eq!(
            of("0::/system.slice/app-a.service\n").unwrap(),
            "/sys/fs/cgroup/system.slice/app-a.service/memory.events"
        );
        // No memory cgroup of its own: the counters of others do not count.
        assert_eq!(of("5:memory:/\n0::/system.slice/app-a.service\n"), None);
        assert_eq!(of("5:memory:/system.slice/app-b.service\n"), None);
        assert_eq!(of("rubbish\n"), None);
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), 2);
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 9\noom 3\noom_kill 1\noom_group_kill 0\n"), 1);
        assert_eq!(oom_kills("oom_kill_disable 0\n"), 0);
    }

    #[test]
    fn all_classic_signals_have_their_number() {
        for signal in nix::sys::signal::Signal::iterator() {
            let name = signal.as_str().strip_prefix("SIG").unwrap();
            assert_eq!(signal_number(name), Some(signal as u8), "{name}");
        }
    }
}
