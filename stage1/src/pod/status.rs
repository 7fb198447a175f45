//! An app's state, from the marker files that host and pod write. The pod can write where these
//! lie: nothing is followed, nothing but bounded regular files is read.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, OFlags};

use super::files::read_beneath;
use super::phase::State;
use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::layout;
use crate::sys::dir;

/// Target of the link that says that a pod's supervisor is ready.
pub(super) const READY: &str = "ready";
/// What an exit status file holds at most: three digits, a sign, a newline, and some tolerance.
const MAX_STATUS: u64 = 16;
/// Exit code of an app whose status file can't be understood.
const UNREADABLE: u8 = 1;

/// What an app is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppState {
    /// Not added completely.
    Unknown,
    /// Added, not started yet.
    Created,
    /// Started.
    Running,
    /// Ended.
    Exited,
}

impl AppState {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited => "exited",
        }
    }
}

/// An app's state and times, in nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppStatus {
    /// State.
    pub state: AppState,
    /// When it was added.
    pub created_at: Option<i64>,
    /// When it was last started.
    pub started_at: Option<i64>,
    /// When it ended.
    pub finished_at: Option<i64>,
    /// Its exit status, or 128 + signal.
    pub exit_code: Option<u8>,
}

/// Whether the supervisor of the pod in `pod` says that it is ready.
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

/// The state of `app` in the pod in `pod`, which is in `state`. CONTRACT section 1.
pub fn app_status(pod: &Path, state: State, mutable: bool, app: &AcName) -> Result<AppStatus> {
    let read = || -> Result<AppStatus> {
        let Some(rkt) = read_rkt(pod)? else { return Ok(from_markers(state, mutable, Markers::default(), None)) };
        let Some(dir) = open_dir_beneath(&rkt, "status")? else {
            return Ok(from_markers(state, mutable, Markers::default(), None));
        };
        let markers = Markers {
            created: modified(&dir, &format!("{app}-created"))?,
            started: modified(&dir, &format!("{app}-started"))?,
            exited: exit_status(&dir, app)?,
        };
        Ok(from_markers(state, mutable, markers, changed(pod)?))
    };
    read().context(|| format!("status of app {app}"))
}

#[derive(Clone, Copy, Debug, Default)]
struct Markers {
    created: Option<i64>,
    started: Option<i64>,
    /// Exit code and the time it was written.
    exited: Option<(u8, i64)>,
}

fn from_markers(pod: State, mutable: bool, markers: Markers, marked_at: Option<i64>) -> AppStatus {
    let pod_ended = matches!(pod, State::Exited | State::ExitedGarbage | State::Garbage | State::Deleting);
    let gone = matches!(pod, State::ExitedGarbage | State::Garbage | State::Deleting);
    let state = match markers {
        _ if !mutable && markers.exited.is_some() => AppState::Exited,
        _ if !mutable => match pod {
            State::Running => AppState::Running,
            _ if pod_ended => AppState::Exited,
            _ => AppState::Created,
        },
        Markers { created: None, .. } => AppState::Unknown,
        Markers { exited: Some(_), started: Some(_), .. } => AppState::Exited,
        _ if pod_ended => AppState::Exited,
        Markers { started: Some(_), .. } => AppState::Running,
        _ => AppState::Created,
    };
    let exited = markers.exited.filter(|_| state == AppState::Exited);
    AppStatus {
        state,
        created_at: markers.created,
        started_at: markers.started,
        finished_at: exited.map(|(_, at)| at).or(marked_at.filter(|_| gone && state == AppState::Exited)),
        exit_code: exited.map(|(code, _)| code),
    }
}

/// The directory /rkt of the pod: through its root while that is mounted, else in the overlay's upper layer.
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
            open_dir_beneath(&pod_dir, &format!("overlay/{id}/upper/rkt"))
        }
    }
}

fn open_dir_beneath(base: &OwnedFd, path: &str) -> Result<Option<OwnedFd>> {
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

/// When the pod's directory was last changed, which a move to a garbage directory does.
fn changed(pod: &Path) -> Result<Option<i64>> {
    let stat = rustix::fs::stat(pod).context(|| format!("stat {pod:?}"))?;
    Ok(Some(nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64)))
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
        Ok(Some(text)) => std::str::from_utf8(&text).ok().and_then(|t| t.trim_end().parse().ok()).unwrap_or(UNREADABLE),
        Err(error) => {
            log::warn!("exit status of app {app}: {}", error.one_line());
            UNREADABLE
        }
    };
    Ok(Some((code, at)))
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
