//! Counters of a cgroup beyond those of `podctl stats`, for cgroup v1 and v2: cgroups(7) and the kernel's
//! documentation.

use std::fs;
use std::path::{Path, PathBuf};

use stage1::cgroup::{PodCgroup, Version};

/// The length of a tick (USER_HZ) in v1's `cpuacct.stat`, in nanoseconds.
const TICK: u64 = 10_000_000;
/// The least number by which v1 means "no limit".
const NO_LIMIT: u64 = 1 << 62;

/// The files of a cgroup of a pod, in all hierarchies.
#[derive(Debug)]
pub struct Files {
    /// For each hierarchy of v1, its controllers and the cgroup's directory.
    v1: Vec<(Vec<String>, PathBuf)>,
    v2: Option<PathBuf>,
}

impl Files {
    /// The files of the cgroup `place` below the pod's; an empty path means the pod's own.
    pub fn of(cgroup: &PodCgroup, place: &Path) -> Self {
        let mut files = Self { v1: Vec::new(), v2: None };
        for (hierarchy, dir) in cgroup.directories() {
            match hierarchy.version {
                Version::V1 => files.v1.push((hierarchy.controllers.clone(), dir.join(place))),
                Version::V2 => files.v2 = Some(dir.join(place)),
            }
        }
        files
    }

    /// Reads the controller's file, `v1` or `v2` by the version of its hierarchy; `None` if it does not exist.
    pub fn read(&self, controller: &str, v1: &str, v2: &str) -> Option<String> {
        let has = |(names, _): &&(Vec<String>, PathBuf)| names.iter().any(|name| name == controller);
        let path = match self.v1.iter().find(has) {
            Some((_, dir)) => dir.join(v1),
            None => self.v2.as_ref()?.join(v2),
        };
        fs::read_to_string(path).ok()
    }

    /// Reads a file of the unified hierarchy; `None` if it does not exist.
    pub fn unified(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.v2.as_ref()?.join(name)).ok()
    }

    fn is_v1(&self, controller: &str) -> bool {
        self.v1.iter().any(|(names, _)| names.iter().any(|name| name == controller))
    }
}

/// Processor time; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// All processor time.
    pub total: u64,
    /// User time.
    pub user: u64,
    /// System time.
    pub system: u64,
    /// Elapsed periods of the limit.
    pub periods: u64,
    /// Periods in which the limit was reached.
    pub throttled_periods: u64,
    /// The time for which processes were throttled.
    pub throttled: u64,
}

/// Memory, in bytes; counters have no unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All memory that is charged to the cgroup.
    pub usage: u64,
    /// The largest usage so far.
    pub most: u64,
    /// Page cache.
    pub cache: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Mapped files.
    pub mapped: u64,
    /// Memory of the kernel.
    pub kernel: u64,
    /// Swap.
    pub swap: u64,
    /// Inactive page cache.
    pub inactive: u64,
    /// The number of times that the limit was reached.
    pub failures: u64,
    /// All page faults.
    pub faults: u64,
    /// Major page faults.
    pub major_faults: u64,
    /// Processes that the OOM killer killed.
    pub oom_kills: u64,
}

/// The I/O on one block device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// MAJOR:MINOR.
    pub name: String,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// The number after `word` at the start of a line.
fn beside(text: &str, word: &str) -> Option<u64> {
    text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == word)?.1.trim().parse().ok())
}

fn plain(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|number| *number < NO_LIMIT)
}

impl Cpu {
    /// Of these files.
    pub fn of(files: &Files) -> Self {
        let stat = files.read("cpu", "cpu.stat", "cpu.stat").unwrap_or_default();
        let number = |word| beside(&stat, word).unwrap_or_default();
        let limits = |throttled| Self {
            periods: number("nr_periods"),
            throttled_periods: number("nr_throttled"),
            throttled,
            ..Self::default()
        };
        let counted = files.is_v1("cpuacct").then(|| files.read("cpuacct", "cpuacct.usage", "")).flatten();
        if let Some(total) = counted.and_then(|text| plain(&text)) {
            let times = files.read("cpuacct", "cpuacct.stat", "").unwrap_or_default();
            let time = |word| beside(&times, word).unwrap_or_default().saturating_mul(TICK);
            return Self { total, user: time("user"), system: time("system"), ..limits(number("throttled_time")) };
        }
        // The unified hierarchy counts times without a controller. systemd takes cpu and cpuacct for one hierarchy of v1,
        // and makes a unit's cgroup in the first of them, so that one mounted by itself may lack it.
        let times = files.unified("cpu.stat").unwrap_or_default();
        let time = |word| beside(&times, word).unwrap_or_default().saturating_mul(1000);
        let throttled = match files.is_v1("cpu") {
            true => number("throttled_time"),
            false => number("throttled_usec").saturating_mul(1000),
        };
        Self { total: time("usage_usec"), user: time("user_usec"), system: time("system_usec"), ..limits(throttled) }
    }
}

impl Memory {
    /// Of these files.
    pub fn of(files: &Files) -> Self {
        let stat = files.read("memory", "memory.stat", "memory.stat").unwrap_or_default();
        let either = |v1, v2| beside(&stat, v1).or_else(|| beside(&stat, v2)).unwrap_or_default();
        let number = |v1, v2| files.read("memory", v1, v2).and_then(|text| plain(&text));
        let events = files.read("memory", "memory.oom_control", "memory.events").unwrap_or_default();
        let event = |word| beside(&events, word).unwrap_or_default();
        let is_v1 = files.is_v1("memory");
        let kernel = match is_v1 {
            true => number("memory.kmem.usage_in_bytes", ""),
            false => beside(&stat, "kernel"),
        };
        Self {
            usage: number("memory.usage_in_bytes", "memory.current").unwrap_or_default(),
            most: number("memory.max_usage_in_bytes", "memory.peak").unwrap_or_default(),
            cache: either("total_cache", "file"),
            rss: either("total_rss", "anon"),
            mapped: either("total_mapped_file", "file_mapped"),
            kernel: kernel.unwrap_or_default(),
            swap: if is_v1 { either("total_swap", "") } else { number("", "memory.swap.current").unwrap_or_default() },
            inactive: either("total_inactive_file", "inactive_file"),
            failures: if is_v1 { number("memory.failcnt", "").unwrap_or_default() } else { event("max") },
            faults: either("total_pgfault", "pgfault"),
            major_faults: either("total_pgmajfault", "pgmajfault"),
            oom_kills: event("oom_kill"),
        }
    }

    /// The usage without inactive page cache, as kubelets compute the working set.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive)
    }
}

/// The I/O on each block device.
pub fn devices(files: &Files) -> Vec<Device> {
    let bytes = files.read("blkio", "blkio.throttle.io_service_bytes_recursive", "io.stat").unwrap_or_default();
    if files.is_v1("blkio") {
        let counts = files.read("blkio", "blkio.throttle.io_serviced_recursive", "").unwrap_or_default();
        return devices_of_v1(&bytes, &counts);
    }
    bytes.lines().filter_map(device_of_v2).collect()
}

/// Parses a line of v2's io.stat: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`.
fn device_of_v2(line: &str) -> Option<Device> {
    let (name, rest) = line.split_once(' ')?;
    let number =
        |word: &str| rest.split(' ').find_map(|part| part.strip_prefix(word)?.parse().ok()).unwrap_or_default();
    Some(Device {
        name: name.to_owned(),
        read: number("rbytes="),
        written: number("wbytes="),
        reads: number("rios="),
        writes: number("wios="),
    })
}

/// Parses v1's files of bytes and of operations, whose lines are `8:0 Read 1`.
fn devices_of_v1(bytes: &str, counts: &str) -> Vec<Device> {
    let mut found: Vec<Device> = Vec::new();
    for (text, of_bytes) in [(bytes, true), (counts, false)] {
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, operation, number] = words[..] else { continue };
            let Ok(number) = number.parse() else { continue };
            let at = found.iter().position(|device| device.name == name).unwrap_or_else(|| {
                found.push(Device { name: name.to_owned(), ..Device::default() });
                found.len() - 1
            });
            match (operation, of_bytes) {
                ("Read", true) => found[at].read = number,
                ("Write", true) => found[at].written = number,
                ("Read", false) => found[at].reads = number,
                ("Write", false) => found[at].writes = number,
                _ => {}
            }
        }
    }
    found
}

/// The traffic of a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The interface's name in the pod.
    pub name: String,
    /// Received bytes, packets, errors and dropped packets.
    pub received: [u64; 4],
    /// Sent bytes, packets, errors and dropped packets.
    pub sent: [u64; 4],
}

/// The interfaces of the network namespace of the process `pid`, without the loopback one.
pub fn interfaces(pid: i32) -> Vec<Interface> {
    parse_interfaces(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

/// Parses /proc/PID/net/dev: after two lines of titles, one for each interface with eight numbers of received and eight
/// of sent traffic (proc_pid_net(5)).
fn parse_interfaces(text: &str) -> Vec<Interface> {
    let of_line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let four = |from: usize| <[u64; 4]>::try_from(numbers.get(from..from + 4)?).ok();
        Some(Interface { name: name.trim().to_owned(), received: four(0)?, sent: four(8)? })
    };
    text.lines().filter_map(of_line).filter(|interface| interface.name != "lo").collect()
}

/// Counts the open descriptors of processes, and those of them that are sockets. A process that has ended has none.
pub fn descriptors(pids: &[i32]) -> (u64, u64) {
    let links = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten());
    links.fold((0, 0), |(all, sockets), link| {
        let is_socket = fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        (all + 1, sockets + u64::from(is_socket))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup's files, of v2, or of v1 with all controllers in one hierarchy.
    fn files(dir: &Path, v1: bool, all: &[(&str, &str)]) -> Files {
        for (name, text) in all {
            fs::write(dir.join(name), text).unwrap();
        }
        let controllers = ["cpu", "cpuacct", "memory", "blkio"].map(str::to_owned).to_vec();
        match v1 {
            true => Files { v1: vec![(controllers, dir.to_owned())], v2: None },
            false => Files { v1: Vec::new(), v2: Some(dir.to_owned()) },
        }
    }

    #[test]
    fn both_versions_say_the_same() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let v1 = files(
            one.path(),
            true,
            &[
                ("cpu.stat", "nr_periods 5\nnr_throttled 2\nthrottled_time 7000\n"),
                ("cpuacct.stat", "user 3\nsystem 1\n"),
                ("cpuacct.usage", "41000000\n"),
                ("memory.stat", "rss 1\ntotal_rss 100\ntotal_cache 50\ntotal_inactive_file 20\ntotal_pgfault 9\n"),
                ("memory.usage_in_bytes", "170\n"),
                ("memory.failcnt", "4\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 6\n"),
                ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n"),
                ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
            ],
        );
        let v2 = files(
            two.path(),
            false,
            &[
                (
                    "cpu.stat",
                    "usage_usec 41000\nuser_usec 30000\nsystem_usec 10000\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
                ),
                ("memory.stat", "anon 100\nfile 50\ninactive_file 20\npgfault 9\n"),
                ("memory.current", "170\n"),
                ("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 6\n"),
                ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
            ],
        );
        let cpu = Cpu {
            total: 41_000_000,
            user: 30_000_000,
            system: 10_000_000,
            periods: 5,
            throttled_periods: 2,
            throttled: 7000,
        };
        assert_eq!((Cpu::of(&v1), Cpu::of(&v2)), (cpu, cpu));
        let memory = Memory {
            usage: 170,
            cache: 50,
            rss: 100,
            inactive: 20,
            failures: 4,
            faults: 9,
            oom_kills: 6,
            ..Memory::default()
        };
        assert_eq!((Memory::of(&v1), Memory::of(&v2), memory.working_set()), (memory, memory, 150));
        let device = Device { name: "8:0".into(), read: 10, written: 20, reads: 1, writes: 2 };
        assert_eq!((devices(&v1), devices(&v2)), (vec![device.clone()], vec![device]));
    }

    #[test]
    fn times_are_counted_where_cpuacct_has_no_cgroup() {
        let (cpu, none, unified) = (tempfile::tempdir().unwrap(), PathBuf::from("/none"), tempfile::tempdir().unwrap());
        std::fs::write(cpu.path().join("cpu.stat"), "nr_periods 5\nnr_throttled 2\nthrottled_time 7000\n").unwrap();
        std::fs::write(unified.path().join("cpu.stat"), "usage_usec 40\nuser_usec 30\nsystem_usec 10\n").unwrap();
        let v1 = vec![(vec!["cpu".to_owned()], cpu.path().to_owned()), (vec!["cpuacct".to_owned()], none)];
        let found = Cpu::of(&Files { v1, v2: Some(unified.path().to_owned()) });
        let times = (found.total, found.user, found.system, found.throttled);
        assert_eq!((times, found.periods), ((40_000, 30_000, 10_000, 7000), 5));
    }

    #[test]
    fn nothing_is_counted_where_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let none = files(dir.path(), false, &[]);
        assert_eq!((Cpu::of(&none), Memory::of(&none), devices(&none)), Default::default());
    }

    #[test]
    fn interfaces_are_those_of_the_kernels_table() {
        let text = "Inter-|   Receive                            |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n\
                    \x20   lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n\
                    \x20 eth0: 2000      20    1    2    0     0          0         0     3000      30    3    4    0     0       0          0\n";
        let eth0 = Interface { name: "eth0".into(), received: [2000, 20, 1, 2], sent: [3000, 30, 3, 4] };
        assert_eq!((parse_interfaces(text), parse_interfaces("x")), (vec![eth0], Vec::new()));
    }

    #[test]
    fn descriptors_are_counted() {
        let (one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
        let (all, sockets) = descriptors(&[i32::try_from(std::process::id()).unwrap(), -1]);
        assert!(all > sockets && sockets >= 2, "{all} {sockets}");
        drop(one);
    }
}
