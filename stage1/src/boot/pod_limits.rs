//! Setting the isolators of the pod as a whole on its cgroups: cgroups(7). Host side.

use std::path::PathBuf;

use crate::appc::Isolators;
use crate::cgroup::PodCgroup;
use crate::error::{Context, Error, Result};
use crate::unit::{CgroupLimits, LEAST_POD_CPU};

/// Period of the limit of processor time, in microseconds.
const PERIOD: u64 = 100_000;

/// A limit: its name, its value, and the files of v1 and of v2 that set it, each with the text to write. The first file
/// that exists is written.
type Limit = (&'static str, Option<u64>, Vec<(&'static str, String)>, Vec<(&'static str, String)>);

/// Sets the limits of the pod's cgroups, also as the host's systemd knows them; those that `isolators` do not have stay. Limits that can't be enforced are
/// named in a warning. Host side.
///
/// # Errors
/// A limit is out of range, or the kernel refuses one: then all limits are as before.
pub fn set(cgroup: &PodCgroup, isolators: &Isolators) -> Result<()> {
    let wanted = CgroupLimits::from(isolators);
    wanted.check()?;
    if let Some(cpu) = wanted.cpu_quota.filter(|cpu| *cpu < LEAST_POD_CPU) {
        return Err(Error::new(format!(
            "the pod's limit of cpu is {cpu}m: the kernel keeps no limit below {LEAST_POD_CPU}m"
        )));
    }
    let mut lost = Vec::new();
    let mut before = Vec::new();
    for (name, value, v1, v2) in limits(&wanted) {
        if value.is_none() {
            continue;
        }
        let files = if cgroup.is_unified() { v2 } else { v1 };
        let find = |(file, text)| {
            cgroup.directories().map(|(_, dir)| dir.join(file)).find(|path| path.exists()).map(|path| (path, text))
        };
        match files.into_iter().find_map(find) {
            Some((path, text)) => {
                let old = std::fs::read_to_string(&path).context(|| format!("read {path:?}"))?;
                let set = std::fs::write(&path, &text);
                let in_use = set.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
                let hint = if in_use { ": the pod uses more than that" } else { "" };
                let what = || format!("write {text:?} to {} (the pod's limit of {name}){hint}", path.display());
                if let Err(error) = set.context(what) {
                    return Err(put_back(error, before));
                }
                before.push((path, old));
            }
            None => lost.push(name),
        }
    }
    if let Err(error) = wanted.properties(cgroup.is_unified()).and_then(|all| cgroup.set_properties(&all)) {
        return Err(put_back(error, before));
    }
    // Isolators that apply to single apps only.
    lost.extend(isolators.oom_score_adj.map(|_| "oom-score-adj"));
    lost.extend(
        isolators.seccomp.as_ref().map(|_| ()).or(isolators.seccomp_program.as_ref().map(|_| ())).map(|()| "seccomp"),
    );
    lost.extend(isolators.no_new_privileges.map(|_| "no-new-privileges"));
    if !lost.is_empty() {
        log::warn!("the pod: this host can't enforce the limits on {} for a pod as a whole", lost.join(", "));
    }
    Ok(())
}

/// Writes the earlier text of the files, the last one first. Returns the error for which that is done, with those of
/// writing.
fn put_back(error: Error, before: Vec<(PathBuf, String)>) -> Error {
    let failed = before.into_iter().rev().filter_map(|(path, old)| {
        let done = std::fs::write(&path, old.trim_end()).context(|| format!("write {old:?} to {path:?}"));
        done.err().map(|error| error.one_line())
    });
    match failed.collect::<Vec<_>>() {
        failed if failed.is_empty() => error,
        failed => Error::new(format!("{}; then {}", error.one_line(), failed.join("; "))),
    }
}

fn limits(limits: &CgroupLimits) -> [Limit; 7] {
    let one = |file: &'static str, value: Option<u64>, text: &dyn Fn(u64) -> String| -> Vec<(&'static str, String)> {
        value.map(|value| (file, text(value))).into_iter().collect()
    };
    let plain = |value: u64| value.to_string();
    let quota = |milli: u64| milli * PERIOD / 1000;
    let CgroupLimits { memory_max, memory_high, memory_swap_max, cpu_quota, cpu_shares, tasks_max, io_weight, .. } =
        *limits;
    // Conversions as in systemd: 1024 shares are a weight of 100; the weights of bfq end at 1000.
    let weight = |shares: u64| (shares * 100 / 1024).clamp(1, 10_000).to_string();
    let of_bfq = |weight: u64| if weight <= 100 { weight } else { 100 + (weight - 100) * 900 / 9900 };
    let v1_io = [
        one("blkio.bfq.weight", io_weight, &|weight| of_bfq(weight).to_string()),
        one("blkio.weight", io_weight, &|weight| weight.clamp(10, 1000).to_string()),
    ];
    let v2_io = [
        one("io.weight", io_weight, &|weight| format!("default {weight}")),
        one("io.bfq.weight", io_weight, &|weight| of_bfq(weight).to_string()),
    ];
    [
        ("memory", memory_max, one("memory.limit_in_bytes", memory_max, &plain), one("memory.max", memory_max, &plain)),
        ("memory-high", memory_high, Vec::new(), one("memory.high", memory_high, &plain)),
        ("memory-swap", memory_swap_max, Vec::new(), one("memory.swap.max", memory_swap_max, &plain)),
        (
            "cpu",
            cpu_quota,
            one("cpu.cfs_quota_us", cpu_quota, &|milli| quota(milli).to_string()),
            one("cpu.max", cpu_quota, &|milli| format!("{} {PERIOD}", quota(milli))),
        ),
        ("cpu-shares", cpu_shares, one("cpu.shares", cpu_shares, &plain), one("cpu.weight", cpu_shares, &weight)),
        ("pids", tasks_max, one("pids.max", tasks_max, &plain), one("pids.max", tasks_max, &plain)),
        ("io-weight", io_weight, v1_io.concat(), v2_io.concat()),
    ]
}
