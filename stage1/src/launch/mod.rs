//! The launch record: everything that is needed to start an app. It is computed on the host side when the app is added,
//! and used on the pod side at each start and by each command that enters the app.

pub mod env;
pub mod find;

use std::convert::Infallible;
use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{self, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::appc::{self, AcName, After, App, HealthCheck, PidNamespace};
use crate::confine::Confinement;
use crate::confine::ids::Ids;
use crate::error::{Context, Error, Result, exit};
use crate::layout;
use crate::pod::{Durable, replace};
use crate::streams::StreamModes;
use crate::sys;
use crate::unit::STOP_TIMEOUT;

/// Version of the records that are written, and the only one that is read.
const VERSION: u32 = 1;

/// Maximum size of a record, in bytes.
const MAX_RECORD: u64 = 4 << 20;

/// How an app is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchRecord {
    /// Version of the record's format.
    pub version: u32,
    /// Name of the app.
    pub app: AcName,
    /// Command and arguments.
    pub exec: Vec<String>,
    /// Commands that are run in the app, one after the other, before it is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_start: Vec<Vec<String>>,
    /// Commands that are run in the app after it has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_stop: Vec<Vec<String>>,
    /// Command to run in the app after its start; empty if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub post_start: Vec<String>,
    /// Command to run in the app before its stop signal; empty if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre_stop: Vec<String>,
    /// Directories in which a command without a slash is searched, perhaps relative to the working directory.
    pub search_path: Vec<String>,
    /// Working directory, an absolute path.
    pub working_directory: String,
    /// Time between its stop signal and the kill, as it declares; with zero a stop kills it at once.
    #[serde(default = "default_stop_timeout", skip_serializing_if = "is_default_stop_timeout")]
    pub stop_timeout: Duration,
    /// Names of the sockets that the supervisor passes to it, in their order: sd_listen_fds(3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sockets: Vec<AcName>,
    /// Its health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// The apps that it waits for before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<After>,
    /// PID namespace of its processes.
    #[serde(default, skip_serializing_if = "is_pods")]
    pub pid_namespace: PidNamespace,
    /// The modes of its standard streams.
    #[serde(default, skip_serializing_if = "StreamModes::are_usual")]
    pub streams: StreamModes,
    /// Its environment: names and values, each name once.
    pub environment: Vec<(String, String)>,
    /// Its ids and restrictions.
    pub confinement: Confinement,
}

/// What the verbs that start, stop and enter an app need of its [`LaunchRecord`] on the host side.
#[derive(Clone, Debug, Deserialize)]
pub struct LaunchOutline {
    version: u32,
    /// As [`LaunchRecord::stop_timeout`].
    #[serde(default = "default_stop_timeout")]
    pub stop_timeout: Duration,
    /// As [`LaunchRecord::after`].
    #[serde(default)]
    pub after: Vec<After>,
    /// As [`LaunchRecord::pid_namespace`].
    #[serde(default)]
    pub pid_namespace: PidNamespace,
}

impl LaunchOutline {
    /// Reads these fields of the record of `app`, and skips the others. Host side.
    ///
    /// # Errors
    /// As [`LaunchRecord::load`], but the skipped fields are not checked.
    pub fn load(app: &AcName) -> Result<Self> {
        let text = LaunchRecord::read(sys::dir::open_dir(layout::app_dir(app))?, layout::LAUNCH)?;
        let outline: Self = serde_json::from_slice(&text).context(|| format!("the launch record of app {app}"))?;
        check_version(outline.version)?;
        Ok(outline)
    }
}

fn check_version(version: u32) -> Result<()> {
    match version {
        VERSION => Ok(()),
        other => Err(Error::new(format!("it has version {other}, this program reads {VERSION}"))),
    }
}

impl LaunchRecord {
    /// Computes the record of the app `name` that is run as `app` says. `metadata_url` is the URL of the metadata
    /// service, if there is one. Host side. Pure.
    ///
    /// # Errors
    /// A command is empty or has a NUL byte, the working directory is not absolute, an event is unknown, or a variable
    /// is not valid. The message names it.
    pub fn compute(
        name: &AcName,
        app: &App,
        metadata_url: Option<&str>,
        ids: &Ids,
        confinement: Confinement,
    ) -> Result<Self> {
        let what = || format!("app \"{name}\"");
        check_command("exec", &app.exec).context(what)?;
        let working_directory = match app.working_directory.as_str() {
            "" => "/",
            absolute if absolute.starts_with('/') && !absolute.contains('\0') => absolute,
            other => return Err(Error::new(format!("{}: working directory {other:?} is not absolute", what()))),
        };
        Ok(Self {
            version: VERSION,
            app: name.clone(),
            exec: app.exec.clone(),
            pre_start: handlers(app, "pre-start").context(what)?,
            post_stop: handlers(app, "post-stop").context(what)?,
            post_start: Vec::new(),
            pre_stop: Vec::new(),
            search_path: find::search_path(appc::find(&app.environment, "PATH")),
            working_directory: working_directory.to_owned(),
            stop_timeout: STOP_TIMEOUT,
            sockets: Vec::new(),
            health: None,
            after: Vec::new(),
            pid_namespace: PidNamespace::default(),
            streams: StreamModes::default(),
            environment: env::compute(&app.environment, name, metadata_url, ids).context(what)?,
            confinement,
        })
    }

    /// Writes the record as `name` to `directory`, atomically and with mode 0600. Host side.
    ///
    /// It is not synced: after a power failure the pod does not run any more, and the record is not needed.
    ///
    /// # Errors
    /// The record is too large, or can't be written; then an old file stays.
    pub fn store(&self, directory: &OwnedFd, name: &str) -> Result<()> {
        let what = || format!("write launch record {name:?}");
        let text = serde_json::to_vec(self).context(what)?;
        if text.len() as u64 > MAX_RECORD {
            return Err(Error::new(format!("{}: it has more than {MAX_RECORD} bytes", what())));
        }
        let mode = Mode::RUSR | Mode::WUSR;
        replace(directory, name, &text, mode.as_raw_mode(), Durable::No).context(what)
    }

    /// Reads the record `name` in `directory`. Pod side.
    ///
    /// # Errors
    /// The file is missing, a symlink, not a regular file or too large, or the record is not valid or has another
    /// version.
    pub fn load(directory: impl AsFd, name: &str) -> Result<Self> {
        Self::parse(&Self::read(directory, name)?).context(|| format!("launch record {name:?}"))
    }

    fn read(directory: impl AsFd, name: &str) -> Result<Vec<u8>> {
        let what = || format!("launch record {name:?}");
        let fd = sys::dir::open_beneath(directory, name, OFlags::RDONLY | OFlags::NONBLOCK).context(what)?;
        let stat = fs::fstat(&fd).context(what)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new(format!("{} is not a regular file", what())));
        }
        let size = u64::try_from(stat.st_size).unwrap_or_default().min(MAX_RECORD);
        let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
        std::fs::File::from(fd).take(MAX_RECORD + 1).read_to_end(&mut text).context(what)?;
        if text.len() as u64 > MAX_RECORD {
            return Err(Error::new(format!("{} has more than {MAX_RECORD} bytes", what())));
        }
        Ok(text)
    }

    fn parse(text: &[u8]) -> Result<Self> {
        let record: Self = serde_json::from_slice(text).context(|| "not a valid launch record")?;
        check_version(record.version)?;
        Ok(record)
    }

    /// The app's own command.
    pub fn command(&self) -> Command<'_> {
        self.command_of(&self.exec)
    }

    /// Another command in the app, such as an event handler.
    pub fn command_of<'a>(&'a self, argv: &'a [String]) -> Command<'a> {
        Command {
            argv,
            environment: &self.environment,
            search_path: &self.search_path,
            working_directory: &self.working_directory,
            parent: None,
        }
    }
}

fn default_stop_timeout() -> Duration {
    STOP_TIMEOUT
}

fn is_pods(namespace: &PidNamespace) -> bool {
    *namespace == PidNamespace::Pod
}

fn is_default_stop_timeout(timeout: &Duration) -> bool {
    *timeout == STOP_TIMEOUT
}

/// The commands of the handlers of an event, in order.
fn handlers(app: &App, event: &str) -> Result<Vec<Vec<String>>> {
    let known = |name: &str| matches!(name, "pre-start" | "post-stop");
    if let Some(other) = app.event_handlers.iter().find(|handler| !known(&handler.name)) {
        return Err(Error::new(format!("event handler {:?} is neither pre-start nor post-stop", other.name)));
    }
    let commands = app.event_handlers.iter().filter(|handler| handler.name == event).map(|handler| &handler.exec);
    commands.map(|exec| check_command(event, exec).map(|()| exec.clone())).collect()
}

fn check_command(which: &str, argv: &[String]) -> Result<()> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(Error::new(format!("{which} is empty: nothing to run (--exec gives a command)")));
    }
    match argv.iter().find(|argument| argument.contains('\0')) {
        Some(argument) => Err(Error::new(format!("{which}: {argument:?} has a NUL byte"))),
        None => Ok(()),
    }
}

/// A command that is to be run in an app.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Command and arguments.
    pub argv: &'a [String],
    /// Its environment.
    pub environment: &'a [(String, String)],
    /// Directories in which a command without a slash is searched.
    pub search_path: &'a [String],
    /// Working directory, an absolute path.
    pub working_directory: &'a str,
    /// If the command is to be killed when the parent process ends: a descriptor that becomes readable, or closed, when
    /// the parent has ended.
    pub parent: Option<BorrowedFd<'a>>,
}

/// Executes `command` under `confinement`, in a process that is in the app's namespaces and root. The caller has made
/// all descriptors close-on-exec that the command is not to have. Pod side.
///
/// The command is searched as the app's user, but before the filter is loaded, so that the reason of a failure can be
/// found whatever the filter forbids.
///
/// # Errors
/// Always; the exit code is [`exit::SETUP`], [`exit::NOT_FOUND`] or [`exit::NOT_EXECUTABLE`].
pub fn exec(confinement: &Confinement, command: &Command<'_>) -> Result<Infallible> {
    exec_ready(confinement, command, || Ok(()))
}

/// As [`exec`]; calls `ready` when the command was found to be executable, before the filter is loaded.
///
/// # Errors
/// As [`exec`], and those of `ready`.
pub fn exec_ready(
    confinement: &Confinement,
    command: &Command<'_>,
    ready: impl FnOnce() -> Result<()>,
) -> Result<Infallible> {
    let prepared = (|| {
        let argv = command.argv.iter().map(|word| sys::dir::c_string(word.as_bytes())).collect::<Result<Vec<_>>>()?;
        let variable = |(name, value): &(String, String)| sys::dir::c_string(format!("{name}={value}").as_bytes());
        let environment = command.environment.iter().map(variable).collect::<Result<Vec<CString>>>()?;
        confinement.become_user()?;
        if let Some(parent) = command.parent {
            // Set again, because the change of user cleared it; the parent may have ended meanwhile.
            sys::process::die_with_parent()?;
            if sys::process::pidfd_wait_end(parent, Duration::ZERO)? {
                return Err(Error::new("the calling process has ended"));
            }
        }
        enter_directory(command.working_directory)?;
        Ok((argv, environment))
    })();
    let (argv, environment) = prepared.map_err(|error: Error| error.with_exit_code(exit::SETUP))?;
    let word = command.argv.first().context(|| "exec: no command").map_err(|e| e.with_exit_code(exit::SETUP))?;
    let path = find::find(word, command.search_path, confinement.seccomp.is_some())?;
    let file = sys::dir::c_string(path.as_os_str().as_encoded_bytes())?;
    ready().map_err(|error| error.with_exit_code(exit::SETUP))?;
    confinement.seal().map_err(|error| error.with_exit_code(exit::SETUP))?;
    sys::process::exec(&file, &argv, &environment).map_err(|error| find::exec_failure(&path, error))
}

/// Changes to the app's working directory, and checks that it is below the root: a working directory outside would be a
/// way out of the app.
fn enter_directory(directory: &str) -> Result<()> {
    let what = || format!("working directory {directory:?}");
    rustix::process::chdir(directory).context(|| format!("{}: chdir, in the app and as its user", what()))?;
    let here = rustix::process::getcwd(Vec::new()).context(|| format!("{}: getcwd", what()))?;
    // For a directory outside of the root getcwd(2) returns "(unreachable)/...".
    if !here.to_bytes().starts_with(b"/") {
        return Err(Error::new(format!("{} is outside the app's root", what())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appc::{EventHandler, Isolators, NameValue};
    use crate::confine::insecure::InsecureOptions;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    fn record(app: &App, metadata_url: Option<&str>) -> Result<LaunchRecord> {
        let ids = Ids { uid: 33, gid: 34, groups: vec![5], account: None };
        let insecure = InsecureOptions { disable_seccomp: true, ..InsecureOptions::default() };
        let confinement = Confinement::compute(&Isolators::default(), insecure, &ids).unwrap();
        LaunchRecord::compute(&"web".parse().unwrap(), app, metadata_url, &ids, confinement)
    }

    fn handler(name: &str, exec: &[&str]) -> EventHandler {
        EventHandler { name: name.into(), exec: strings(exec), other: serde_json::Map::new() }
    }

    #[test]
    fn golden() {
        let app = App {
            exec: strings(&["server", "--port=80", "%i $x ;"]),
            event_handlers: vec![handler("pre-start", &["/prepare", "now"])],
            working_directory: "/srv".into(),
            environment: vec![NameValue::new("PATH", "/opt/bin:bin"), NameValue::new("GREETING", "a \"b\" = c")],
            ..App::default()
        };
        let record = record(&app, Some("http://10.0.0.1:18112/token")).unwrap();
        let text = serde_json::to_string_pretty(&record).unwrap() + "\n";
        assert_eq!(text, include_str!("golden.json"));
        assert_eq!(LaunchRecord::parse(text.as_bytes()).unwrap(), record);
    }

    #[test]
    fn declarations_that_can_not_start() {
        let ok = || App { exec: strings(&["/bin/true"]), ..App::default() };
        record(&ok(), None).unwrap();
        for (app, words) in [
            (App::default(), "exec is empty"),
            (App { exec: strings(&[""]), ..ok() }, "exec is empty"),
            (App { exec: strings(&["a", "b\0c"]), ..ok() }, "NUL"),
            (App { event_handlers: vec![handler("post-stop", &[])], ..ok() }, "post-stop is empty"),
            (App { event_handlers: vec![handler("pre-stop", &["a"])], ..ok() }, "\"pre-stop\""),
            (App { working_directory: "srv".into(), ..ok() }, "\"srv\" is not absolute"),
            (App { environment: vec![NameValue::new("A", "1\u{0}2")], ..ok() }, "\"A\""),
        ] {
            let error = record(&app, None).unwrap_err().one_line();
            assert!(error.contains(words) && error.contains("\"web\""), "{error}");
        }
    }

    #[test]
    fn stored_and_loaded() {
        use std::os::unix::fs::{MetadataExt, symlink};
        let record = record(&App { exec: strings(&["/bin/true"]), ..App::default() }, None).unwrap();
        let tmp = tempfile::tempdir().unwrap();
        let dir = sys::dir::open_dir(tmp.path()).unwrap();
        // An existing file is replaced, even a symlink that leads out.
        symlink("/etc/passwd", tmp.path().join("launch")).unwrap();
        record.store(&dir, "launch").unwrap();
        record.store(&dir, "launch").unwrap();
        assert_eq!(LaunchRecord::load(&dir, "launch").unwrap(), record);
        assert_eq!(tmp.path().join("launch").metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(tmp.path().read_dir().unwrap().count(), 1);
        assert!(record.store(&dir, "missing/launch").is_err());

        symlink("launch", tmp.path().join("link")).unwrap();
        nix::unistd::mkfifo(&tmp.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::File::create(tmp.path().join("big")).unwrap().set_len(1 << 40).unwrap();
        let other = serde_json::to_string(&record).unwrap().replace("\"version\":1", "\"version\":2");
        std::fs::write(tmp.path().join("other"), other).unwrap();
        std::fs::write(tmp.path().join("junk"), "{").unwrap();
        for (name, words) in [
            ("link", "link"),
            ("fifo", "not a regular file"),
            ("big", "more than"),
            ("other", "version 2"),
            ("junk", "not a valid launch record"),
            ("nothing", "nothing"),
        ] {
            let error = LaunchRecord::load(&dir, name).unwrap_err().one_line();
            assert!(error.contains(words), "{error}");
        }
    }
}
