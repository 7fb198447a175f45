//! Metrics of sandboxes and containers with cAdvisor's names, which kubelets pass on to Prometheus.

use std::path::Path;
use std::time::SystemTime;

use stage0::fsutil::time::nanoseconds;
use stage1::cgroup::PodCgroup;
use stage1::layout;

use crate::api::{
    ContainerMetrics, ListMetricDescriptorsResponse, ListPodSandboxMetricsResponse, Metric, MetricDescriptor,
    MetricType, NamespaceMode, PodSandboxMetrics, UInt64Value,
};
use crate::container::{self, Container};
use crate::disk;
use crate::fault::Result;
use crate::node::Node;
use crate::sandbox::{self, Sandbox};
use crate::stats;
use crate::usage::{self, Cpu, Files, Memory};

/// The labels of every metric, in this order.
const BASE: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];
const SECOND: u64 = 1_000_000_000;

/// A metric: its name, help, type, and the labels that it has after [`BASE`].
struct Kind(&'static str, &'static str, MetricType, &'static [&'static str]);

use MetricType::{Counter, Gauge};

const KINDS: &[Kind] = &[
    Kind(
        "container_blkio_device_usage_total",
        "Bytes that were read from and written to a device.",
        Counter,
        &["device", "major", "minor", "operation"],
    ),
    Kind("container_cpu_cfs_periods_total", "Elapsed periods of the limit on processor time.", Counter, &[]),
    Kind(
        "container_cpu_cfs_throttled_periods_total",
        "Periods in which the limit on processor time was reached.",
        Counter,
        &[],
    ),
    Kind(
        "container_cpu_cfs_throttled_seconds_total",
        "Seconds that processes were throttled by the limit on processor time.",
        Counter,
        &[],
    ),
    Kind("container_cpu_system_seconds_total", "Processor time in the kernel, in seconds.", Counter, &[]),
    Kind("container_cpu_usage_seconds_total", "Processor time, in seconds.", Counter, &["cpu"]),
    Kind("container_cpu_user_seconds_total", "Processor time in programs, in seconds.", Counter, &[]),
    Kind("container_file_descriptors", "Open descriptors.", Gauge, &[]),
    Kind("container_fs_inodes_free", "Inodes that are free.", Gauge, &["device"]),
    Kind("container_fs_inodes_total", "Inodes of the file system.", Gauge, &["device"]),
    Kind("container_fs_limit_bytes", "Bytes of the file system.", Gauge, &["device"]),
    Kind("container_fs_reads_bytes_total", "Bytes that were read.", Counter, &["device"]),
    Kind("container_fs_reads_total", "Reads.", Counter, &["device"]),
    Kind("container_fs_usage_bytes", "Bytes that the container has written and not removed.", Gauge, &["device"]),
    Kind("container_fs_writes_bytes_total", "Bytes that were written.", Counter, &["device"]),
    Kind("container_fs_writes_total", "Writes.", Counter, &["device"]),
    Kind("container_last_seen", "When the container was last seen, in seconds since 1970.", Gauge, &[]),
    Kind("container_memory_cache", "Page cache, in bytes.", Gauge, &[]),
    Kind("container_memory_failcnt", "How often the limit on memory was reached.", Counter, &[]),
    Kind("container_memory_failures_total", "Page faults.", Counter, &["failure_type", "scope"]),
    Kind("container_memory_kernel_usage", "Memory of the kernel that is charged to the cgroup, in bytes.", Gauge, &[]),
    Kind("container_memory_mapped_file", "Bytes of mapped files.", Gauge, &[]),
    Kind("container_memory_max_usage_bytes", "The most bytes that were ever used.", Gauge, &[]),
    Kind("container_memory_rss", "Anonymous memory, in bytes.", Gauge, &[]),
    Kind("container_memory_swap", "Bytes in swap.", Gauge, &[]),
    Kind("container_memory_usage_bytes", "All memory that is charged to the cgroup, in bytes.", Gauge, &[]),
    Kind("container_memory_working_set_bytes", "Memory without inactive page cache, in bytes.", Gauge, &[]),
    Kind("container_network_receive_bytes_total", "Bytes that were received.", Counter, &["interface"]),
    Kind("container_network_receive_errors_total", "Errors in receiving.", Counter, &["interface"]),
    Kind(
        "container_network_receive_packets_dropped_total",
        "Packets that were dropped in receiving.",
        Counter,
        &["interface"],
    ),
    Kind("container_network_receive_packets_total", "Packets that were received.", Counter, &["interface"]),
    Kind("container_network_transmit_bytes_total", "Bytes that were sent.", Counter, &["interface"]),
    Kind("container_network_transmit_errors_total", "Errors in sending.", Counter, &["interface"]),
    Kind(
        "container_network_transmit_packets_dropped_total",
        "Packets that were dropped in sending.",
        Counter,
        &["interface"],
    ),
    Kind("container_network_transmit_packets_total", "Packets that were sent.", Counter, &["interface"]),
    Kind("container_oom_events_total", "Processes that the OOM killer killed.", Counter, &[]),
    Kind("container_processes", "Processes.", Gauge, &[]),
    Kind("container_sockets", "Open sockets.", Gauge, &[]),
    Kind("container_spec_cpu_period", "Period of the limit on processor time, in microseconds.", Gauge, &[]),
    Kind("container_spec_cpu_quota", "Processor time in such a period, in microseconds; 0 is no limit.", Gauge, &[]),
    Kind("container_spec_cpu_shares", "Weight of its processor time.", Gauge, &[]),
    Kind("container_spec_memory_limit_bytes", "Limit on memory, in bytes; 0 is no limit.", Gauge, &[]),
    Kind(
        "container_spec_memory_reservation_limit_bytes",
        "Memory that is reserved, in bytes; 0 is no reservation.",
        Gauge,
        &[],
    ),
    Kind("container_spec_memory_swap_limit_bytes", "Limit on swap, in bytes; 0 is no limit.", Gauge, &[]),
    Kind("container_start_time_seconds", "When the container was started, in seconds since 1970.", Gauge, &[]),
    Kind("container_threads", "Threads.", Gauge, &[]),
    Kind("container_threads_max", "The most threads that there may be; 0 is no limit.", Gauge, &[]),
];

/// `ListMetricDescriptors`: describes all metrics.
pub fn descriptors() -> ListMetricDescriptorsResponse {
    let descriptors = KINDS.iter().map(|Kind(name, help, _, labels)| MetricDescriptor {
        name: (*name).to_owned(),
        help: (*help).to_owned(),
        label_keys: BASE.iter().chain(*labels).map(|&label| label.to_owned()).collect(),
    });
    ListMetricDescriptorsResponse { descriptors: descriptors.collect() }
}

/// `ListPodSandboxMetrics`: the metrics of every sandbox that runs. One that can't be read is left out: it is being
/// removed.
///
/// # Errors
/// The pods can't be listed.
pub fn list(node: &Node) -> Result<ListPodSandboxMetricsResponse> {
    let mut pod_metrics = Vec::new();
    for sandbox in sandbox::all(node)? {
        match of_sandbox(node, &sandbox) {
            Ok(metrics) => pod_metrics.extend(metrics),
            Err(fault) => log::debug!("metrics of sandbox {}: {}", sandbox.id(), fault.message),
        }
    }
    Ok(ListPodSandboxMetricsResponse { pod_metrics })
}

/// Collects the metrics of one container or sandbox.
struct Gathered {
    base: Vec<String>,
    now: i64,
    metrics: Vec<Metric>,
}

impl Gathered {
    fn add(&mut self, name: &str, labels: &[&str], value: u64) {
        let Some(Kind(_, _, kind, _)) = KINDS.iter().find(|kind| kind.0 == name) else {
            log::warn!("the metric {name} is not in the list");
            return;
        };
        let labels = labels.iter().map(|&label| label.to_owned());
        self.metrics.push(Metric {
            name: name.to_owned(),
            timestamp: self.now,
            metric_type: (*kind).into(),
            label_values: self.base.iter().cloned().chain(labels).collect(),
            value: Some(UInt64Value { value }),
        });
    }
}

fn of_sandbox(node: &Node, sandbox: &Sandbox) -> Result<Option<PodSandboxMetrics>> {
    let Some(pid) = sandbox.pod.pid_if_running()? else { return Ok(None) };
    let now = nanoseconds(SystemTime::now());
    let id = sandbox.id();
    let record = &sandbox.record;
    let base = ["", &id, "", &id, &record.namespace, &record.name].map(str::to_owned).to_vec();
    let mut own = Gathered { base, now, metrics: Vec::new() };
    if record.namespaces[0] != NamespaceMode::Node as i32 {
        for interface in usage::interfaces(pid) {
            for (way, [bytes, packets, errors, dropped]) in
                [("receive", interface.received), ("transmit", interface.sent)]
            {
                let label = [interface.name.as_str()];
                own.add(&format!("container_network_{way}_bytes_total"), &label, bytes);
                own.add(&format!("container_network_{way}_packets_total"), &label, packets);
                own.add(&format!("container_network_{way}_errors_total"), &label, errors);
                own.add(&format!("container_network_{way}_packets_dropped_total"), &label, dropped);
            }
        }
    }
    let cgroup = PodCgroup::recorded(sandbox.pod.dir())?;
    let mut container_metrics = Vec::new();
    for container in container::of_sandbox(sandbox)? {
        let status = container.status(sandbox)?;
        if status.state != "running" {
            continue;
        }
        let id = container.id.to_string();
        let image = container.record.image.as_str();
        let base = [&container.record.name, &id, image, &id, &record.namespace, &record.name];
        let mut gathered = Gathered { base: base.map(str::to_owned).to_vec(), now, metrics: Vec::new() };
        of_container(node, sandbox, &container, &cgroup, &mut gathered)?;
        gathered.add("container_start_time_seconds", &[], seconds(status.started_at.unwrap_or_default()));
        container_metrics.push(ContainerMetrics { container_id: id, metrics: gathered.metrics });
    }
    Ok(Some(PodSandboxMetrics { pod_sandbox_id: id, metrics: own.metrics, container_metrics }))
}

fn seconds(nanoseconds: i64) -> u64 {
    nanoseconds.max(0).unsigned_abs() / SECOND
}

fn of_container(
    node: &Node,
    sandbox: &Sandbox,
    container: &Container,
    cgroup: &PodCgroup,
    out: &mut Gathered,
) -> Result<()> {
    let place = layout::app_cgroup(container.name());
    let files = Files::of(cgroup, &place);
    let (cpu, memory) = (Cpu::of(&files), Memory::of(&files));
    out.add("container_cpu_usage_seconds_total", &["total"], cpu.total / SECOND);
    out.add("container_cpu_user_seconds_total", &[], cpu.user / SECOND);
    out.add("container_cpu_system_seconds_total", &[], cpu.system / SECOND);
    out.add("container_cpu_cfs_periods_total", &[], cpu.periods);
    out.add("container_cpu_cfs_throttled_periods_total", &[], cpu.throttled_periods);
    out.add("container_cpu_cfs_throttled_seconds_total", &[], cpu.throttled / SECOND);
    out.add("container_memory_usage_bytes", &[], memory.usage);
    out.add("container_memory_working_set_bytes", &[], memory.working_set());
    out.add("container_memory_max_usage_bytes", &[], memory.most);
    out.add("container_memory_cache", &[], memory.cache);
    out.add("container_memory_rss", &[], memory.rss);
    out.add("container_memory_mapped_file", &[], memory.mapped);
    out.add("container_memory_kernel_usage", &[], memory.kernel);
    out.add("container_memory_swap", &[], memory.swap);
    out.add("container_memory_failcnt", &[], memory.failures);
    for scope in ["container", "hierarchy"] {
        out.add("container_memory_failures_total", &["pgfault", scope], memory.faults);
        out.add("container_memory_failures_total", &["pgmajfault", scope], memory.major_faults);
    }
    out.add("container_oom_events_total", &[], memory.oom_kills);
    for device in usage::devices(&files) {
        let (major, minor) = device.name.split_once(':').unwrap_or((&device.name, ""));
        for (operation, bytes) in [("Read", device.read), ("Write", device.written)] {
            out.add("container_blkio_device_usage_total", &[&device.name, major, minor, operation], bytes);
        }
        out.add("container_fs_reads_bytes_total", &[&device.name], device.read);
        out.add("container_fs_writes_bytes_total", &[&device.name], device.written);
        out.add("container_fs_reads_total", &[&device.name], device.reads);
        out.add("container_fs_writes_total", &[&device.name], device.writes);
    }
    let pids = cgroup.processes(&place)?;
    let (all, sockets) = usage::descriptors(&pids);
    let counted = cgroup.usage(&place);
    let processes = pids.len() as u64;
    out.add("container_processes", &[], processes);
    out.add("container_threads", &[], counted.pids.unwrap_or(processes));
    out.add("container_threads_max", &[], counted.pids_limit.unwrap_or_default());
    out.add("container_file_descriptors", &[], all);
    out.add("container_sockets", &[], sockets);
    of_file_system(node.store.dir(), disk::below(&stats::upper(sandbox.pod.dir(), container.name())).bytes, out);
    let resources = container::resources::of(container);
    let positive = |number: i64| number.max(0).unsigned_abs();
    out.add("container_spec_cpu_period", &[], positive(resources.cpu_period));
    out.add("container_spec_cpu_quota", &[], positive(resources.cpu_quota));
    out.add("container_spec_cpu_shares", &[], positive(resources.cpu_shares));
    out.add("container_spec_memory_limit_bytes", &[], positive(resources.memory_limit_in_bytes));
    out.add("container_spec_memory_reservation_limit_bytes", &[], 0);
    out.add("container_spec_memory_swap_limit_bytes", &[], positive(resources.memory_swap_limit_in_bytes));
    out.add("container_last_seen", &[], seconds(out.now));
    Ok(())
}

fn of_file_system(dir: &Path, used: u64, out: &mut Gathered) {
    let Ok(stat) = rustix::fs::statvfs(dir) else { return };
    let device = [dir.to_string_lossy()];
    let device = [&*device[0]];
    out.add("container_fs_usage_bytes", &device, used);
    out.add("container_fs_limit_bytes", &device, stat.f_blocks.saturating_mul(stat.f_frsize));
    out.add("container_fs_inodes_total", &device, stat.f_files);
    out.add("container_fs_inodes_free", &device, stat.f_ffree);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_has_the_labels_that_are_announced() {
        let all = descriptors().descriptors;
        let mut names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        assert!(names.is_sorted() && all.iter().all(|one| one.help.ends_with('.')));
        names.dedup();
        assert_eq!(names.len(), all.len());
        let mut gathered = Gathered { base: vec![String::new(); BASE.len()], now: 1, metrics: Vec::new() };
        of_file_system(Path::new("/"), 7, &mut gathered);
        assert_eq!(gathered.metrics.len(), 4);
        for metric in gathered.metrics {
            let announced = all.iter().find(|one| one.name == metric.name).unwrap();
            assert_eq!(announced.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
    }
}
