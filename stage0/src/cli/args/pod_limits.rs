//! Limits of a pod as a whole on the command line

use stage1::appc::Isolator;
use stage1::error::Result;

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
    /// A value is invalid.
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
        options.isolators_of("--pod-")
    }
}
