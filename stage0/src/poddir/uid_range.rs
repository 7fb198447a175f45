//! UID ranges: which ids of the host the pods with a user namespace of their own have (user_namespaces(7)).

use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::pod::{Phase, read_bounded};
use stage1::uid_range::UidRange;
use uuid::Uuid;

use crate::fsutil::dir::names_in;
use crate::store::Store;

/// How many ids a pod gets that does not say how many.
const COUNT: u32 = 1 << 16;
/// The ranges that may be given to pods begin at multiples of their size: those that systemd leaves to containers.
const FIRST: u32 = 0x0008_0000 / COUNT;
const LAST: u32 = 0x6fff_0000 / COUNT;
/// Tables of the host's users are read up to here.
const TABLE_BYTES: u64 = 64 << 20;
/// A range takes fewer.
const RANGE_BYTES: u64 = 64;

/// Which ids a new pod gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateUsers {
    /// A range that no other pod has.
    Auto,
    /// These.
    Range(UidRange),
}

impl FromStr for PrivateUsers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            range => range.parse().map(Self::Range),
        }
    }
}

/// The ids of the pod in this directory; `None` if they are the host's.
///
/// # Errors
/// What the pod has noted can't be read.
pub fn of_pod(pod: &Path) -> Result<Option<UidRange>> {
    let path = pod.join(layout::PRIVATE_USERS);
    let text = match read_bounded(&path, RANGE_BYTES) {
        Err(error) if is_missing(&error) => return Ok(None),
        text => text?,
    };
    String::from_utf8_lossy(&text).trim().parse().context(|| format!("{path:?}")).map(Some)
}

/// Gives a new pod its ids, and notes them in its directory.
///
/// # Errors
/// No range is free, or it can't be noted.
pub fn give(store: &Store, pod: &Path, uuid: Uuid, wanted: PrivateUsers) -> Result<()> {
    // held until others can see what this pod has
    let _lock: File = store.lock_users()?;
    let ids = match wanted {
        PrivateUsers::Range(ids) => ids,
        PrivateUsers::Auto => pick(uuid, &taken(store)?)?,
    };
    crate::fsutil::atomic::write(&pod.join(layout::PRIVATE_USERS), ids.to_string().as_bytes(), 0o644)
}

/// A range that overlaps none of these. The search begins at a place that depends on the UUID, so that pods of another
/// data directory seldom get the same.
fn pick(uuid: Uuid, taken: &[UidRange]) -> Result<UidRange> {
    let ranges = LAST - FIRST + 1;
    let (high, low) = uuid.as_u64_pair();
    let start = u32::try_from((high ^ low) % u64::from(ranges)).unwrap_or(0);
    (0..ranges)
        .map(|step| UidRange { first: (FIRST + (start + step) % ranges) * COUNT, count: COUNT })
        .find(|range| !taken.iter().any(|other| overlap(range, other)))
        .context(|| "no free UID range: pods and users of the host have all of them")
}

fn overlap(a: &UidRange, b: &UidRange) -> bool {
    let end = |range: &UidRange| u64::from(range.first) + u64::from(range.count);
    u64::from(a.first) < end(b) && u64::from(b.first) < end(a)
}

/// The ids of all pods, and those of the host's users and of what they may give to containers of their own.
fn taken(store: &Store) -> Result<Vec<UidRange>> {
    let mut taken = Vec::new();
    for phase in Phase::ALL {
        let dir = store.pods().join(phase.dir());
        for name in names_in(&dir)? {
            match of_pod(&dir.join(name)) {
                Ok(range) => taken.extend(range),
                // it was just moved on, which it can't with the lock that its range was given under: it has one
                Err(error) => log::warn!("{}", error.one_line()),
            }
        }
    }
    for table in ["passwd", "group", "subuid", "subgid"] {
        taken.extend(in_table(&Path::new("/etc").join(table))?);
    }
    Ok(taken)
}

/// The ids in a table of the host's: `name:start:count`, or `name:password:id:…`.
fn in_table(path: &Path) -> Result<Vec<UidRange>> {
    let text = match read_bounded(path, TABLE_BYTES) {
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        text => text?,
    };
    Ok(String::from_utf8_lossy(&text).lines().filter_map(line).collect())
}

fn line(line: &str) -> Option<UidRange> {
    let fields: Vec<&str> = line.split(':').collect();
    match fields.as_slice() {
        [_, start, count] => Some(UidRange { first: start.parse().ok()?, count: count.parse().ok()? }),
        [_, _, id, ..] => Some(UidRange { first: id.parse().ok()?, count: 1 }),
        _ => None,
    }
}

fn is_missing(error: &Error) -> bool {
    error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tables() {
        let range = |first, count| Some(UidRange { first, count });
        assert_eq!(line("user:100000:65536"), range(100_000, 65536));
        assert_eq!(line("web:x:1001:2001::/home:/bin/sh"), range(1001, 1));
        assert_eq!(line("extra:x:3001:web"), range(3001, 1));
        for nonsense in ["", "#", "a:b", "a:b:c", "a:b:-1:c", "+::::::"] {
            assert_eq!(line(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn ranges_of_pods_do_not_meet() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        let mut seen: Vec<UidRange> = Vec::new();
        for number in 0..40 {
            // all begin to look at the same place
            let uuid = Uuid::from_u64_pair(7 + u64::from(LAST - FIRST + 1) * number, 0);
            let phase = Phase::ALL[usize::try_from(number).unwrap() % Phase::ALL.len()];
            let pod = store.pods().join(phase.dir()).join(uuid.to_string());
            std::fs::create_dir_all(&pod).unwrap();
            assert_eq!(of_pod(&pod).unwrap(), None);
            give(&store, &pod, uuid, PrivateUsers::Auto).unwrap();
            let ids = of_pod(&pod).unwrap().unwrap();
            assert!(ids.count == 65536 && ids.first.is_multiple_of(65536) && ids.first >= 524_288, "{ids}");
            assert!(!seen.iter().any(|other| overlap(&ids, other)), "{ids} is given twice");
            seen.push(ids);
        }
        let all: Vec<UidRange> = vec![UidRange { first: 0, count: u32::MAX }];
        assert!(pick(Uuid::nil(), &all).unwrap_err().one_line().contains("no free UID range"));
        assert!(pick(Uuid::max(), &[UidRange { first: 0, count: LAST * COUNT }]).unwrap().first == LAST * COUNT);
    }

    #[test]
    fn words_for_it() {
        assert_eq!("auto".parse::<PrivateUsers>().unwrap(), PrivateUsers::Auto);
        let range = PrivateUsers::Range(UidRange { first: 7, count: 9 });
        assert_eq!("7:9".parse::<PrivateUsers>().unwrap(), range);
        assert!("yes".parse::<PrivateUsers>().is_err());
    }
}
