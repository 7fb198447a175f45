//! The resource usage and limits of a pod or one of its apps, as far as the kernel accounts for them. Host side.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Hierarchy, PodCgroup, Version};
use crate::error::Result;

/// The resource usage of all processes of a cgroup. A field is `None` if the kernel does not account for it or, for a
/// limit, if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the cgroup was made, in microseconds.
    pub cpu_us: Option<u64>,
    /// Memory, in bytes, without inactive page cache, which the kernel can drop at once.
    pub memory: Option<u64>,
    /// Limit of memory, in bytes.
    pub memory_limit: Option<u64>,
    /// Bytes read from block devices.
    pub read: Option<u64>,
    /// Bytes written to block devices.
    pub written: Option<u64>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
    /// Limit of processes and threads.
    pub pids_limit: Option<u64>,
}

/// How often the kernel has killed a process of a cgroup for lack of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomKills {
    /// The inode number of the cgroup's directory: another one is another cgroup, which counts from 0.
    pub cgroup: u64,
    /// How many processes were killed.
    pub count: u64,
}

/// v1 writes a number near the maximum for "no limit": numbers from this one on.
const NO_LIMIT: u64 = 1 << 62;

impl PodCgroup {
    /// The usage of the cgroup `place`, relative to the pod's cgroup (empty for the whole pod).
    pub fn usage(&self, place: &Path) -> Usage {
        let number = |controller: &str, v1: &str, v2: &str, read: fn(&str) -> Option<u64>| -> Option<u64> {
            read(&fs::read_to_string(self.file(place, controller, v1, v2)?).ok()?)
        };
        // The unified hierarchy counts processor time without a controller. Where v1 has cpu and cpuacct each by itself,
        // systemd makes no cgroup in the second for an app with limits of the first.
        let unified_cpu = || {
            let (_, dir) = self.directories().find(|(hierarchy, _)| hierarchy.version == Version::V2)?;
            cpu(&fs::read_to_string(dir.join(place).join("cpu.stat")).ok()?)
        };
        let cache = number("memory", "memory.stat", "memory.stat", inactive_file).unwrap_or(0);
        let io = |read| number("blkio", "blkio.throttle.io_service_bytes_recursive", "io.stat", read);
        Usage {
            cpu_us: number("cpuacct", "cpuacct.usage", "cpu.stat", cpu).or_else(unified_cpu),
            memory: number("memory", "memory.usage_in_bytes", "memory.current", plain)
                .map(|all| all.saturating_sub(cache)),
            memory_limit: number("memory", "memory.limit_in_bytes", "memory.max", plain),
            read: io(read_bytes),
            written: io(written_bytes),
            pids: number("pids", "pids.current", "pids.current", plain),
            pids_limit: number("pids", "pids.max", "pids.max", plain),
        }
    }

    /// The kills in the cgroup `place` for lack of memory; `None` if the kernel does not count them, which it does only
    /// where memory is accounted for or limited.
    pub fn oom_kills(&self, place: &Path) -> Option<OomKills> {
        let file = self.file(place, "memory", "memory.oom_control", "memory.events")?;
        let count = beside(&fs::read_to_string(&file).ok()?, "oom_kill")?;
        Some(OomKills { cgroup: file.parent()?.metadata().ok()?.ino(), count })
    }

    /// The path of a controller's file of the cgroup `place`, whose name depends on the version.
    fn file(&self, place: &Path, controller: &str, v1: &str, v2: &str) -> Option<PathBuf> {
        let has = |(h, _): &(&Hierarchy, PathBuf)| h.controllers.iter().any(|own| own == controller);
        if let Some((_, dir)) = self.directories().find(has) {
            return Some(dir.join(place).join(v1));
        }
        let (_, dir) = self.directories().find(|(hierarchy, _)| hierarchy.version == Version::V2)?;
        Some(dir.join(place).join(v2))
    }

    /// The limit of processor time of the cgroup `place`, in millionths of one processor; `None` if there is none.
    pub fn cpu_limit(&self, place: &Path) -> Option<u64> {
        let read = |dir: PathBuf, name: &str| fs::read_to_string(dir.join(place).join(name)).ok();
        let v1 = self.directories().find(|(h, _)| h.controllers.iter().any(|own| own == "cpu"));
        let (quota, period) = match v1 {
            Some((_, dir)) => (read(dir.clone(), "cpu.cfs_quota_us")?, read(dir, "cpu.cfs_period_us")?),
            None => {
                let (_, dir) = self.directories().find(|(hierarchy, _)| hierarchy.version == Version::V2)?;
                let text = read(dir, "cpu.max")?;
                let (quota, period) = text.split_once(' ')?;
                (quota.to_owned(), period.to_owned())
            }
        };
        // "max" or -1 means that there is no limit.
        let quota: u64 = quota.trim().parse().ok()?;
        let period: u64 = period.trim().parse().ok().filter(|period| *period > 0)?;
        quota.checked_mul(1_000_000).map(|millionths| millionths / period)
    }

    /// The PIDs of the processes in the cgroup `place` and below it, in the caller's PID namespace. `place` is relative
    /// to the pod's cgroup.
    ///
    /// # Errors
    /// A cgroup exists and can't be read.
    pub fn processes(&self, place: &Path) -> Result<Vec<i32>> {
        self.processes_of_unit(place)
    }
}

/// Parses a number; `None` if it means "no limit".
fn plain(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|number| *number < NO_LIMIT)
}

/// The number that follows `word` in a line of its own.
fn beside(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == word)?.1.trim().parse().ok())
}

fn inactive_file(text: &str) -> Option<u64> {
    beside(text, "total_inactive_file").or_else(|| beside(text, "inactive_file"))
}

/// Processor time in microseconds: v2 has a line `usage_usec`, v1 a single number of nanoseconds.
fn cpu(text: &str) -> Option<u64> {
    beside(text, "usage_usec").or_else(|| Some(text.trim().parse::<u64>().ok()? / 1000))
}

fn read_bytes(text: &str) -> Option<u64> {
    io(text, "rbytes=", "Read")
}

fn written_bytes(text: &str) -> Option<u64> {
    io(text, "wbytes=", "Write")
}

/// The sum over all devices: v2 has `8:0 rbytes=1 wbytes=2 …`, v1 `8:0 Read 1`.
fn io(text: &str, v2: &str, v1: &str) -> Option<u64> {
    let of_line = |line: &str| -> Option<u64> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, operation, number] if *operation == v1 => number.parse().ok(),
            words => words.iter().find_map(|word| word.strip_prefix(v2)?.parse().ok()),
        }
    };
    Some(text.lines().filter_map(of_line).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_both_versions() {
        assert_eq!((plain("4096\n"), plain("max\n"), plain("9223372036854771712\n")), (Some(4096), None, None));
        assert_eq!((cpu("usage_usec 7\nuser_usec 3\n"), cpu("7000999\n"), cpu("x")), (Some(7), Some(7000), None));
        let v2 = "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n8:16 rbytes=1 wbytes=2 rios=1 wios=1\n";
        assert_eq!((read_bytes(v2), written_bytes(v2)), (Some(11), Some(22)));
        let v1 = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 5\n8:0 Total 30\n8:16 Read 1\nTotal 31\n";
        assert_eq!((read_bytes(v1), written_bytes(v1)), (Some(11), Some(20)));
        assert_eq!(read_bytes(""), Some(0));
        let stat = "cache 5\ninactive_file 3\ntotal_inactive_file 4\n";
        assert_eq!((inactive_file(stat), inactive_file("inactive_file 3\n")), (Some(4), Some(3)));
    }
}
