//! Finding pods on disk while other processes make, run and remove them.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::libc;
use stage1::error::{Context, Error, Result};
use stage1::layout;
pub use stage1::pod::{Phase, State};
use uuid::Uuid;

use crate::fsutil::dir::{names_in, open_dir};
use crate::fsutil::lock;
use crate::poddir::name::{self, PodName};
use crate::store::Store;

/// How long to wait for other processes that are changing a pod.
const OTHERS: Duration = Duration::from_secs(60);
/// The time between two looks at a pod that others are changing.
pub const PAUSE: Duration = Duration::from_millis(5);

/// A pod as it was when podctl read its directory.
#[derive(Debug)]
pub struct Pod {
    uuid: Uuid,
    phase: Phase,
    dir: PathBuf,
    held: bool,
}

impl Pod {
    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The first eight digits of its UUID.
    pub fn digits(&self) -> String {
        self.uuid.to_string()[..8].to_owned()
    }

    /// Its name, or the first eight digits of its UUID if it has none: for messages.
    pub fn short(&self) -> String {
        self.name().ok().flatten().map_or_else(|| self.digits(), |name| name.to_string())
    }

    /// The name that the user gave it; `None` if it has none.
    ///
    /// # Errors
    /// Its `name` file can't be read, or holds no valid name.
    pub fn name(&self) -> Result<Option<PodName>> {
        name::of(&self.dir)
    }

    /// Whether its name stays taken. A pod that failed to be prepared, or was thrown away without having run, frees it.
    pub(super) fn keeps_its_name(&self) -> bool {
        self.phase != Phase::Garbage && self.state() != State::PrepareFailed
    }

    /// The absolute path of its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its phase.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Its state, which follows from its phase and whether a process held it.
    pub fn state(&self) -> State {
        State::of(self.phase, self.held)
    }

    /// When it was made; `None` if it has no record of that.
    ///
    /// # Errors
    /// The file that records it can't be read.
    pub fn created_at(&self) -> Result<Option<SystemTime>> {
        modified(&self.dir.join(layout::CREATED))
    }

    /// When it was started; `None` if it never was.
    ///
    /// # Errors
    /// The file with its PID can't be read.
    pub fn started_at(&self) -> Result<Option<SystemTime>> {
        Ok(modified(&self.dir.join(layout::PID))?.or(modified(&self.dir.join(layout::PPID))?))
    }

    /// When it was moved to phase `exited-garbage` or `garbage`; `None` in another phase.
    ///
    /// # Errors
    /// Its directory can't be read.
    pub fn marked_at(&self) -> Result<Option<SystemTime>> {
        if !matches!(self.phase, Phase::ExitedGarbage | Phase::Garbage) {
            return Ok(None);
        }
        let stat = self.dir.metadata().context(|| format!("stat {:?}", self.dir))?;
        Ok(Some(changed(&stat)))
    }

    /// The PID (host view) of the pod's PID 1; `None` if the pod does not run or has no PID yet.
    ///
    /// # Errors
    /// The file with its PID is damaged.
    pub fn pid_if_running(&self) -> Result<Option<i32>> {
        if self.state() == State::Running { stage1::pod::read_pid(&self.dir) } else { Ok(None) }
    }
}

/// All pods, ordered by UUID. A pod that changes its phase meanwhile is listed once, in the latest phase seen.
///
/// # Errors
/// A phase directory or a pod's directory can't be read.
pub fn list(store: &Store) -> Result<Vec<Pod>> {
    let mut found = BTreeMap::new();
    for phase in Phase::ALL {
        for uuid in uuids(store, phase)? {
            if let Some(pod) = look_at(store, phase, uuid)? {
                found.insert(uuid, pod);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The pod with the name `text`; if there is none, the only pod whose UUID starts with `text`.
///
/// # Errors
/// No pod matches, several UUIDs start with `text`, or the pods can't be read.
pub fn find(store: &Store, text: &str) -> Result<Pod> {
    if let Some(pod) = named(store, text)? {
        return Ok(pod);
    }
    // a whole UUID is enough for the path: no other pod is looked at
    if let Ok(uuid) = Uuid::try_parse(text)
        && let Some(pod) = in_some_phase(store, uuid)?
    {
        return Ok(pod);
    }
    // podctl list shows the start of a UUID without dashes
    let is_start = |uuid: &Uuid| {
        let (whole, typed) = (uuid.to_string(), text.to_ascii_lowercase());
        !text.is_empty() && (whole.starts_with(&typed) || uuid.simple().to_string().starts_with(&typed))
    };
    let mut found: Vec<(Phase, Uuid)> = Vec::new();
    for phase in Phase::ALL {
        for uuid in uuids(store, phase)? {
            if is_start(&uuid) {
                found.retain(|(_, other)| *other != uuid);
                found.push((phase, uuid));
            }
        }
    }
    match found.as_slice() {
        [] => Err(Error::new(match text.split_once('/') {
            Some((pod, app)) => {
                format!("there is no pod {text:?}: an app is a word of its own: {pod} {app}")
            }
            None => format!("there is no pod {text:?}: \"podctl list\" shows all"),
        })),
        [(_, uuid)] => find_whole(store, *uuid),
        several => {
            let several: Vec<_> = several.iter().map(|(_, uuid)| uuid.to_string()).collect();
            Err(Error::new(format!("{text:?} is ambiguous: it is the start of {}", several.join(", "))))
        }
    }
}

/// The pod with the name `text`. A pod that keeps its name takes precedence over one that is about to be removed.
///
/// # Errors
/// A phase directory or a pod's directory can't be read.
pub fn named(store: &Store, text: &str) -> Result<Option<Pod>> {
    if text.parse::<PodName>().is_err() {
        return Ok(None);
    }
    let mut gone = None;
    // A pod only moves to a later phase, so this loop meets a pod that moves meanwhile.
    for phase in Phase::ALL {
        let dir = store.pods().join(phase.dir());
        for uuid in uuids(store, phase)? {
            let is_called_so = match name::of(&dir.join(uuid.to_string())) {
                Ok(name) => name.is_some_and(|name| name.as_str() == text),
                // a damaged name must not hide other pods
                Err(error) => {
                    log::warn!("pod {uuid}: {}", error.one_line());
                    false
                }
            };
            if is_called_so && let Some(pod) = look_at(store, phase, uuid)? {
                if pod.keeps_its_name() {
                    return Ok(Some(pod));
                }
                gone = Some(pod);
            }
        }
    }
    Ok(gone)
}

/// The pod with this UUID, in any phase.
///
/// # Errors
/// No pod has the UUID, or the pods can't be read.
pub fn find_whole(store: &Store, uuid: Uuid) -> Result<Pod> {
    // the pod may change its phase meanwhile
    for _ in 0..3 {
        if let Some(pod) = in_some_phase(store, uuid)? {
            return Ok(pod);
        }
    }
    Err(Error::new(format!("there is no pod {uuid} any more")))
}

/// The pod with this UUID if one look at each phase, in their order, finds it.
fn in_some_phase(store: &Store, uuid: Uuid) -> Result<Option<Pod>> {
    for phase in Phase::ALL {
        if let Some(pod) = look_at(store, phase, uuid)? {
            return Ok(Some(pod));
        }
    }
    Ok(None)
}

/// Calls `look` with a pod that other processes may move to another phase or remove; calls it again with the moved pod
/// if they did. `None` if the pod is gone.
///
/// # Errors
/// `look` failed although no other process moved or removed the pod meanwhile, or still failed after 60 s of that.
pub fn while_others_work<T>(store: &Store, pod: &Pod, look: impl Fn(&Pod) -> Result<T>) -> Result<Option<T>> {
    let deadline = Instant::now() + OTHERS;
    let mut now = None;
    loop {
        let seen = now.as_ref().unwrap_or(pod);
        let found = look(seen);
        if found.is_ok() && seen.dir.exists() {
            return found.map(Some);
        }
        let Ok(later) = find_whole(store, pod.uuid) else { return Ok(None) };
        let undisturbed = later.phase == seen.phase && later.state() != State::Deleting;
        if undisturbed || Instant::now() >= deadline {
            return found.map(Some);
        }
        std::thread::sleep(PAUSE);
        now = Some(later);
    }
}

/// [`while_others_work`] for a pod that must exist.
///
/// # Errors
/// As [`while_others_work`], or the pod is gone.
pub fn look<T>(store: &Store, pod: &Pod, look: impl Fn(&Pod) -> Result<T>) -> Result<T> {
    while_others_work(store, pod, look)?.context(|| format!("there is no pod {} any more", pod.uuid))
}

/// Whether a process has the PID that the pod recorded for its PID 1. It can be another process that got the number
/// later.
///
/// # Errors
/// The file with the PID is damaged, or this process has no descriptor left to look with.
pub fn has_process(pod: &Pod) -> Result<bool> {
    let Some(pid) = stage1::pod::read_pid(&pod.dir)? else { return Ok(false) };
    match stage1::sys::process::pidfd_open(pid) {
        Ok(process) => Ok(!stage1::sys::process::pidfd_wait_end(&process, Duration::ZERO)?),
        Err(error) if matches!(error.errno(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => Err(error),
        Err(_) => Ok(false),
    }
}

/// The PID (host view) of a running pod's PID 1.
///
/// # Errors
/// The pod does not run, or has no PID yet.
pub fn running_pid(pod: &Pod) -> Result<i32> {
    match pod.state() {
        State::Running => stage1::pod::read_pid(&pod.dir)?.context(|| "the pod is starting: it has no PID yet"),
        other => Err(Error::new(format!("pod {} is {}, not running", pod.short(), other.word()))),
    }
}

/// Whether the pod is running now.
///
/// # Errors
/// Its directory can't be opened or locked.
pub fn is_running(store: &Store, pod: &Pod) -> Result<bool> {
    Ok(look_at(store, Phase::Run, pod.uuid)?.is_some_and(|pod| pod.held))
}

/// The pod with this UUID if it is in `phase`; else `None`.
fn look_at(store: &Store, phase: Phase, uuid: Uuid) -> Result<Option<Pod>> {
    let dir = store.pods().join(phase.dir()).join(uuid.to_string());
    let Some(file) = open_dir(&dir)? else { return Ok(None) };
    Ok(Some(Pod { uuid, phase, held: !lock::try_take(&file, &dir, lock::Kind::Shared)?, dir }))
}

fn uuids(store: &Store, phase: Phase) -> Result<Vec<Uuid>> {
    let dir = store.pods().join(phase.dir());
    let mut uuids = Vec::new();
    for name in names_in(&dir)? {
        match name.to_str().map(Uuid::try_parse) {
            Some(Ok(uuid)) if uuid.to_string().as_str() == name => uuids.push(uuid),
            _ => log::debug!("{name:?} in {dir:?} is not a pod"),
        }
    }
    Ok(uuids)
}

/// The time of the last status change of an inode, `st_ctime` in inode(7). Unlike `st_mtime`, no program can set it.
pub(crate) fn changed(stat: &Metadata) -> SystemTime {
    let nanoseconds = u32::try_from(stat.ctime_nsec()).unwrap_or(0);
    UNIX_EPOCH + Duration::new(u64::try_from(stat.ctime()).unwrap_or(0), nanoseconds)
}

fn modified(path: &Path) -> Result<Option<SystemTime>> {
    match path.symlink_metadata().and_then(|stat| stat.modified()) {
        Ok(time) => Ok(Some(time)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::caused_by(format!("stat {path:?}"), error)),
    }
}
