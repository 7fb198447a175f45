//! Running a command in a pod or in one of its apps, confined as the app is. Host side, in the pod directory.
//!
//! The command is a child of this process, forked in the pod's namespaces ([`crossing`]), and leads a session of its
//! own. It gets the app's cgroup (or, if the app does not run, one with the same limits: [`scope`]), namespaces, root
//! and confinement. Of the caller it gets only the standard descriptors that are not terminals ([`wiring`]). This
//! process stays outside and relays for it ([`accompany`]).

mod accompany;
mod copier;
mod crossing;
mod end_of_input;
mod scope;
mod wiring;

use std::convert::Infallible;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::fs::{FileType, OFlags};

pub(super) use self::crossing::{Born, Tie, cross_without_streams};
use self::wiring::{Inside, Wiring};
use super::bounding_set;
use super::exec::load_record;
use super::pid_namespace::{First, join_root, may_be_on_host, recorded};
use crate::appc::{AcName, PidNamespace};
use crate::cgroup::{PodCgroup, Running};
use crate::confine::caps::CapSet;
use crate::confine::ids::{self, Ids};
use crate::confine::{self, Confinement};
use crate::cross::Target;
use crate::error::{Context, Error, Result};
use crate::launch::{self, Command, LaunchRecord, env, find};
use crate::rootfs::renew_proc;
use crate::sys::dir;
use crate::sys::process;
use crate::sys::process_attributes::ResourceLimits;
use crate::{inherited, layout, unit};

pub use wiring::Tty;

/// The arguments of `enter`.
#[derive(Debug, Default)]
pub struct Entry {
    /// PID of the pod's PID 1, host view.
    pub pid: i32,
    /// The app to enter; the pod itself if `None`.
    pub app: Option<AcName>,
    /// Command and arguments.
    pub command: Vec<String>,
    /// The user: a number, a name in the image's /etc/passwd, or a path in the image, whose owner is taken. UID 0 if
    /// `None`.
    pub user: Option<String>,
    /// The group, in the same forms. If `None`: the app's groups if the user is the app's, the group of the path if the
    /// user is a path, else those of [`ids::groups_of`].
    pub group: Option<String>,
    /// Variables as `NAME=value`; they override those of the app.
    pub environment: Vec<String>,
    /// The working directory, an absolute path; the app's if `None`.
    pub working_directory: Option<String>,
    /// All capabilities, no seccomp filter, no no_new_privs.
    pub privileged: bool,
    /// Whether the command gets a terminal.
    pub tty: Tty,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(u8),
    /// This signal killed it.
    Killed(Signal),
}

/// Runs the command and waits for its end. When the command is stopped or continued, so is this process.
///
/// # Errors
/// The command can't be run for a reason found on the host side. The child itself reports later errors, on one line,
/// and exits with a code of [`crate::error::exit`].
pub fn enter(entry: &Entry) -> Result<Ended> {
    entry.check()?;
    process::not_dumpable()?;
    let target = Target::open(entry.pid)?;
    let cgroup = PodCgroup::recorded(Path::new("."))?;
    let signals = accompany::block_signals()?;
    let Wiring { inside, outside } = Wiring::new(entry.tty)?;
    let cgroups = Cgroups {
        pod: &cgroup,
        target: &target,
        app: entry.app.as_ref().map_or(Ok(None), |app| cgroup.running(&layout::app_cgroup(app)))?,
    };
    let (on_host, first) = match &entry.app {
        Some(app) => {
            let namespace = recorded(app)?;
            let on_host = namespace == PidNamespace::Host && may_be_on_host(app)?;
            (on_host, First::of(&cgroup, target.pid(), app, &namespace)?)
        }
        None => (false, None),
    };
    // systemd has set the limits of a running app.
    let limits = cgroups.app.as_ref().map_or(Ok(None), |running| ResourceLimits::of(running.pid()))?;
    // The limits for a scope; needed only if the app does not run.
    let scope = entry.app.as_ref().map(unit::installed_limits);
    // A process that may trace the command before it is confined may trace PID 1 too: the command has no more than PID
    // 1.
    let most = if entry.app.is_some() && !entry.privileged { Some(bounding_set(&target)?) } else { None };
    let main = first.as_ref().map(First::in_pod);
    let join = || {
        inherited::leave_caller()?;
        limits.map_or(Ok(()), |limits| limits.take())?;
        match on_host {
            true => target.join_all_but_pid()?,
            false => target.join()?,
        }
        first.as_ref().map_or(Ok(()), First::join)?;
        most.map_or(Ok(()), confine::limit_capabilities)
    };
    let mut born = crossing::cross(inside, join, |tie, inside| entry.become_command(tie, scope, main, inside))?;
    match cgroups.admit(born.pid) {
        Ok(in_app) => born.go(in_app)?,
        // The child ends: this process does not release it.
        Err(error) => return born.failure()?.map_or(Err(error), Err),
    }
    let ended = accompany::accompany(born.pid, &signals, outside)?;
    born.failure()?.map_or(Ok(ended), Err)
}

/// The cgroups that a command may run in: the app's if it runs, else a scope of its own below the pod's.
struct Cgroups<'a> {
    pod: &'a PodCgroup,
    target: &'a Target,
    app: Option<Running>,
}

impl Cgroups<'_> {
    /// Moves a process there. Returns whether it is in the app's cgroup.
    fn admit(&self, pid: Pid) -> Result<bool> {
        if self.app.as_ref().map_or(Ok(false), |app| app.admit(pid))? {
            return Ok(true);
        }
        let pid1 = self.pod.running_pid1(self.target.pid(), self.target.duplicate()?)?;
        if pid1.admit(pid)? { Ok(false) } else { Err(Error::new("the pod has ended")) }
    }
}

/// The properties of a scope for the app, or the reason why it can't be made.
type Scope = Option<Result<Vec<(&'static str, crate::systemd::Value)>>>;

impl Entry {
    fn check(&self) -> Result<()> {
        if self.command.is_empty() {
            return Err(Error::new("no command: write it after --, e.g. -- /bin/sh"));
        }
        if let Some(other) = self.working_directory.as_ref().filter(|dir| !dir.starts_with('/')) {
            return Err(Error::new(format!("--workdir {other:?}: not an absolute path")));
        }
        self.variables().try_for_each(|variable| variable.map(drop))
    }

    fn variables(&self) -> impl Iterator<Item = Result<(&str, &str)>> {
        self.environment.iter().map(|variable| match variable.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name, value)),
            _ => Err(Error::new(format!("--env {variable:?}: not of the form NAME=value"))),
        })
    }

    /// Becomes the command: session, cgroup, the app's root, its confinement, execve(2). Pod side.
    fn become_command(&self, tie: &mut Tie, scope: Scope, main: Option<i32>, inside: Inside) -> Result<Infallible> {
        process::new_session()?;
        // Meanwhile the parent moves this process to its cgroup.
        let app = self.app.as_ref().map(EnteredApp::load).transpose()?;
        let in_app = tie.wait()?;
        let mut place = match app {
            Some(app) => {
                match scope {
                    Some(limits) if !in_app => scope::make(app.name, limits?)?,
                    _ => {}
                }
                CommandPlace::app(app, main)?
            }
            None => CommandPlace::pod(),
        };
        let ids = self.ids(place.app_ids.as_ref())?;
        self.adapt_environment(&mut place, &ids)?;
        let confinement = match self.privileged {
            true => unconfined(&ids),
            false => place.confinement.with_ids(&ids),
        };
        inside.connect(confinement.uid)?;
        launch::exec(
            &confinement,
            &Command {
                argv: &self.command,
                environment: &place.environment,
                search_path: &place.search_path,
                working_directory: self.working_directory.as_deref().unwrap_or(&place.working_directory),
                parent: Some(tie.parent()),
            },
        )
    }

    /// The user and groups of the command, from the files of its root. Pod side.
    fn ids(&self, app: Option<&Ids>) -> Result<Ids> {
        if self.user.is_none() && self.group.is_none() {
            return Ok(Ids::default());
        }
        let root = dir::open_dir("/")?;
        let user = self.user.as_deref().unwrap_or_default();
        let of_path = Some(user).filter(|user| user.starts_with('/'));
        let group = self.group.as_deref().or(of_path);
        let request = ids::UserRequest { user, group: group.unwrap_or_default(), ..ids::UserRequest::default() };
        let mut ids = ids::resolve(root.as_fd(), &request)?;
        match app.filter(|app| app.uid == ids.uid) {
            _ if self.group.is_some() => {}
            Some(app) => (ids.gid, ids.groups) = (app.gid, app.groups.clone()),
            None if of_path.is_some() => {}
            None => (ids.gid, ids.groups) = ids::groups_of(root.as_fd(), &ids)?,
        }
        Ok(ids)
    }

    /// The command's variables: the terminal type, those of another user than the app's, and those of the caller's
    /// options.
    fn adapt_environment(&self, place: &mut CommandPlace, ids: &Ids) -> Result<()> {
        env::set(&mut place.environment, "TERM", &env::callers_term());
        // The app's own user gets the app's environment.
        let is_apps = place.app_ids.as_ref().is_some_and(|app| app.uid == ids.uid);
        if self.user.is_some() && !is_apps {
            for (name, value) in env::of_account(ids) {
                env::set(&mut place.environment, name, &value);
            }
        }
        for variable in self.variables() {
            let (name, value) = variable?;
            env::set(&mut place.environment, name, value);
            if name == "PATH" {
                place.search_path = find::search_path(Some(value));
            }
        }
        Ok(())
    }
}

/// What is read about an app before it is joined.
struct EnteredApp<'a> {
    name: &'a AcName,
    record: LaunchRecord,
    environment: Vec<(String, String)>,
}

impl<'a> EnteredApp<'a> {
    /// In the pod's root.
    fn load(name: &'a AcName) -> Result<Self> {
        let mut record = load_record(name).context(|| format!("app {name} is not in this pod"))?;
        let recorded = std::mem::take(&mut record.environment);
        let environment = match env_file(name)? {
            Some(text) => env::of_file_and_record(&text, recorded),
            None => recorded,
        };
        Ok(Self { name, record, environment })
    }
}

/// What a command gets from the place where it runs. Making it moves this process into the command's root.
struct CommandPlace {
    confinement: Confinement,
    /// The app's variables.
    app_ids: Option<Ids>,
    environment: Vec<(String, String)>,
    search_path: Vec<String>,
    working_directory: String,
}

impl CommandPlace {
    /// Joins an app; this process is in the pod's namespaces.
    fn app(app: EnteredApp<'_>, main: Option<i32>) -> Result<Self> {
        let EnteredApp { name, record, environment } = app;
        join_root(name, main)?;
        if record.pid_namespace == PidNamespace::Host {
            renew_proc()?;
        }
        let confinement = record.confinement;
        Ok(Self {
            app_ids: Some(Ids {
                uid: confinement.uid,
                gid: confinement.gid,
                groups: confinement.groups.clone(),
                account: None,
            }),
            confinement,
            environment,
            search_path: record.search_path,
            working_directory: record.working_directory,
        })
    }

    /// Stays in the pod itself, which has no confinement besides its namespaces: its administrator enters it.
    fn pod() -> Self {
        Self {
            confinement: unconfined(&Ids::default()),
            app_ids: None,
            environment: vec![("PATH".to_owned(), layout::POD_PATH.to_owned())],
            search_path: find::search_path(Some(layout::POD_PATH)),
            working_directory: "/".to_owned(),
        }
    }
}

/// Reads the app's environment file, if it has one. In the pod's root.
fn env_file(app: &AcName) -> Result<Option<String>> {
    const MAX: u64 = 4 << 20;
    let what = || format!("environment file of app {app}");
    let dir = dir::open_dir(layout::IN_POD_ENV)?;
    let opened = dir::open_beneath(dir, app.as_ref() as &str, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY);
    let file = match opened {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
        other => other.context(what)?,
    };
    let stat = rustix::fs::fstat(&file).context(what)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::new(format!("{} is not a regular file", what())));
    }
    let mut text = String::new();
    std::fs::File::from(file).take(MAX + 1).read_to_string(&mut text).context(what)?;
    if text.len() as u64 > MAX {
        return Err(Error::new(format!("{} has more than {MAX} bytes", what())));
    }
    Ok(Some(text))
}

/// The user, group and supplementary groups of a process.
fn unconfined(ids: &Ids) -> Confinement {
    Confinement {
        uid: ids.uid,
        gid: ids.gid,
        groups: ids.groups.clone(),
        capabilities: CapSet::ALL,
        ambient: CapSet::EMPTY,
        no_new_privileges: false,
        can_gain_privileges: false,
        limits: Vec::new(),
        seccomp_flags: 0,
        seccomp: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry { command: vec!["/bin/true".to_owned()], ..Entry::default() }
    }

    #[test]
    fn what_is_asked_for_is_checked_before_anything_is_done() {
        entry().check().unwrap();
        let env = |text: &str| Entry { environment: vec![text.to_owned()], ..entry() };
        env("A=").check().unwrap();
        env("A=b=c").check().unwrap();
        for (entry, words) in [
            (Entry::default(), "no command"),
            (env("A"), "--env \"A\""),
            (env("=b"), "--env \"=b\""),
            (Entry { working_directory: Some("srv".to_owned()), ..entry() }, "--workdir \"srv\""),
        ] {
            let error = entry.check().unwrap_err().one_line();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_environment_is_adapted_in_order() {
        let place = || CommandPlace {
            confinement: unconfined(&Ids::default()),
            app_ids: None,
            environment: vec![("HOME".to_owned(), "/of-app".to_owned()), ("A".to_owned(), "1".to_owned())],
            search_path: vec!["/bin".to_owned()],
            working_directory: "/".to_owned(),
        };
        let mut plain = place();
        entry().adapt_environment(&mut plain, &Ids::default()).unwrap();
        assert_eq!(env::get(&plain.environment, "HOME"), Some("/of-app"));
        assert!(env::get(&plain.environment, "TERM").is_some());
        assert_eq!(plain.search_path, ["/bin"]);

        let environment = ["A=2", "PATH=/x:", "USER=somebody"].map(str::to_owned).to_vec();
        let entry = Entry { user: Some("7".to_owned()), environment, ..entry() };
        let mut adapted = place();
        entry.adapt_environment(&mut adapted, &Ids { uid: 7, ..Ids::default() }).unwrap();
        for (name, value) in [("HOME", "/"), ("A", "2"), ("USER", "somebody"), ("LOGNAME", "7")] {
            assert_eq!(env::get(&adapted.environment, name), Some(value), "{name}");
        }
        assert_eq!(adapted.search_path, ["/x", "."]);

        let own = Ids { uid: 7, ..Ids::default() };
        let mut apps = CommandPlace { app_ids: Some(own.clone()), ..place() };
        let entry = Entry { environment: Vec::new(), ..entry };
        entry.adapt_environment(&mut apps, &own).unwrap();
        assert_eq!((env::get(&apps.environment, "HOME"), env::get(&apps.environment, "USER")), (Some("/of-app"), None));
    }
}
