//! Becoming an app, as its unit's main process, and running its event handlers. Pod side.

use std::convert::Infallible;
use std::time::Duration;

use nix::sys::wait::WaitStatus;

use super::notify::{NOTIFY_SOCKET, supervisor};
use super::reaper_notes::Note;
use super::stand_in::stand_in;
use super::{exit_status, pid_namespace};
use crate::appc::{AcName, PidNamespace};
use crate::confine::ids::Ids;
use crate::error::{Context, Error, Result, exit};
use crate::launch::{LaunchRecord, env};
use crate::pod::Health;
use crate::pod::events::Event;
use crate::streams::handover::{self, CommandRole, Handover};
use crate::sys::process::{self, Fork};
use crate::{launch, layout, rootfs, sys};

/// How long the monitor may take to read the rest of a handler's output.
const HANDLER_OUTPUT: Duration = Duration::from_secs(5);

/// Which process tells systemd that the app has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// `app-exec` does, right before it executes the app's command.
    Executed,
    /// The app itself, when it is ready: sd_notify(3).
    Told,
}

/// Becomes the app: reads its launch record, joins its mount namespace, takes its confinement, executes its command.
///
/// # Errors
/// The app can't be executed as recorded; the exit codes are those of [`exit`]. The reason is also written to the app's
/// note.
pub fn exec(app: &AcName, readiness: Readiness) -> Result<Infallible> {
    process::not_dumpable()?;
    let sockets = handed_over();
    process::close_on_exec_from(3 + sockets)?;
    let mut note = Note::open(app)?;
    let Err(error) = become_app(app, readiness, sockets);
    let error = in_familys_words(error);
    note.write(&error, false);
    Err(error)
}

/// The error that an app's command does not exist, with the words that host managers of the rkt family expect.
fn in_familys_words(error: Error) -> Error {
    match error.exit_code() {
        Some(exit::NOT_FOUND) => Error::new(format!("Error: {}", error.one_line())).with_exit_code(exit::NOT_FOUND),
        _ => error,
    }
}

fn become_app(app: &AcName, readiness: Readiness, sockets: u32) -> Result<Infallible> {
    let mut record = load_record(app)?;
    pid_namespace::go_on_in(&record.pid_namespace)?;
    exit_status::prepare(app)?;
    if record.health.is_some() {
        Health::starting().store_in_pod(app)?;
    }
    Event::now("started", Some(app)).note_in_pod();
    if record.pid_namespace == PidNamespace::Host {
        return stand_in(app);
    }
    let handover = Handover::begin()?;
    let supervisor = match readiness {
        Readiness::Executed => Some(supervisor()?),
        Readiness::Told => {
            env::set(&mut record.environment, NOTIFY_SOCKET, layout::IN_APP_NOTIFY_SOCKET);
            None
        }
    };
    if sockets > 0 {
        let names: Vec<&str> = record.sockets.iter().map(AcName::as_ref).collect();
        let (names, pid) = (names.join(":"), std::process::id().to_string());
        for (name, value) in [("LISTEN_FDS", sockets.to_string()), ("LISTEN_PID", pid), ("LISTEN_FDNAMES", names)] {
            env::set(&mut record.environment, name, &value);
        }
    }
    rootfs::join_pinned(app)?;
    if record.pid_namespace != PidNamespace::Pod {
        rootfs::renew_proc()?;
    }
    hand_over(handover, app, &record, CommandRole::Main)?;
    launch::exec_ready(&record.confinement, &record.command(), || match supervisor.flatten() {
        Some(socket) => socket.send(b"READY=1").context(|| "tell the supervisor READY=1").map(drop),
        None => Ok(()),
    })
}

/// In the app's mount namespace: from here on this process reports errors on the app's standard error.
pub(super) fn hand_over(handover: Handover, app: &AcName, record: &LaunchRecord, who: CommandRole) -> Result<()> {
    let owner = (record.confinement.uid, record.confinement.gid);
    handover.finish(app, record.streams, who, owner).context(|| "hand the app's streams to the pod's monitor")
}

/// How many sockets systemd has passed to this process, from descriptor 3 on: sd_listen_fds(3).
fn handed_over() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// Runs the app's handlers of `pre-start` one after the other, each confined as the app is, but as root.
///
/// # Errors
/// A handler fails; the following ones are not run. The reason is also written to the app's note.
pub(super) fn pre_start(app: &AcName) -> Result<()> {
    let mut note = Note::open(app)?;
    let record = load_record(app).context(|| "pre-start handlers").inspect_err(|error| note.write(error, true))?;
    record.pre_start.iter().try_for_each(|command| {
        let failed = |why| Error::new(format!("pre-start handler {command:?} {why}"));
        let error = match run_handler(&record, app, command, Some(&mut note))? {
            None => return Ok(()),
            // The process never became the handler, and has written the reason.
            Some(why) => match note.read()? {
                None => failed(why),
                Some(reason) => failed(format!("can't be run: {}", reason.why)),
            },
        };
        note.write(&error, true);
        Err(error)
    })
}

/// Runs the app's handlers of `post-stop` in the same way.
///
/// # Errors
/// Handlers fail; all are run, and the error names those that failed.
pub(super) fn post_stop(app: &AcName) -> Result<()> {
    let record = load_record(app)?;
    let mut failed = Vec::new();
    for command in &record.post_stop {
        if let Some(why) = run_handler(&record, app, command, None)? {
            failed.push(format!("{command:?} {why}"));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(format!("app {app}: post-stop handler {}", failed.join("; "))))
}

/// Runs one handler to its end. Returns how it failed, if it did.
fn run_handler(
    record: &LaunchRecord,
    app: &AcName,
    command: &[String],
    note: Option<&mut Note>,
) -> Result<Option<String>> {
    match process::fork()? {
        Fork::Child => {
            let become_handler = || -> Result<Infallible> {
                let handover = Handover::begin()?;
                rootfs::join_pinned(app)?;
                hand_over(handover, app, record, CommandRole::Handler)?;
                // Handlers run as root: they prepare what the app's user could not.
                let root = record.confinement.clone().with_ids(&Ids::default());
                launch::exec(&root, &record.command_of(command))
            };
            let Err(error) = become_handler();
            let error = in_familys_words(error);
            match note {
                Some(note) => note.write(&error, true),
                None => log::error!("{}", error.one_line()),
            }
            process::exit_now(error.exit_code().unwrap_or(exit::SETUP).into())
        }
        Fork::Parent(child) => {
            let status = process::wait_child(child)?;
            // The handler's output is in the log before anything that follows from its end.
            if let Err(error) = handover::ended(app, HANDLER_OUTPUT) {
                log::warn!("output of a handler of app {app}: {}", error.one_line());
            }
            Ok(match status {
                WaitStatus::Exited(_, 0) => None,
                WaitStatus::Exited(_, code) => Some(format!("exited with {code}")),
                WaitStatus::Signaled(_, signal, _) => Some(format!("was killed by {signal}")),
                other => Some(format!("ended: {other:?}")),
            })
        }
    }
}

/// Loads an app's launch record, in the pod's root.
pub(super) fn load_record(app: &AcName) -> Result<LaunchRecord> {
    let (dir, name) = layout::in_pod_launch_record(app);
    LaunchRecord::load(sys::dir::open_dir(dir)?, name)
}
