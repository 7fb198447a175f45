//! Events of pods and their apps: reads the event files of pods, and keeps their events when a pod is removed.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::pod::events::{self, Event, MAX_EVENTS, put_aside};
use stage1::pod::{Phase, State, open_regular_beneath};
use stage1::sys::dir;

use crate::app::oom;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::phase::HeldPod;
use crate::store::Store;

/// The file of the data directory with the events of removed pods.
const REMOVED: &str = "events";
/// The size in bytes at which that file is renamed and a new one begun.
const MAX_REMOVED: u64 = 1 << 20;

/// An event with its pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodEvent {
    /// The pod's UUID.
    pub pod: String,
    /// The pod's name; `None` if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

/// A cache of the event files that were read: a file that has not changed is not read again.
#[derive(Debug, Default)]
pub struct Seen(HashMap<PathBuf, (Stamp, Vec<Event>)>);

/// Identifies a version of a file: device, inode, size in bytes, ctime in seconds and the nanoseconds of it.
type Stamp = (u64, u64, u64, i64, i64);

impl Seen {
    fn read(&mut self, below: &Path, name: &Path) -> Vec<Event> {
        let path = below.join(name);
        let read = || -> Result<Option<(Stamp, std::fs::File)>> {
            let Some(file) = open_regular_beneath(dir::open_dir(below)?, name)? else { return Ok(None) };
            let stat = file.metadata().context(|| format!("stat {path:?}"))?;
            Ok(Some(((stat.dev(), stat.ino(), stat.size(), stat.ctime(), stat.ctime_nsec()), file)))
        };
        let (stamp, file) = match read() {
            Ok(Some(found)) => found,
            Ok(None) => return Vec::new(),
            // the pod may have replaced the file by a link, a device or the like
            Err(error) => {
                log::debug!("events in {path:?}: {}", error.one_line());
                return Vec::new();
            }
        };
        if let Some((_, known)) = self.0.get(&path).filter(|(known, _)| *known == stamp) {
            return known.clone();
        }
        let mut text = Vec::new();
        let found = match file.take(MAX_EVENTS).read_to_end(&mut text) {
            Ok(_) => events::parse(&text),
            Err(error) => {
                log::debug!("events in {path:?}: {error}");
                return Vec::new();
            }
        };
        self.0.insert(path, (stamp, found.clone()));
        found
    }
}

/// The events of an existing pod, the oldest first. Event files that can't be read count as empty.
///
/// # Errors
/// The pod's name can't be read.
pub fn of_pod(pod: &Pod, seen: &mut Seen) -> Result<Vec<PodEvent>> {
    let ended = !matches!(pod.state(), State::Running | State::Preparing);
    let found = of_dir(pod.dir(), ended, seen);
    let pod_name = pod.name()?.map(|name| name.to_string());
    Ok(found
        .into_iter()
        .map(|event| PodEvent { pod: pod.uuid().to_string(), pod_name: pod_name.clone(), event })
        .collect())
}

fn of_dir(pod: &Path, ended: bool, seen: &mut Seen) -> Vec<Event> {
    let own = layout::pod_events_dir();
    let files = [
        PathBuf::from(put_aside(layout::EVENTS)),
        PathBuf::from(layout::EVENTS),
        own.join(put_aside(layout::EVENTS)),
        own.join(layout::EVENTS),
    ];
    let mut found: Vec<Event> = files.iter().flat_map(|file| seen.read(pod, file)).collect();
    found.sort_by_key(|event| event.time);
    let last = found.iter().rfind(|event| matches!(event.event.as_str(), "pod-started" | "pod-ended"));
    if ended && last.is_some_and(|event| event.event == "pod-started") {
        // the time of the last known event
        let time = found.last().map(|event| event.time).unwrap_or_default();
        let why = Some("its monitor was killed, or the machine reset".to_owned());
        found.push(Event { time, why, ..Event { event: "pod-ended".to_owned(), ..Event::default() } });
    }
    found
}

/// The events of all pods, also of removed ones, the oldest first; each event once. Records first which processes of
/// running apps were killed for lack of memory.
///
/// # Errors
/// The pods can't be listed, or the events of removed pods can't be read.
pub fn all(store: &Store, seen: &mut Seen) -> Result<Vec<PodEvent>> {
    // removed pods last: that finds a pod that is removed meanwhile
    let mut found = Vec::new();
    for pod in pods::list(store)? {
        // an app or a pod that is being removed can't be read
        if let Err(error) = oom::record_kills(&pod) {
            log::debug!("pod {}: {}", pod.uuid(), error.one_line());
        }
        match of_pod(&pod, seen) {
            Ok(events) => found.extend(events),
            Err(error) => log::debug!("events of pod {}: {}", pod.uuid(), error.one_line()),
        }
    }
    found.extend(removed(store)?);
    let mut known = BTreeSet::new();
    found.retain(|event| known.insert(identity(event)));
    found.sort_by_key(|event| event.event.time);
    Ok(found)
}

/// The UUID of the pod that `text` means: the pod that has the name, else the last one with events that had it, else the
/// only one with events whose UUID starts with it. `None` if there is none. `all` is the result of [`all`].
///
/// # Errors
/// Several UUIDs start with `text`, or the pods can't be read.
pub fn pod_of(store: &Store, all: &[PodEvent], text: &str) -> Result<Option<String>> {
    Ok(match pods::named(store, text)? {
        Some(pod) => Some(pod.uuid().to_string()),
        None => past(all, text)?,
    })
}

fn past(all: &[PodEvent], text: &str) -> Result<Option<String>> {
    if let Some(last) = all.iter().rfind(|event| event.pod_name.as_deref() == Some(text)) {
        return Ok(Some(last.pod.clone()));
    }
    let typed = text.to_ascii_lowercase();
    let is_start = |uuid: &&String| uuid.starts_with(&typed) || uuid.replace('-', "").starts_with(&typed);
    let found: BTreeSet<&String> = all.iter().map(|event| &event.pod).filter(is_start).collect();
    match found.into_iter().collect::<Vec<_>>().as_slice() {
        [] => Ok(None),
        _ if typed.is_empty() => Ok(None),
        [only] => Ok(Some((*only).clone())),
        several => {
            let several: Vec<_> = several.iter().map(|uuid| uuid.as_str()).collect();
            Err(Error::new(format!("{text:?} is ambiguous: it is the start of {}", several.join(", "))))
        }
    }
}

/// The fields that identify an event.
pub fn identity(event: &PodEvent) -> (String, i64, String, Option<String>) {
    let PodEvent { pod, event, .. } = event;
    (pod.clone(), event.time, event.event.clone(), event.app.clone())
}

fn removed(store: &Store) -> Result<Vec<PodEvent>> {
    let mut found = Vec::new();
    for name in [put_aside(REMOVED), REMOVED.to_owned()] {
        let path = store.dir().join(name);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            text => found.extend(events::parse::<PodEvent>(&text.context(|| format!("read {path:?}"))?)),
        }
    }
    Ok(found)
}

/// Copies the events of a pod that is about to be removed to the file of removed pods; does nothing if the pod never
/// ran.
///
/// # Errors
/// The pod's name can't be read, or the file can't be locked or written.
pub fn keep(store: &Store, pod: &HeldPod) -> Result<()> {
    if pod.phase() != Phase::ExitedGarbage {
        return Ok(());
    }
    let mut events = of_dir(pod.dir(), true, &mut Seen::default());
    if events.is_empty() {
        return Ok(());
    }
    events.push(Event::now("pod-removed", None));
    let pod_name = crate::poddir::name::of(pod.dir())?.map(|name| name.to_string());
    let mut text = Vec::new();
    for event in events {
        let event = PodEvent { pod: pod.uuid().to_string(), pod_name: pod_name.clone(), event };
        serde_json::to_writer(&mut text, &event).context(|| "write an event")?;
        text.push(b'\n');
    }
    // two processes must not write or rename the file at once
    let _lock = store.lock_pod_names()?;
    append(store.dir(), &text)
}

/// Appends to the file of removed pods. A file that would grow too large is renamed first, in place of the one renamed
/// before.
fn append(dir: &Path, text: &[u8]) -> Result<()> {
    let path = dir.join(REMOVED);
    let shown = || format!("write {path:?}");
    if path.metadata().is_ok_and(|stat| stat.len() + text.len() as u64 > MAX_REMOVED) {
        std::fs::rename(&path, dir.join(put_aside(REMOVED))).context(shown)?;
    }
    let file = std::fs::File::options().create(true).append(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(text)).context(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_removed_pods_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..40 {
            append(dir.path(), &vec![b'x'; 100_000]).unwrap();
        }
        let sizes = ["events", "events.old"].map(|name| dir.path().join(name).metadata().unwrap().len());
        assert!(sizes.iter().all(|size| (1..=MAX_REMOVED).contains(size)), "{sizes:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_word_means_one_pod() {
        let event = |pod: &str, name: Option<&str>, time| PodEvent {
            pod: pod.to_owned(),
            pod_name: name.map(str::to_owned),
            event: Event { time, ..Event::default() },
        };
        let all = [event("aa-01", Some("web"), 1), event("aa-02", None, 2), event("bb-03", Some("web"), 3)];
        let past = |text| past(&all, text).map(Option::unwrap_or_default);
        for (text, uuid) in
            [("web", "bb-03"), ("bb", "bb-03"), ("AA01", "aa-01"), ("aa-02", "aa-02"), ("", ""), ("x", "")]
        {
            assert_eq!(past(text).unwrap(), uuid, "{text}");
        }
        assert!(past("aa").unwrap_err().one_line().contains("the start of aa-01, aa-02"));
    }

    #[test]
    fn events_of_both_files_are_in_order_and_a_missing_end_is_added() {
        let pod = tempfile::tempdir().unwrap();
        let inside = pod.path().join(layout::pod_events_dir());
        std::fs::create_dir_all(&inside).unwrap();
        let write = |dir: &Path, name: &str, lines: &[(i64, &str)]| {
            let text: String =
                lines.iter().map(|(time, event)| format!("{{\"time\":{time},\"event\":\"{event}\"}}\n")).collect();
            std::fs::write(dir.join(name), text).unwrap();
        };
        write(pod.path(), "events", &[(1, "pod-started"), (4, "removed")]);
        write(pod.path(), "events.old", &[(0, "added")]);
        write(&inside, "events", &[(2, "started"), (3, "exited")]);
        let mut seen = Seen::default();
        let mut words = |ended| -> Vec<String> {
            of_dir(pod.path(), ended, &mut seen).into_iter().map(|event| event.event).collect()
        };
        assert_eq!(words(false), ["added", "pod-started", "started", "exited", "removed"]);
        assert_eq!(words(true).last().map(String::as_str), Some("pod-ended"));
        write(pod.path(), "events", &[(1, "pod-started"), (5, "pod-ended")]);
        assert_eq!(words(true).iter().filter(|word| *word == "pod-ended").count(), 1, "it is read anew");
        std::fs::remove_file(inside.join("events")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", inside.join("events")).unwrap();
        assert_eq!(words(false), ["added", "pod-started", "pod-ended"], "no link is followed");
    }
}
