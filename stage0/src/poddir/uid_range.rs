//! UID ranges: the host UIDs and GIDs that pods with their own user namespace use (user_namespaces(7)).

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

/// The number of ids in an automatic range.
const COUNT: u32 = 1 << 16;
/// Automatic ranges begin at multiples of [`COUNT`], from `FIRST * COUNT` to `LAST * COUNT`: the ids that systemd
/// reserves for containers (524288 to 1879048191).
const FIRST: u32 = 0x0008_0000 / COUNT;
const LAST: u32 = 0x6fff_0000 / COUNT;
/// The size limit of /etc/passwd and the like, in bytes.
const TABLE_BYTES: u64 = 64 << 20;
/// The size limit of a pod's file with its range, in bytes.
const RANGE_BYTES: u64 = 64;

/// The UID range of a new pod, as `--private-users` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrivateUsers {
    /// `auto`: 65536 ids that no other pod and no user of the host has.
    Auto,
    /// `FIRST:COUNT`: this range.
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

/// The UID range of the pod in the directory `pod`; `None` if the pod has no user namespace of its own.
///
/// # Errors
/// The file with the range can't be read, or does not hold a range.
pub fn of_pod(pod: &Path) -> Result<Option<UidRange>> {
    let path = pod.join(layout::PRIVATE_USERS);
    let text = match read_bounded(&path, RANGE_BYTES) {
        Err(error) if is_missing(&error) => return Ok(None),
        text => text?,
    };
    String::from_utf8_lossy(&text).trim().parse().context(|| format!("{path:?}")).map(Some)
}

/// Gives a new pod its UID range: writes it to the pod's directory `pod`.
///
/// # Errors
/// No range is free, the lock of ranges can't be taken, or the range can't be written.
pub fn give(store: &Store, pod: &Path, uuid: Uuid, wanted: PrivateUsers) -> Result<()> {
    // held until the range is written, where others see it
    let _lock: File = store.lock_users()?;
    let ids = match wanted {
        PrivateUsers::Range(ids) => ids,
        PrivateUsers::Auto => pick(uuid, &taken(store)?)?,
    };
    crate::fsutil::atomic::write(&pod.join(layout::PRIVATE_USERS), ids.to_string().as_bytes(), 0o644)
}

/// A range that overlaps none of `taken`. The search begins at a range that depends on the UUID, so that pods of
/// different data directories seldom get the same range.
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

/// The ranges of all pods, the ids of the host's users and groups, and the host's subordinate ids (subuid(5)).
fn taken(store: &Store) -> Result<Vec<UidRange>> {
    let mut taken = Vec::new();
    for phase in Phase::ALL {
        let dir = store.pods().join(phase.dir());
        for name in names_in(&dir)? {
            match of_pod(&dir.join(name)) {
                Ok(range) => taken.extend(range),
                // a damaged file of one pod must not keep others from starting
                Err(error) => log::warn!("{}", error.one_line()),
            }
        }
    }
    for table in ["passwd", "group", "subuid", "subgid"] {
        taken.extend(in_table(&Path::new("/etc").join(table))?);
    }
    Ok(taken)
}

/// The ids in a table of the host: `name:start:count` in subuid(5), `name:password:id:…` in passwd(5) and group(5).
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
            // the search begins at the same range for all
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
    fn private_users_are_parsed() {
        assert_eq!("auto".parse::<PrivateUsers>().unwrap(), PrivateUsers::Auto);
        let range = PrivateUsers::Range(UidRange { first: 7, count: 9 });
        assert_eq!("7:9".parse::<PrivateUsers>().unwrap(), range);
        assert!("yes".parse::<PrivateUsers>().is_err());
    }
}
