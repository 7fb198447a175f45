//! Limits of an app's cgroup, as directives of its unit: systemd.resource-control(5).

use crate::appc::Isolators;
use crate::error::{Context, Error, Result};
use crate::systemd::Value;

/// The smallest limit of processor time of a pod as a whole, in thousandths of a processor: the kernel refuses a quota
/// below 1 ms in its period of 100 ms. For an app systemd makes the period longer.
pub const LEAST_POD_CPU: u64 = 10;

/// Limits and weights of an app's cgroup. `None` means no limit, or the default weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Memory above which the kernel kills processes of the app, in bytes: memory.max.
    pub memory_max: Option<u64>,
    /// Memory above which the kernel throttles the app, in bytes: memory.high. With cgroup v2 only.
    pub memory_high: Option<u64>,
    /// Limit of swap, in bytes. With cgroup v2 only.
    pub memory_swap_max: Option<u64>,
    /// Limit of processor time, in thousandths of a processor.
    pub cpu_quota: Option<u64>,
    /// Relative weight of processor time, 2 to 262144; the default is 1024.
    pub cpu_shares: Option<u64>,
    /// Limit of processes and threads.
    pub tasks_max: Option<u64>,
    /// Relative weight of I/O, 1 to 10000; the default is 100.
    pub io_weight: Option<u64>,
    /// OOM score adjustment, -1000 to 1000: proc_pid_oom_score_adj(5).
    pub oom_score_adj: Option<i32>,
}

impl From<&Isolators> for CgroupLimits {
    fn from(isolators: &Isolators) -> Self {
        // A request of one processor is the default weight of 1024.
        let requested = |milli: u64| (u128::from(milli) * 1024 / 1000).clamp(2, 262_144) as u64;
        Self {
            memory_max: isolators.memory.limit,
            memory_high: isolators.memory_high,
            memory_swap_max: isolators.memory_swap,
            cpu_quota: isolators.cpu.limit,
            cpu_shares: isolators.cpu_shares.or_else(|| isolators.cpu.request.map(requested)),
            tasks_max: isolators.pids,
            io_weight: isolators.io_weight,
            oom_score_adj: isolators.oom_score_adj,
        }
    }
}

impl CgroupLimits {
    /// The names of the limits that can't be enforced: those that only cgroup v2 has, on v1, and those for which the
    /// pod's cgroups have no file. `has` says whether there is a file of a name.
    pub fn without_effect(&self, unified: bool, has: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let limits: [(_, _, &[&str], &[&str]); 7] = [
            ("memory", self.memory_max, &["memory.limit_in_bytes"], &["memory.max"]),
            ("memory-high", self.memory_high, &[], &["memory.high"]),
            ("memory-swap", self.memory_swap_max, &[], &["memory.swap.max"]),
            ("cpu", self.cpu_quota, &["cpu.cfs_quota_us"], &["cpu.max"]),
            ("cpu-shares", self.cpu_shares, &["cpu.shares"], &["cpu.weight"]),
            ("pids", self.tasks_max, &["pids.max"], &["pids.max"]),
            // The second file is that of the scheduler bfq, which may be loaded later.
            ("io-weight", self.io_weight, &["blkio.weight", "blkio.bfq.weight"], &["io.weight", "io.bfq.weight"]),
        ];
        let set = limits.into_iter().filter(|(_, value, ..)| value.is_some());
        let lost = set.filter(|(_, _, v1, v2)| !(if unified { v2 } else { v1 }).iter().any(|file| has(file)));
        lost.map(|(name, ..)| name).collect()
    }

    /// The limits as properties of a unit of systemd, with cgroup v2 only (`unified`) or with v1.
    ///
    /// # Errors
    /// A value has another form than [`Self::directives`] writes.
    pub fn properties(&self, unified: bool) -> Result<Vec<(&'static str, Value)>> {
        let all = self.directives(unified).into_iter();
        all.filter_map(|(name, value)| limit_property(name, &value).transpose()).collect()
    }

    pub(super) fn directives(&self, unified: bool) -> Vec<(&'static str, String)> {
        let mut out = Vec::new();
        let mut push = |name, value: Option<String>| out.extend(value.map(|value| (name, value)));
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        push("MemoryMax", number(self.memory_max));
        push("MemoryHigh", number(self.memory_high));
        push("MemorySwapMax", number(self.memory_swap_max));
        push("CPUQuota", self.cpu_quota.map(|milli| format!("{}.{}%", milli / 10, milli % 10)));
        push("TasksMax", number(self.tasks_max));
        if unified {
            // As in systemd: 1024 shares are a weight of 100.
            push("CPUWeight", self.cpu_shares.map(|shares| (shares * 100 / 1024).clamp(1, 10_000).to_string()));
            push("IOWeight", number(self.io_weight));
        } else {
            push("CPUShares", number(self.cpu_shares));
            // systemd 252 converts IOWeight= twice for bfq on v1: with 55 it sets 115, above the default of 100. It
            // converts BlockIOWeight= once, as IOWeight= on v2.
            push("BlockIOWeight", self.io_weight.map(|weight| weight.clamp(10, 1000).to_string()));
        }
        push("OOMScoreAdjust", self.oom_score_adj.map(|adjust| adjust.to_string()));
        out
    }

    /// Checks the ranges of the values.
    ///
    /// # Errors
    /// A value is out of range.
    pub fn check(&self) -> Result<()> {
        let check = |name: &str, value: Option<i128>, least: i128, most: i128| match value {
            Some(value) if value < least || value > most => {
                Err(Error::new(format!("{name} is {value}: it must be from {least} to {most}")))
            }
            _ => Ok(()),
        };
        // systemd interprets the largest number as "no limit".
        let most = i128::from(u64::MAX - 1);
        check("memory limit", self.memory_max.map(i128::from), 1, most)?;
        check("memory-high", self.memory_high.map(i128::from), 1, most)?;
        check("memory-swap", self.memory_swap_max.map(i128::from), 0, most)?;
        check("cpu limit in thousandths of a processor", self.cpu_quota.map(i128::from), 1, 1_000_000)?;
        check("cpu-shares", self.cpu_shares.map(i128::from), 2, 262_144)?;
        check("pids limit", self.tasks_max.map(i128::from), 1, most)?;
        check("io-weight", self.io_weight.map(i128::from), 1, 10_000)?;
        check("oom-score-adj", self.oom_score_adj.map(i128::from), -1000, 1000)
    }
}

/// The property that sets what a directive of [`CgroupLimits::directives`] does; `None` for another directive.
///
/// # Errors
/// The value is not in the form that [`CgroupLimits::directives`] writes.
pub(super) fn limit_property(name: &str, value: &str) -> Result<Option<(&'static str, Value)>> {
    let what = || format!("{name}={value}");
    if name == "CPUQuota" {
        let milli = value.trim_end_matches('%').replace('.', "").parse::<u64>().context(what)?;
        // In microseconds per second.
        return Ok(Some(("CPUQuotaPerSecUSec", Value::U64(milli * 1000))));
    }
    let Some(known) = NUMBERS.iter().find(|known| **known == name) else { return Ok(None) };
    value.parse().context(what).map(|number| Some((*known, Value::U64(number))))
}

/// The limits whose values are plain numbers.
const NUMBERS: [&str; 8] =
    ["MemoryMax", "MemoryHigh", "MemorySwapMax", "TasksMax", "CPUWeight", "CPUShares", "IOWeight", "BlockIOWeight"];
