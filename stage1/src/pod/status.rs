//! An app's state, from the status files that host and pod write. The pod can write to their directory, so no symlink
//! is followed, and only regular files of a bounded size are read. Host side.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, OFlags};

use super::exit_details::{ExitDetails, MAX_DETAILS};
use super::files::read_beneath;
use super::health::{Health, MAX_HEALTH};
use super::phase::State;
use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::dir;

/// Target of the symbolic link that a pod makes when it takes apps.
pub(super) const READY: &str = "ready";
/// Maximum size of an exit status file, in bytes: three digits, a newline, and some more.
const MAX_STATUS: u64 = 16;
/// Exit code of an app whose status file is not valid.
const UNREADABLE: u8 = 1;

/// An app's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppState {
    /// The app is not, or not completely, added.
    Unknown,
    /// The app was added, and not started yet.
    Created,
    /// The app was started.
    Running,
    /// The app has ended.
    Exited,
}

impl AppState {
    /// Its name in the output of host managers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
        }
    }
}

/// An app's state, and its times in nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppStatus {
    /// Its state.
    pub state: AppState,
    /// Time at which it was added.
    pub created_at: Option<i64>,
    /// Time at which it was last started.
    pub started_at: Option<i64>,
    /// Time at which it ended.
    pub finished_at: Option<i64>,
    /// Its exit status, or 128 + signal.
    pub exit_code: Option<u8>,
    /// Details of its end; of a running app that its restart policy has started again, details of its last end.
    pub details: Option<ExitDetails>,
    /// The results of the health checks of a running app.
    pub health: Option<Health>,
    /// Time at which `details` were written.
    pub details_at: Option<i64>,
}

/// Whether the pod in the directory `pod` takes apps.
///
/// # Errors
/// The symbolic link that says so exists and can't be read.
pub fn is_ready(pod: &Path) -> Result<bool> {
    let link = layout::supervisor_status();
    match read_rkt(pod)? {
        None => Ok(false),
        Some(rkt) => match rustix::fs::readlinkat(&rkt, link.file_name().unwrap_or_default(), Vec::new()) {
            Ok(target) => Ok(target.as_bytes() == READY.as_bytes()),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(false),
            Err(errno) => Err(errno).context(|| format!("readlink {link:?}")),
        },
    }
}

/// The status of `app` in the pod in the directory `pod`, whose state is `state`. CONTRACT section 1. Status files with
/// an invalid content are logged, and do not fail.
///
/// # Errors
/// The pod directory or a status file exists and can't be opened.
pub fn app_status(pod: &Path, state: State, mutable: bool, app: &AcName) -> Result<AppStatus> {
    let read = || -> Result<AppStatus> {
        let times = PodTimes::read(pod, state)?;
        let mut status = compute(state, mutable, times, Markers::read(pod, app)?);
        let counts = |details: &ExitDetails| match (status.exit_code, status.state) {
            (Some(code), _) => details.exit_code == code,
            (None, AppState::Running) => details.restarts > 0,
            _ => false,
        };
        if let Some((details, at)) = exit_details(pod, app)?.filter(|(details, _)| counts(details)) {
            (status.details, status.details_at) = (Some(details), Some(at));
        }
        if status.state == AppState::Running {
            status.health = health(pod, app)?;
        }
        Ok(status)
    };
    read().context(|| format!("status of app {app}"))
}

/// The status files of an app.
#[derive(Clone, Copy, Debug, Default)]
struct Markers {
    created: Option<i64>,
    started: Option<i64>,
    /// The exit code, and the time at which it was written.
    exited: Option<(u8, i64)>,
}

impl Markers {
    fn read(pod: &Path, app: &AcName) -> Result<Self> {
        let Some(rkt) = read_rkt(pod)? else { return Ok(Self::default()) };
        let Some(dir) = open_dir_beneath(&rkt, "status")? else { return Ok(Self::default()) };
        Ok(Self {
            created: modified(&dir, &layout::created_marker(app))?,
            started: modified(&dir, &layout::started_marker(app))?,
            exited: exit_status(&dir, app)?,
        })
    }
}

/// The times of a pod, in nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default)]
struct PodTimes {
    created: Option<i64>,
    started: Option<i64>,
    /// Time at which it was marked for deletion.
    marked: Option<i64>,
}

impl PodTimes {
    fn read(pod: &Path, state: State) -> Result<Self> {
        let dir = dir::open_dir(pod)?;
        let is_marked = matches!(state, State::ExitedGarbage | State::Garbage | State::Deleting);
        let started = match modified(&dir, layout::PID)? {
            None => modified(&dir, layout::PPID)?,
            pid => pid,
        };
        Ok(Self {
            created: modified(&dir, layout::CREATED)?,
            started,
            marked: if is_marked { Some(changed(&dir)?) } else { None },
        })
    }
}

fn compute(pod: State, mutable: bool, times: PodTimes, app: Markers) -> AppStatus {
    let mut status = if mutable { of_mutable(app) } else { of_immutable(pod, times, app) };
    let after_run = matches!(pod, State::Exited | State::ExitedGarbage | State::Garbage | State::Deleting);
    if after_run && status.state != AppState::Exited {
        // It ended with the pod, before its exit status was written.
        status.state = AppState::Exited;
        status.finished_at = times.marked;
    }
    status
}

/// A marker counts only if the earlier ones exist.
fn of_mutable(app: Markers) -> AppStatus {
    let started = app.created.and(app.started);
    let exited = started.and(app.exited);
    AppStatus {
        state: match (app.created, started, exited) {
            (None, ..) => AppState::Unknown,
            (_, None, _) => AppState::Created,
            (_, _, None) => AppState::Running,
            _ => AppState::Exited,
        },
        created_at: app.created,
        started_at: started,
        finished_at: exited.map(|(_, at)| at),
        exit_code: exited.map(|(code, _)| code),
        details: None,
        details_at: None,
        health: None,
    }
}

/// An app without an exit status has the state of its pod.
fn of_immutable(pod: State, times: PodTimes, app: Markers) -> AppStatus {
    AppStatus {
        state: match pod {
            _ if app.exited.is_some() => AppState::Exited,
            State::Running => AppState::Running,
            _ => AppState::Created,
        },
        created_at: times.created,
        started_at: times.started,
        finished_at: app.exited.map(|(_, at)| at),
        exit_code: app.exited.map(|(code, _)| code),
        details: None,
        details_at: None,
        health: None,
    }
}

/// Opens the directory /rkt of the pod: in its root while that is mounted, otherwise in the overlay's upper directory.
fn read_rkt(pod: &Path) -> Result<Option<OwnedFd>> {
    let pod_dir = dir::open_dir(pod)?;
    let through_root = format!("{}/rkt", layout::STAGE1_ROOTFS);
    if let Some(rkt) = open_dir_beneath(&pod_dir, &through_root)?
        && open_dir_beneath(&rkt, "status")?.is_some()
    {
        return Ok(Some(rkt));
    }
    match read_beneath(&pod_dir, layout::STAGE1_TREE, 4096)? {
        None => Ok(None),
        Some(id) => {
            let id = String::from_utf8_lossy(&id);
            let id = id.trim_end();
            if id.is_empty() || id.contains('/') || id.starts_with('.') {
                return Ok(None);
            }
            open_dir_beneath(&pod_dir, layout::overlay_upper(id, None).join("rkt"))
        }
    }
}

fn open_dir_beneath(base: &OwnedFd, path: impl AsRef<Path>) -> Result<Option<OwnedFd>> {
    match dir::open_beneath(base, path, OFlags::PATH | OFlags::DIRECTORY) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn modified(dir: &OwnedFd, name: &str) -> Result<Option<i64>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
            Ok(Some(nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64)))
        }
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).context(|| format!("stat {name:?}")),
    }
}

/// The ctime of the pod directory, which its move to a garbage directory sets.
fn changed(pod: &OwnedFd) -> Result<i64> {
    let stat = rustix::fs::fstat(pod).context(|| "stat of the pod's directory")?;
    Ok(nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64))
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn exit_status(dir: &OwnedFd, app: &AcName) -> Result<Option<(u8, i64)>> {
    let name = app.as_ref();
    let at = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno).context(|| format!("stat {name:?}")),
    };
    let code = match read_beneath(dir, name, MAX_STATUS) {
        Ok(None) => return Ok(None),
        Ok(Some(text)) => parse_exit_code(&text).unwrap_or_else(|| {
            log::warn!("exit status of app {app}: {:?} is not a number from 0 to 255", String::from_utf8_lossy(&text));
            UNREADABLE
        }),
        Err(error) => {
            log::warn!("exit status of app {app}: {}", error.one_line());
            UNREADABLE
        }
    };
    Ok(Some((code, at)))
}

/// The details of the app's end, with their mtime. Invalid details are logged and left out.
fn exit_details(pod: &Path, app: &AcName) -> Result<Option<(ExitDetails, i64)>> {
    let Some(rkt) = read_rkt(pod)? else { return Ok(None) };
    let Some(dir) = open_dir_beneath(&rkt, "status")? else { return Ok(None) };
    let name = layout::exit_details(app);
    let read = || match (read_beneath(&dir, &name, MAX_DETAILS)?, modified(&dir, &name)?) {
        (Some(text), Some(at)) => Ok(Some((ExitDetails::parse(&text)?, at))),
        _ => Ok(None),
    };
    Ok(read().unwrap_or_else(|error: Error| {
        log::warn!("details of the end of app {app}: {}", error.one_line());
        None
    }))
}

/// The results of the app's health checks. Invalid ones are logged and left out.
fn health(pod: &Path, app: &AcName) -> Result<Option<Health>> {
    let Some(rkt) = read_rkt(pod)? else { return Ok(None) };
    let Some(dir) = open_dir_beneath(&rkt, "status")? else { return Ok(None) };
    let read = || match read_beneath(&dir, &layout::health(app), MAX_HEALTH)? {
        Some(text) => Health::parse(&text).map(Some),
        None => Ok(None),
    };
    Ok(read().unwrap_or_else(|error: Error| {
        log::warn!("health of app {app}: {}", error.one_line());
        None
    }))
}

/// Parses a decimal number from 0 to 255 and at most one newline.
fn parse_exit_code(text: &[u8]) -> Option<u8> {
    let digits = text.strip_suffix(b"\n").unwrap_or(text);
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn pod() -> tempfile::TempDir {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("stage1/rootfs/rkt/status")).unwrap();
        tmp
    }

    fn status(pod: &Path, state: State) -> AppStatus {
        app_status(pod, state, true, &"a".parse().unwrap()).unwrap()
    }

    #[test]
    fn a_mutable_pods_app() {
        let tmp = pod();
        let file =
            |name: &str, text: &str| fs::write(tmp.path().join("stage1/rootfs/rkt/status").join(name), text).unwrap();
        assert_eq!(status(tmp.path(), State::Running).state, AppState::Unknown);
        file("a-created", "");
        assert_eq!(status(tmp.path(), State::Running).state, AppState::Created);
        file("a-started", "");
        assert_eq!(status(tmp.path(), State::Running).state, AppState::Running);
        assert_eq!(status(tmp.path(), State::Exited).state, AppState::Exited);
        assert!(status(tmp.path(), State::ExitedGarbage).finished_at.is_some());
        for (text, code) in [("7\n", 7), ("255\n", 255), ("", 1), ("x", 1), ("999\n", 1)] {
            file("a", text);
            let status = status(tmp.path(), State::Running);
            assert_eq!((status.state, status.exit_code), (AppState::Exited, Some(code)), "{text:?}");
        }
    }

    #[test]
    fn an_immutable_pods_app_follows_the_pod() {
        let tmp = pod();
        let state = |state| app_status(tmp.path(), state, false, &"a".parse().unwrap()).unwrap().state;
        assert_eq!(state(State::Prepared), AppState::Created);
        assert_eq!(state(State::Running), AppState::Running);
        assert_eq!(state(State::Exited), AppState::Exited);
        fs::write(tmp.path().join("stage1/rootfs/rkt/status/a"), "0\n").unwrap();
        assert_eq!(state(State::Running), AppState::Exited);
    }

    #[test]
    fn what_the_pod_planted_is_not_followed() {
        let tmp = pod();
        let dir = tmp.path().join("stage1/rootfs/rkt/status");
        fs::write(tmp.path().join("secret"), "7\n").unwrap();
        fs::write(dir.join("a-created"), "").unwrap();
        fs::write(dir.join("a-started"), "").unwrap();
        symlink(tmp.path().join("secret"), dir.join("a")).unwrap();
        assert_eq!(status(tmp.path(), State::Running).exit_code, Some(1));
        let rkt = tmp.path().join("stage1/rootfs/rkt");
        assert!(!is_ready(tmp.path()).unwrap());
        symlink("/etc/passwd", rkt.join("supervisor-status")).unwrap();
        assert!(!is_ready(tmp.path()).unwrap());
        fs::remove_file(rkt.join("supervisor-status")).unwrap();
        symlink("ready", rkt.join("supervisor-status")).unwrap();
        assert!(is_ready(tmp.path()).unwrap());
        fs::remove_dir_all(&rkt).unwrap();
        symlink("/etc", &rkt).unwrap();
        assert_eq!(status(tmp.path(), State::Running).state, AppState::Unknown);
    }

    #[test]
    fn after_the_mounts_are_gone_the_overlay_tells() {
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("stage1TreeStoreID"), "deps-sha512-0\n").unwrap();
        fs::create_dir_all(tmp.path().join("stage1/rootfs")).unwrap();
        let dir = tmp.path().join("overlay/deps-sha512-0/upper/rkt/status");
        fs::create_dir_all(&dir).unwrap();
        for name in ["a-created", "a-started"] {
            fs::write(dir.join(name), "").unwrap();
        }
        fs::write(dir.join("a"), "3\n").unwrap();
        assert_eq!(status(tmp.path(), State::Exited).exit_code, Some(3));
    }

    #[test]
    fn every_state_of_a_mutable_pods_app() {
        let none = Markers::default();
        let created = Markers { created: Some(3), ..none };
        let started = Markers { started: Some(4), ..created };
        let exited = Markers { exited: Some((7, 5)), ..started };
        // The state that a start leaves if it is killed after it has removed the marker.
        let restarting = Markers { started: None, ..exited };
        let times = PodTimes { created: Some(1), started: Some(2), marked: Some(9) };
        let summary = |pod: State, app: Markers| {
            let AppStatus { state, created_at, started_at, finished_at, exit_code, .. } =
                compute(pod, true, times, app);
            (state, created_at, started_at, finished_at, exit_code)
        };
        use AppState as S;
        assert_eq!(summary(State::Running, none), (S::Unknown, None, None, None, None));
        assert_eq!(
            summary(State::Running, Markers { created: None, ..exited }),
            (S::Unknown, None, None, None, None),
            "files of an earlier app of the same name"
        );
        assert_eq!(summary(State::Running, created), (S::Created, Some(3), None, None, None));
        assert_eq!(summary(State::Running, started), (S::Running, Some(3), Some(4), None, None));
        assert_eq!(summary(State::Running, exited), (S::Exited, Some(3), Some(4), Some(5), Some(7)));
        assert_eq!(summary(State::Running, restarting), (S::Created, Some(3), None, None, None));
        for pod in [State::Exited, State::ExitedGarbage, State::Garbage, State::Deleting] {
            assert_eq!(summary(pod, none), (S::Exited, None, None, Some(9), None));
            assert_eq!(summary(pod, started), (S::Exited, Some(3), Some(4), Some(9), None));
            assert_eq!(summary(pod, exited), (S::Exited, Some(3), Some(4), Some(5), Some(7)));
        }
    }

    #[test]
    fn times_of_an_immutable_pods_app_are_the_pods() {
        let tmp = pod();
        fs::write(tmp.path().join("pod-created"), "").unwrap();
        fs::write(tmp.path().join("ppid"), "1\n").unwrap();
        let read = |state| app_status(tmp.path(), state, false, &"a".parse().unwrap()).unwrap();
        let running = read(State::Running);
        assert!(running.created_at.is_some() && running.started_at >= running.created_at);
        assert_eq!((running.finished_at, read(State::Exited).finished_at), (None, None));
        assert!(read(State::ExitedGarbage).finished_at.is_some());
        fs::write(tmp.path().join("stage1/rootfs/rkt/status/a"), "0\n").unwrap();
        let exited = read(State::Running);
        assert_eq!((exited.state, exited.exit_code), (AppState::Exited, Some(0)));
        assert!(exited.finished_at >= exited.created_at);
    }

    #[test]
    fn hostile_status_files_count_as_one() {
        let tmp = pod();
        let dir = tmp.path().join("stage1/rootfs/rkt/status");
        let file = dir.join("a");
        for marker in ["a-created", "a-started"] {
            fs::write(dir.join(marker), "").unwrap();
        }
        let makers: [&dyn Fn(); 4] = [
            &|| symlink("/nowhere", &file).unwrap(),
            &|| rustix::fs::mknodat(rustix::fs::CWD, &file, FileType::Fifo, 0o666.into(), 0).unwrap(),
            &|| fs::write(&file, "0".repeat(1 << 20)).unwrap(),
            &|| fs::write(&file, "+7\n").unwrap(),
        ];
        for make in makers {
            make();
            let status = status(tmp.path(), State::Running);
            assert_eq!((status.state, status.exit_code), (AppState::Exited, Some(1)));
            fs::remove_file(&file).unwrap();
        }
        assert_eq!(status(tmp.path(), State::Running).state, AppState::Running);
    }

    proptest! {
        #[test]
        fn exit_codes(content in proptest::collection::vec(any::<u8>(), 0..6), code in any::<u8>()) {
            prop_assert_eq!(parse_exit_code(format!("{code}\n").as_bytes()), Some(code));
            if let Some(code) = parse_exit_code(&content) {
                let text = String::from_utf8(content).unwrap();
                prop_assert_eq!(text.trim_end_matches('\n').parse::<u8>(), Ok(code));
            }
        }
    }
}
