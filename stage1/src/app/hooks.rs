//! An app's event handlers (before its start, after its end) and its hooks (after its start, before its stop signal).
//! Pod side, as commands of the app's own unit, and so in its cgroup.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

use super::exec::{load_record, post_stop, pre_start};
use super::health::attend;
use super::reaper_notes::Note;
use super::{back_off, deadline};
use crate::appc::AcName;
use crate::error::{Context, Error, Result, exit};
use crate::launch::{self, Command, LaunchRecord};
use crate::pod::Check;
use crate::pod::events::Event as Happened;
use crate::sys::process::{self, Fork};
use crate::sys::signal;
use crate::systemd::{Client, Interface, PRIVATE_SOCKET};
use crate::{layout, rootfs, unit};

/// How long before the start timeout a hook must have ended.
const START_MARGIN: Duration = Duration::from_secs(5);
/// The least time between an app's stop signal and SIGKILL, if its hook has used up the stop timeout.
const LEAST: Duration = Duration::from_secs(2);
/// How much longer systemd waits than this takes.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The events that handlers and hooks are run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The app is about to start.
    PreStart,
    /// The app has ended.
    PostStop,
    /// The app has started.
    PostStart,
    /// The app is about to get its stop signal.
    PreStop,
}

impl std::str::FromStr for Event {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "pre-start" => Ok(Self::PreStart),
            "post-stop" => Ok(Self::PostStop),
            "post-start" => Ok(Self::PostStart),
            "pre-stop" => Ok(Self::PreStop),
            _ => Err(Error::new(format!("event {text:?}: use pre-start, post-start, pre-stop or post-stop"))),
        }
    }
}

/// Runs an app's handlers of an event, as root, or its hook, as the app's user.
///
/// # Errors
/// A handler or the hook fails.
pub fn run_handlers(app: &AcName, event: Event) -> Result<()> {
    process::not_dumpable()?;
    process::close_on_exec_from_3()?;
    match event {
        Event::PreStart => pre_start(app),
        Event::PostStop => post_stop(app),
        Event::PostStart => after_start(app),
        Event::PreStop => before_stop(app),
    }
}

/// Runs the hook for an app's start.
///
/// # Errors
/// It fails or takes too long, or the app ends meanwhile. The reason is also written to the app's note.
fn after_start(app: &AcName) -> Result<()> {
    let record = load_record(app)?;
    let mut note = Note::open(app)?;
    let main = main_process()?;
    let time = unit::START_TIMEOUT - START_MARGIN;
    let done = run(app, &record, &record.post_start, time, main.as_ref());
    let failed = done.and_then(|check| failure(&check).map_or(Ok(()), |why| Err(Error::new(why))));
    let failed = failed.context(|| format!("post-start hook {:?}", record.post_start));
    failed.inspect_err(|error| note.write(error, false))
}

/// Runs the hook for an app's stop, then ends the app within the rest of its stop timeout. Does nothing if the app has
/// ended by itself.
///
/// # Errors
/// The app can't be ended, or systemd does not answer.
fn before_stop(app: &AcName) -> Result<()> {
    let Some(main) = main_process()? else { return Ok(()) };
    let record = load_record(app)?;
    let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline())?;
    let properties = systemd.properties(&layout::app_unit(app), Interface::Service, deadline())?;
    let number = |name| properties.number(name).context(|| format!("systemd does not tell {name} of app {app}"));
    let time = match record.stop_timeout {
        Duration::ZERO => Duration::ZERO,
        _ => Duration::from_micros(u64::try_from(number("TimeoutStopUSec")?).context(|| "TimeoutStopUSec")?),
    };
    back_off::extend_to(time + LEAST + STOP_MARGIN)?;
    let end = Instant::now() + time;
    if !time.is_zero() {
        match run(app, &record, &record.pre_stop, time, Some(&main)).map(|check| failure(&check)) {
            Ok(None) => {}
            Ok(Some(why)) => complain(app, format!("{:?} {why}", record.pre_stop)),
            Err(error) => complain(app, format!("{:?}: {}", record.pre_stop, error.one_line())),
        }
        let number = i32::try_from(number("KillSignal")?).context(|| "KillSignal")?;
        process::pidfd_kill(&main, signal::by_number(number)?)?;
        let rest = end.saturating_duration_since(Instant::now()).max(LEAST);
        if process::pidfd_wait_end(&main, rest)? {
            return Ok(());
        }
    }
    process::pidfd_kill(&main, Signal::KILL)
}

/// Reports a hook that failed before a stop; the stop continues.
fn complain(app: &AcName, what: String) {
    log::warn!("app {app}: pre-stop hook {what}");
    Happened { why: Some(what), ..Happened::now("pre-stop-failed", Some(app)) }.note_in_pod();
}

/// The app's main process, from the environment of its unit's commands; `None` if it has ended.
fn main_process() -> Result<Option<OwnedFd>> {
    let Ok(text) = std::env::var("MAINPID") else { return Ok(None) };
    let pid = text.parse().context(|| format!("MAINPID={text:?}"))?;
    match process::pidfd_open(pid) {
        Err(error) if error.errno() == Some(libc::ESRCH) => Ok(None),
        pidfd => pidfd.map(Some),
    }
}

/// Why a command failed, if it did.
fn failure(check: &Check) -> Option<String> {
    let how = match check.exit_code {
        Some(0) => return None,
        Some(code) => format!("exited with {code}"),
        None => "was ended: its time was over, or the app has ended".to_owned(),
    };
    Some(if check.output.is_empty() { how } else { format!("{how}: {}", check.output.replace('\n', " | ")) })
}

/// Runs a command in the app, as the app's user.
fn run(
    app: &AcName,
    record: &LaunchRecord,
    command: &[String],
    time: Duration,
    main: Option<&OwnedFd>,
) -> Result<Check> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).context(|| "pipe");
    // nothing is written to this pipe: its end tells the child that this process has ended
    let (alive, ours) = pipe()?;
    let (output, its_output) = pipe()?;
    let null = File::options().read(true).write(true).open("/dev/null").context(|| "open /dev/null")?;
    let child = match process::fork()? {
        Fork::Child => {
            drop((ours, output));
            let Err(error) = become_hook(app, record, command, &alive, &its_output, &null);
            // Errors go where its output goes.
            let said = File::from(its_output).write_all(error.one_line().as_bytes());
            let code = error.exit_code().filter(|_| said.is_ok()).unwrap_or(exit::SETUP);
            process::exit_now(code.into())
        }
        Fork::Parent(child) => child,
    };
    drop((alive, its_output));
    attend(child, output, time, main)
}

fn become_hook(
    app: &AcName,
    record: &LaunchRecord,
    command: &[String],
    alive: &OwnedFd,
    output: &OwnedFd,
    null: &File,
) -> Result<Infallible> {
    process::die_with_parent()?;
    process::new_session()?;
    process::set_standard_fd(null, 0)?;
    for number in [1, 2] {
        process::set_standard_fd(output, number)?;
    }
    rootfs::join_pinned(app)?;
    let command = Command { parent: Some(alive.as_fd()), ..record.command_of(command) };
    launch::exec(&record.confinement, &command)
}
