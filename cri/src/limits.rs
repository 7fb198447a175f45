//! Translates limits of the API to isolators.

use serde_json::{Map, Value, json};
use stage1::appc::Isolator;

use crate::api::LinuxContainerResources;
use crate::fault::{Fault, Result};

/// The default period of a limit on processor time, in microseconds.
const USUAL_PERIOD: i64 = 100_000;

/// The isolators for the limits of a container; 0 means no limit.
///
/// # Errors
/// A limit is of a kind that is not supported.
pub fn of_container(resources: &LinuxContainerResources) -> Result<Vec<Isolator>> {
    let mut found = vec![isolator("os/linux/oom-score-adj", json!(resources.oom_score_adj))];
    if resources.memory_limit_in_bytes > 0 {
        found.push(isolator("resource/memory", json!({ "limit": resources.memory_limit_in_bytes.to_string() })));
    }
    // the API counts memory and swap together
    let swap = resources.memory_swap_limit_in_bytes - resources.memory_limit_in_bytes;
    if resources.memory_limit_in_bytes > 0 && resources.memory_swap_limit_in_bytes > 0 && swap >= 0 {
        found.push(isolator("resource/memory-swap", json!({ "limit": swap.to_string() })));
    }
    if resources.cpu_quota > 0 {
        let period = if resources.cpu_period > 0 { resources.cpu_period } else { USUAL_PERIOD };
        let thousandths = (i128::from(resources.cpu_quota) * 1000 / i128::from(period)).max(1);
        found.push(isolator("resource/cpu", json!({ "limit": format!("{thousandths}m") })));
    }
    if resources.cpu_shares > 0 {
        found.push(isolator("os/linux/cpu-shares", json!(resources.cpu_shares.clamp(2, 262_144))));
    }
    for (name, value) in [("cpuset_cpus", &resources.cpuset_cpus), ("cpuset_mems", &resources.cpuset_mems)] {
        if !value.is_empty() {
            return Err(Fault::unimplemented(format!(
                "resources: {name} {value:?}: this runtime does not bind containers to processors or to memory nodes: set \
                 the kubelet's cpuManagerPolicy and memoryManagerPolicy to none"
            )));
        }
    }
    if let Some((name, value)) = resources.unified.iter().min() {
        return Err(Fault::unimplemented(format!(
            "resources: unified: {name} = {value:?}: this runtime sets no files of cgroups by their names"
        )));
    }
    Ok(found)
}

/// The isolators for the limits of a sandbox: of the sum `resources` of its containers' limits, and of what the sandbox
/// itself may use. A limit that `resources` do not have is none, whatever the overhead is.
///
/// # Errors
/// As for the limits of a container.
pub fn of_sandbox(
    resources: Option<LinuxContainerResources>,
    overhead: Option<LinuxContainerResources>,
) -> Result<Vec<Isolator>> {
    let (Some(resources), overhead) = (resources, overhead.unwrap_or_default()) else { return Ok(Vec::new()) };
    let mut found = of_container(&sum(resources, &overhead))?;
    // this one is not the cgroup's, but each process's
    found.retain(|isolator| isolator.name != "os/linux/oom-score-adj");
    Ok(found)
}

fn sum(resources: LinuxContainerResources, overhead: &LinuxContainerResources) -> LinuxContainerResources {
    let add = |limit: i64, more: i64| if limit > 0 { limit.saturating_add(more.max(0)) } else { limit };
    // the overhead's quota, in a period of the resources'
    let periods = |period: i64| if period > 0 { i128::from(period) } else { i128::from(USUAL_PERIOD) };
    let quota = i128::from(overhead.cpu_quota) * periods(resources.cpu_period) / periods(overhead.cpu_period);
    LinuxContainerResources {
        memory_limit_in_bytes: add(resources.memory_limit_in_bytes, overhead.memory_limit_in_bytes),
        // it counts memory and swap together
        memory_swap_limit_in_bytes: add(
            resources.memory_swap_limit_in_bytes,
            overhead.memory_swap_limit_in_bytes.max(overhead.memory_limit_in_bytes),
        ),
        cpu_quota: add(resources.cpu_quota, i64::try_from(quota).unwrap_or(i64::MAX)),
        cpu_shares: add(resources.cpu_shares, overhead.cpu_shares),
        ..resources
    }
}

/// An isolator with this value.
pub fn isolator(name: &str, value: Value) -> Isolator {
    Isolator { name: name.into(), value, other: Map::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stage1::appc::Isolators;

    #[test]
    fn what_is_not_kept_is_refused_by_name() {
        let cpus = LinuxContainerResources { cpuset_cpus: "0-1".into(), ..Default::default() };
        let mems = LinuxContainerResources { cpuset_mems: "0".into(), ..Default::default() };
        let unified = [("memory.high".to_owned(), "1".to_owned())].into();
        let unified = LinuxContainerResources { unified, ..Default::default() };
        for (resources, why) in [
            (cpus, "cpuset_cpus \"0-1\": this runtime does not bind"),
            (mems, "cpuset_mems \"0\": this runtime does not bind"),
            (unified, "memory.high = \"1\""),
        ] {
            for refused in [of_container(&resources), of_sandbox(Some(resources.clone()), None)] {
                let fault = refused.unwrap_err();
                assert!(fault.code == tonic::Code::Unimplemented && fault.message.contains(why), "{}", fault.message);
            }
        }
    }

    #[test]
    fn the_overhead_is_added_to_what_is_limited() {
        let resources = LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            oom_score_adj: 7,
            ..Default::default()
        };
        let overhead = LinuxContainerResources {
            memory_limit_in_bytes: 16 << 20,
            cpu_quota: 5_000,
            cpu_period: 50_000,
            cpu_shares: 100,
            ..Default::default()
        };
        let read = |resources, overhead| Isolators::parse(&of_sandbox(resources, overhead).unwrap()).unwrap();
        let both = read(Some(resources.clone()), Some(overhead.clone()));
        assert_eq!((both.memory.limit, both.cpu.limit), (Some(80 << 20), Some(600)));
        assert_eq!((both.cpu_shares, both.oom_score_adj), (None, None), "what is not limited stays so");
        assert_eq!(read(Some(resources), None).memory.limit, Some(64 << 20));
        assert_eq!(read(None, Some(overhead)), Isolators::default());
    }
}
