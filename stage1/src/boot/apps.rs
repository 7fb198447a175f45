//! The apps of an immutable pod. They are started when its supervisor is ready; the pod is ended with the first app
//! that fails, or with the last one that ends. Host side, part of the monitor.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::app::{self, Addition};
use crate::appc::{self, AFTER, AcName, After, RuntimeApp};
use crate::cli;
use crate::confine::insecure::InsecureOptions;
use crate::cross::Target;
use crate::error::{Context, Error, Result, exit};
use crate::layout;
use crate::pod::{self, Pod, State};
use crate::sys::process::{self, Fork};
use crate::sys::signal;
use crate::uid_range::UidRange;

/// How far the start of the apps has come.
#[derive(Debug)]
enum Step {
    /// The supervisor is not ready yet.
    Booting,
    /// This child process adds and starts them.
    Starting(Pid),
    /// That child has ended.
    Started,
}

/// The apps of an immutable pod.
#[derive(Debug)]
pub struct Apps {
    names: Vec<AcName>,
    /// The same names in the order of their start: each after those that it waits for.
    order: Vec<AcName>,
    private_users: Option<UidRange>,
    watch: OwnedFd,
    step: Step,
    verdict: Option<u8>,
}

impl Apps {
    /// The apps of the pod in the current directory, with an inotify(7) watch on their status files.
    ///
    /// # Errors
    /// The pod has no app, an app's list of apps to wait for is not valid, or the status files can't be watched.
    pub(super) fn new(pod: &Pod, private_users: Option<UidRange>) -> Result<Self> {
        let names: Vec<AcName> = pod.manifest.apps.iter().map(|app| app.name.clone()).collect();
        if names.is_empty() {
            return Err(Error::new("an immutable pod needs at least one app, and its manifest lists none"));
        }
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context(|| "inotify_init")?;
        let status = layout::status_dir();
        let places = [Some(status.as_path()), status.parent()];
        for place in places.into_iter().flatten() {
            inotify::add_watch(&watch, place, WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::CLOSE_WRITE)
                .context(|| format!("inotify_add_watch({place:?})"))?;
        }
        let after = |app: &RuntimeApp| {
            let after = appc::find(&app.annotations, AFTER).map(After::parse_all).transpose();
            after.map(|after| (app.name.clone(), after.unwrap_or_default())).context(|| format!("app {}", app.name))
        };
        let order = appc::in_order(&pod.manifest.apps.iter().map(after).collect::<Result<Vec<_>>>()?)?;
        Ok(Self { names, order, private_users, watch, step: Step::Booting, verdict: None })
    }

    /// The descriptor of the watch, readable when a status file has changed.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }

    /// The pod's exit code once it is decided: that of the first app that failed, or 0.
    pub(super) fn verdict(&self) -> Option<u8> {
        self.verdict
    }

    /// Reads the status files, and starts the apps when the pod is ready. Returns whether the pod is to be ended now.
    pub(super) fn look(&mut self, pid1: i32) -> Result<bool> {
        self.drain()?;
        if matches!(self.step, Step::Booting) && pod::is_ready(Path::new("."))? {
            self.step = Step::Starting(self.start(pid1)?);
        }
        if matches!(self.step, Step::Booting) || self.verdict.is_some() {
            return Ok(false);
        }
        let ended = self.ended()?;
        let all = ended.len() == self.names.len();
        self.verdict = first_failure(&ended).or(all.then_some(0));
        if self.verdict.is_some() {
            self.stop_starting()?;
        }
        Ok(self.verdict.is_some())
    }

    /// Kills the child that starts the apps, if it still runs: the pod is being ended.
    fn stop_starting(&self) -> Result<()> {
        match self.step {
            Step::Starting(starter) => match kill(starter, Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
                Err(errno) => Err(errno).context(|| format!("kill({starter})")),
            },
            _ => Ok(()),
        }
    }

    /// The exit codes of the apps that have ended.
    fn ended(&self) -> Result<Vec<u8>> {
        let code = |name| {
            let status = pod::app_status(Path::new("."), State::Running, false, name)?;
            let never_ran = status.details.is_some_and(|details| details.start_failure.is_some());
            // An app that exits with 254 keeps that code; only the code of a start error is replaced.
            Ok(status.exit_code.map(|code| if never_ran && code == exit::SETUP { cli::own_failure() } else { code }))
        };
        self.names.iter().filter_map(|name| code(name).transpose()).collect()
    }

    /// Handles the end of a child process. Returns whether the pod is to be ended now, because its apps could not be
    /// started.
    pub(super) fn reaped(&mut self, status: WaitStatus) -> Result<bool> {
        match self.step {
            Step::Starting(starter) if status.pid() == Some(starter) => {
                self.step = Step::Started;
                if matches!(status, WaitStatus::Exited(_, 0)) || self.verdict.is_some() {
                    return Ok(false);
                }
                // The status of an app that could not be started is written before the child ends.
                self.verdict = first_failure(&self.ended()?).or_else(|| Some(cli::own_failure()));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Reads and drops all events: only their arrival matters.
    pub(super) fn drain(&self) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut reader = inotify::Reader::new(&self.watch, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
                Err(errno) => return Err(errno).context(|| "read(inotify)"),
            }
        }
    }

    /// Adds and starts all apps in a child process, so that the monitor does not block.
    fn start(&self, pid1: i32) -> Result<Pid> {
        // If the child is killed, what it leaves in the pod is reaped here at once: at its end systemd waits for that.
        process::adopt_orphans()?;
        match process::fork()? {
            Fork::Parent(child) => Ok(child),
            Fork::Child => {
                let done =
                    process::die_with_parent().and_then(|()| signal::reset()).and_then(|()| self.start_all(pid1));
                if let Err(error) = &done {
                    eprintln!("run: {}", error.one_line());
                }
                process::exit_now(i32::from(done.is_err()))
            }
        }
    }

    fn start_all(&self, pid1: i32) -> Result<()> {
        let target = Target::open(pid1)?;
        for name in &self.names {
            let insecure = InsecureOptions::default();
            let addition = Addition { app: name.clone(), insecure, private_users: self.private_users };
            addition.add(&target).context(|| format!("app {name}"))?;
        }
        self.order.iter().try_for_each(|name| app::start(&target, name))
    }
}

fn first_failure(codes: &[u8]) -> Option<u8> {
    codes.iter().copied().find(|code| *code != 0)
}
