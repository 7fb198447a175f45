//! Limits of a pod as a whole on the command line

use stage1::appc::{Isolator, Isolators};
use stage1::error::{Error, Result};
use stage1::unit::LEAST_POD_CPU;

use super::limits::LimitOptions;

/// The options for the limits of all processes of a pod together, with its supervisor.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct PodLimits {
    /// Limit the memory of the whole pod to this much, in powers of 1024: 64m, 64MiB, 1g
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pod_memory: Option<String>,
    /// Throttle the pod above this much memory (memory.high; cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pod_memory_high: Option<String>,
    /// Limit the pod's swap to this much (memory.swap.max; cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pod_memory_swap: Option<String>,
    /// Limit the pod to this much processor time, in processors: 500m, 1.5
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pod_cpu: Option<String>,
    /// Weigh the pod against others by this much when processors are busy
    #[arg(long, value_name = "NUMBER")]
    pod_cpu_shares: Option<u64>,
    /// Limit the pod to this many processes and threads
    #[arg(long, value_name = "NUMBER")]
    pod_pids: Option<u64>,
    /// Weigh the pod against others by this much when disks are busy: 1 to 10000
    #[arg(long, value_name = "NUMBER")]
    pod_io_weight: Option<u64>,
}

impl PodLimits {
    /// Converts the options to isolators of a pod's manifest.
    ///
    /// # Errors
    /// A value is invalid, or smaller than the kernel keeps.
    pub fn isolators(&self) -> Result<Vec<Isolator>> {
        let options = LimitOptions {
            memory: self.pod_memory.clone(),
            memory_high: self.pod_memory_high.clone(),
            memory_swap: self.pod_memory_swap.clone(),
            cpu: self.pod_cpu.clone(),
            cpu_shares: self.pod_cpu_shares,
            pids: self.pod_pids,
            io_weight: self.pod_io_weight,
            ..LimitOptions::default()
        };
        let found = options.isolators_of("--pod-")?;
        let cpu = Isolators::parse(&found)?.cpu.limit;
        match (&self.pod_cpu, cpu.is_some_and(|cpu| cpu < LEAST_POD_CPU)) {
            (Some(text), true) => Err(Error::new(format!(
                "--pod-cpu {text}: the kernel keeps no limit below {LEAST_POD_CPU}m (0.01 processors) for a pod"
            ))),
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_kept_is_refused() {
        let cpu = |text: &str| PodLimits { pod_cpu: Some(text.into()), ..PodLimits::default() }.isolators();
        for (text, least) in [("0.0000001", "1m"), ("0", "1m"), ("9m", "10m"), ("0.0091", "")] {
            match cpu(text) {
                Ok(_) => assert_eq!(text, "0.0091", "rounded up to 10m"),
                Err(error) => {
                    let line = error.one_line();
                    assert!(line.starts_with("--pod-cpu") && line.contains(least), "{text}: {line}");
                }
            }
        }
        cpu("10m").unwrap();
        let memory = PodLimits { pod_memory: Some("0".into()), ..PodLimits::default() };
        assert!(memory.isolators().unwrap_err().one_line().starts_with("--pod-memory 0: "));
        let pids = PodLimits { pod_pids: Some(0), ..PodLimits::default() };
        assert!(pids.isolators().unwrap_err().one_line().starts_with("--pod-pids: "));
    }
}
