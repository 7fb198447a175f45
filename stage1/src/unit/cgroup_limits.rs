//! What an app may use, as directives of its unit.

use crate::appc::Isolators;
use crate::error::{Error, Result};

/// What an app may use at most, and its share when there is not enough. Absent: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Bytes; the kernel kills processes of the app above this (memory.max).
    pub memory_max: Option<u64>,
    /// Bytes; the kernel throttles the app above this (memory.high). Unified hierarchy only.
    pub memory_high: Option<u64>,
    /// Bytes of swap. Unified hierarchy only.
    pub memory_swap_max: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_quota: Option<u64>,
    /// Relative weight, 2 to 262144; 1024 if absent.
    pub cpu_shares: Option<u64>,
    /// Processes and threads.
    pub tasks_max: Option<u64>,
    /// Relative weight, 1 to 10000; 100 if absent.
    pub io_weight: Option<u64>,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

impl From<&Isolators> for CgroupLimits {
    fn from(isolators: &Isolators) -> Self {
        // A request of one processor weighs as much as an app without any.
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
    /// The names of the limits that will not hold: those that only the unified hierarchy knows, and those for which
    /// the pod's cgroups have no file, as `has` tells.
    pub fn without_effect(&self, unified: bool, has: impl Fn(&str) -> bool) -> Vec<&'static str> {
        let limits: [(_, _, &[&str], &[&str]); 7] = [
            ("memory", self.memory_max, &["memory.limit_in_bytes"], &["memory.max"]),
            ("memory-high", self.memory_high, &[], &["memory.high"]),
            ("memory-swap", self.memory_swap_max, &[], &["memory.swap.max"]),
            ("cpu", self.cpu_quota, &["cpu.cfs_quota_us"], &["cpu.max"]),
            ("cpu-shares", self.cpu_shares, &["cpu.shares"], &["cpu.weight"]),
            ("pids", self.tasks_max, &["pids.max"], &["pids.max"]),
            // The second is that of a scheduler, which may come later than the first.
            ("io-weight", self.io_weight, &["blkio.weight", "blkio.bfq.weight"], &["io.weight", "io.bfq.weight"]),
        ];
        let set = limits.into_iter().filter(|(_, value, ..)| value.is_some());
        let lost = set.filter(|(_, _, v1, v2)| !(if unified { v2 } else { v1 }).iter().any(|file| has(file)));
        lost.map(|(name, ..)| name).collect()
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
            // The proportion that systemd itself keeps between the two: 1024 shares are a weight of 100.
            push("CPUWeight", self.cpu_shares.map(|shares| (shares * 100 / 1024).clamp(1, 10_000).to_string()));
            push("IOWeight", number(self.io_weight));
        } else {
            push("CPUShares", number(self.cpu_shares));
            // With IOWeight=55, systemd 252 sets bfq's weight to 115, above the default of 100: it
            // converts twice. The old name is converted once, just as IOWeight= is on the unified one.
            push("BlockIOWeight", self.io_weight.map(|weight| weight.clamp(10, 1000).to_string()));
        }
        push("OOMScoreAdjust", self.oom_score_adj.map(|adjust| adjust.to_string()));
        out
    }

    pub(super) fn check(&self) -> Result<()> {
        let check = |name: &str, value: Option<i128>, least: i128, most: i128| match value {
            Some(value) if value < least || value > most => {
                Err(Error::new(format!("{name} is {value}: it must be from {least} to {most}")))
            }
            _ => Ok(()),
        };
        // systemd takes the largest number for "no limit".
        let most = i128::from(u64::MAX - 1);
        check("memory limit", self.memory_max.map(i128::from), 1, most)?;
        check("memory-high", self.memory_high.map(i128::from), 1, most)?;
        check("memory-swap", self.memory_swap_max.map(i128::from), 0, most)?;
        check("cpu limit in thousandths", self.cpu_quota.map(i128::from), 1, 1_000_000)?;
        check("cpu-shares", self.cpu_shares.map(i128::from), 2, 262_144)?;
        check("pids limit", self.tasks_max.map(i128::from), 1, most)?;
        check("io-weight", self.io_weight.map(i128::from), 1, 10_000)?;
        check("oom-score-adj", self.oom_score_adj.map(i128::from), -1000, 1000)
    }
}
