//! What the Kubernetes runtime tells of what pods use and do: figures, limits, events.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tests::Verdict;
use tests::cri::api::{
    ContainerConfig, ContainerEventType, ContainerStatsRequest, ExecSyncRequest, GetEventsRequest, ImageSpec,
    LinuxContainerConfig, LinuxContainerResources, LinuxPodSandboxConfig, LinuxPodSandboxStats, ListImagesRequest,
    ListMetricDescriptorsRequest, ListPodSandboxMetricsRequest, ListPodSandboxStatsRequest, PodSandboxConfig,
    PodSandboxStatsRequest, PodSandboxStatusRequest, RemovePodSandboxRequest, StatusRequest, StopContainerRequest,
    StopPodSandboxRequest, StreamContainersRequest, UInt64Value, UpdateContainerResourcesRequest,
    UpdatePodSandboxResourcesRequest,
};
use tests::cri::{Server, probe, sandbox};
use tests::harness::{Context, Layout};
use tests::process::{pod_cgroups, wait_for};
use tonic::{Code, Status};

tests::cases! {
    native limits_figures_and_events_of_a_pod 180;
    both limits_and_pressure_of_a_sandbox;
    both what_has_no_limits_is_counted_too 120;
    native a_stop_does_not_wait_for_a_command_that_was_killed 120;
}

/// What happens, as it is told: of which sandbox or container, and what.
fn listen(server: &Server<'_>) -> mpsc::Receiver<(String, ContainerEventType)> {
    let (sender, events) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel();
    server.listen(move |mut client| async move {
        let mut stream = client.get_container_events(GetEventsRequest {}).await?.into_inner();
        let _ = ready.send(());
        while let Some(event) = stream.message().await? {
            assert!(event.created_at > 0 && event.pod_sandbox_status.is_some(), "{event:?}");
            if sender.send((event.container_id.clone(), event.container_event_type())).is_err() {
                break;
            }
        }
        Ok(())
    });
    is_ready.recv_timeout(Duration::from_secs(20)).expect("a stream of events");
    events
}

#[track_caller]
fn next(events: &mpsc::Receiver<(String, ContainerEventType)>) -> (String, ContainerEventType) {
    events.recv_timeout(Duration::from_secs(30)).expect("an event")
}

fn update(server: &Server<'_>, container: &str, linux: LinuxContainerResources) -> Result<(), Status> {
    let request = UpdateContainerResourcesRequest {
        container_id: container.to_owned(),
        linux: Some(linux),
        ..Default::default()
    };
    server.runtime(|mut client| async move { client.update_container_resources(request).await }).map(drop)
}

fn limits_figures_and_events_of_a_pod(t: &Context) -> Verdict {
    use ContainerEventType::{
        ContainerCreatedEvent as Created, ContainerDeletedEvent as Deleted, ContainerStartedEvent as Started,
        ContainerStoppedEvent as Stopped,
    };
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &["--metrics=127.0.0.1:0"]);
    let events = listen(&server);
    let pod = server.sandbox(&sandbox("figures"));
    assert_eq!((next(&events), next(&events)), ((pod.clone(), Created), (pod.clone(), Started)));
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpu_shares: 512,
        ..Default::default()
    };
    let config = tests::cri::api::ContainerConfig {
        linux: Some(LinuxContainerConfig { resources: Some(resources.clone()), ..Default::default() }),
        ..probe("busy", &["alloc", "8388608", "+", "print", "on", "+", "sleep", "inf"])
    };
    let busy = server.container(&pod, config);
    server.start_container(&busy);
    assert_eq!((next(&events), next(&events)), ((busy.clone(), Created), (busy.clone(), Started)));

    // limits: as they were asked for, and as they are changed; what is 0 stays
    let now = server.status(&busy)?.resources.and_then(|all| all.linux).expect("resources");
    assert_eq!(
        (now.memory_limit_in_bytes, now.cpu_quota, now.cpu_period, now.cpu_shares),
        (64 << 20, 50_000, 100_000, 512)
    );
    update(&server, &busy, LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..Default::default() })?;
    update(&server, &busy, LinuxContainerResources { cpu_quota: 30_000, cpu_period: 100_000, ..Default::default() })?;
    let now = server.status(&busy)?.resources.and_then(|all| all.linux).expect("resources");
    assert_eq!((now.memory_limit_in_bytes, now.cpu_quota, now.cpu_shares), (96 << 20, 30_000, 512));
    let request = ContainerStatsRequest { container_id: busy.clone() };
    let stats =
        server.runtime(|mut client| async move { client.container_stats(request).await })?.stats.expect("stats");
    let memory = stats.memory.expect("memory");
    let value = |number: Option<tests::cri::api::UInt64Value>| number.expect("a number").value;
    let (used, free) = (value(memory.working_set_bytes), value(memory.available_bytes));
    assert_eq!(used + free, 96 << 20, "the new limit holds");
    assert!(used >= 8 << 20 && value(memory.usage_bytes) >= used && value(memory.rss_bytes) >= 8 << 20, "{used}");
    // what is not kept is refused, together with what would be
    let cpu = LinuxContainerResources { cpu_shares: 256, ..Default::default() };
    for bad in [
        LinuxContainerResources { oom_score_adj: 7, ..cpu.clone() },
        LinuxContainerResources { cpuset_cpus: "0".into(), ..cpu.clone() },
        LinuxContainerResources { cpuset_mems: "0".into(), ..cpu },
    ] {
        assert_eq!(update(&server, &busy, bad).expect_err("refused").code(), Code::Unimplemented);
    }
    let now = server.status(&busy)?.resources.and_then(|all| all.linux).expect("resources");
    assert_eq!(now.cpu_shares, 512);
    assert_eq!(update(&server, "0123", resources).expect_err("refused").code(), Code::NotFound);
    let request = UpdatePodSandboxResourcesRequest { pod_sandbox_id: pod.clone(), ..Default::default() };
    server.runtime(|mut client| async move { client.update_pod_sandbox_resources(request).await })?;

    // figures of the sandbox, and what Prometheus is told
    let list = ListPodSandboxStatsRequest::default();
    let all = server.runtime(|mut client| async move { client.list_pod_sandbox_stats(list).await })?.stats;
    let linux = all[0].linux.as_ref().expect("linux");
    assert_eq!((all.len(), linux.containers.len(), linux.network.is_some()), (1, 1, false));
    let whole = linux.memory.as_ref().and_then(|memory| memory.working_set_bytes).expect("memory").value;
    assert!(whole > used / 2 && linux.cpu.is_some() && linux.process.is_some(), "{linux:?}");
    let kinds = server
        .runtime(|mut client| async move { client.list_metric_descriptors(ListMetricDescriptorsRequest {}).await })?;
    let metrics = server
        .runtime(|mut client| async move { client.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await })?;
    let of_pod = &metrics.pod_metrics[0];
    assert_eq!((&of_pod.pod_sandbox_id, &of_pod.container_metrics[0].container_id), (&pod, &busy));
    for metric in &of_pod.container_metrics[0].metrics {
        let kind = kinds.descriptors.iter().find(|kind| kind.name == metric.name).expect("it is announced");
        assert_eq!(kind.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        if metric.name == "container_spec_memory_limit_bytes" {
            assert_eq!(value(metric.value), 96 << 20);
        }
    }
    let verbose = StatusRequest { verbose: true };
    let info = server.runtime(|mut client| async move { client.status(verbose).await })?.info;
    let config: serde_json::Value = serde_json::from_str(&info["config"])?;
    let text = page(config["metrics"].as_str().expect("an address"));
    for line in
        ["podctl_cri_sandboxes{state=\"ready\"} 1", "podctl_cri_calls_total{call=\"RunPodSandbox\",code=\"Ok\"} 1"]
    {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    let pieces = server.runtime(|mut client| async move {
        let mut stream = client.stream_containers(StreamContainersRequest::default()).await?.into_inner();
        Ok(tonic::Response::new(stream.message().await?.map(|piece| piece.containers.len())))
    })?;
    assert_eq!(pieces, Some(1));
    let request = PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let status = server.runtime(|mut client| async move { client.pod_sandbox_status(request).await })?;
    assert_eq!(status.containers_statuses, [server.status(&busy)?]);

    // ends are told; a server that was killed meanwhile goes on with what happens from then on
    let request = StopContainerRequest { container_id: busy.clone(), timeout: 0 };
    server.runtime(|mut client| async move { client.stop_container(request).await })?;
    assert_eq!(next(&events), (busy.clone(), Stopped));
    server.restart();
    let events = listen(&server);
    let request = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    server.runtime(|mut client| async move { client.stop_pod_sandbox(request).await })?;
    assert_eq!(next(&events), (pod.clone(), Stopped));
    remove_sandbox(&server, &pod);
    assert_eq!((next(&events), next(&events)), ((busy, Deleted), (pod, Deleted)));
    Ok(())
}

/// The page of metrics.
#[track_caller]
fn page(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("ask");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text
}

/// Nothing of a command that was killed for its timeout is left that the pod would wait for at its end: not on a host
/// either whose PID 1 reaps nothing. What the command has started is the container's, and ends with it.
fn a_stop_does_not_wait_for_a_command_that_was_killed(t: &Context) -> Verdict {
    // such a PID 1 is this process: what loses its parent becomes its child, and is not reaped
    nix::sys::prctl::set_child_subreaper(true)?;
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let pod = server.sandbox(&sandbox("stop"));
    let container = server.container(&pod, probe("waiter", &["stubborn"]));
    server.start_container(&container);
    for words in [&["/probe", "sleep", "1000"][..], &["/probe", "spawn", "stubborn", "+", "stubborn"]] {
        let late = server.exec(&container, words, 1).expect_err("a timeout");
        assert_eq!(late.code(), Code::DeadlineExceeded);
    }
    let began = Instant::now();
    let request = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    server.runtime(|mut client| async move { client.stop_pod_sandbox(request).await })?;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(server.status(&container)?.exit_code, 137);
    remove_sandbox(&server, &pod);
    Ok(())
}

#[track_caller]
fn remove_sandbox(server: &Server<'_>, id: &str) {
    let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await }).expect("a removal");
}

/// A sandbox's cgroup is limited to what its containers may use together, and the overhead.
fn limits_and_pressure_of_a_sandbox(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let memory = |mib: i64| LinuxContainerResources { memory_limit_in_bytes: mib << 20, ..Default::default() };
    let linux = LinuxPodSandboxConfig {
        resources: Some(LinuxContainerResources { cpu_shares: 512, ..memory(64) }),
        overhead: Some(memory(16)),
        ..sandbox("limited").linux.unwrap_or_default()
    };
    let pod = server.sandbox(&PodSandboxConfig { linux: Some(linux), ..sandbox("limited") });
    let (file, shares) = match t.layout {
        Layout::V1 => ("memory.limit_in_bytes", ("cpu.shares", "512")),
        Layout::V2 => ("memory.max", ("cpu.weight", "50")),
    };
    let uuid = [&pod[..8], &pod[8..12], &pod[12..16], &pod[16..20], &pod[20..]].join("-");
    let holds = |file: &str, wanted: &str| {
        let mut places = pod_cgroups(&uuid).into_iter().map(|dir| dir.join(file));
        let place = places.find(|path| path.exists()).expect(file);
        assert_eq!(std::fs::read_to_string(place).expect(file).trim(), wanted, "{file}");
    };
    let change = |resources| {
        let request = UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: pod.clone(),
            resources: Some(resources),
            overhead: Some(memory(16)),
        };
        server.runtime(|mut client| async move { client.update_pod_sandbox_resources(request).await })
    };
    if t.has_controllers() {
        holds(file, &(80 << 20).to_string());
        holds(shares.0, shares.1);
        change(memory(100))?;
        holds(file, &(116 << 20).to_string());
        holds(shares.0, shares.1);
        let bad = LinuxContainerResources { unified: [("a".into(), "b".into())].into(), ..memory(90) };
        assert_eq!(change(bad).expect_err("refused").code(), Code::Unimplemented);
        holds(file, &(116 << 20).to_string());
    }

    let busy = server.container(&pod, probe("busy", &["sleep", "inf"]));
    server.start_container(&busy);
    let request = ContainerStatsRequest { container_id: busy };
    let stats = server.runtime(|mut client| async move { client.container_stats(request).await })?.stats;
    let list = ListPodSandboxStatsRequest::default();
    let of_pod = server.runtime(|mut client| async move { client.list_pod_sandbox_stats(list).await })?.stats;
    let of_pod = of_pod[0].linux.as_ref().expect("linux");
    let told = stats.as_ref().and_then(|stats| Some((stats.cpu.as_ref()?.psi.as_ref()?, stats.io.as_ref()?)));
    let told_of_pod = of_pod.cpu.as_ref().and_then(|cpu| Some((cpu.psi.as_ref()?, of_pod.io.as_ref()?)));
    // A kernel may be built or started without it.
    let has_pressure = pod_cgroups(&uuid).into_iter().any(|dir| std::fs::read(dir.join("cpu.pressure")).is_ok());
    assert_eq!((told.is_some(), told_of_pod.is_some()), (has_pressure, has_pressure), "{stats:?}");
    for psi in [told, told_of_pod].into_iter().flatten().map(|(psi, _)| psi) {
        let some = psi.some.as_ref().expect("some");
        assert!(some.total.is_multiple_of(1000) && (0.0..=100.0).contains(&some.avg10), "{psi:?}");
    }
    remove_sandbox(&server, &pod);
    Ok(())
}

/// A container without limits, as a kubelet asks for one: with the least weight of processor time, and by the image's id.
fn what_has_no_limits_is_counted_too(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let images = server.images(|mut client| async move { client.list_images(ListImagesRequest::default()).await })?;
    let id = images.images[0].id.clone();
    let pod = server.sandbox(&sandbox("free"));
    let resources = LinuxContainerResources { cpu_shares: 2, ..Default::default() };
    let name = "registry.example/team/probe:v1";
    let free = server.container(
        &pod,
        ContainerConfig {
            image: Some(ImageSpec { image: id, user_specified_image: name.into(), ..Default::default() }),
            linux: Some(LinuxContainerConfig { resources: Some(resources), ..Default::default() }),
            ..probe("free", &["alloc", "8388608", "+", "write", "/ready", "yes", "+", "sleep", "inf"])
        },
    );
    server.start_container(&free);
    wait_for("the memory", 30, || {
        let words = ["/probe", "stat", "/ready"].map(str::to_owned).to_vec();
        let request = ExecSyncRequest { container_id: free.clone(), cmd: words, timeout: 10 };
        let answer = server.runtime(|mut client| async move { client.exec_sync(request).await }).expect("a command");
        (answer.exit_code == 0).then_some(())
    });
    assert_eq!(server.status(&free)?.image.expect("an image").image, name);
    let list = || {
        let request = ListPodSandboxStatsRequest::default();
        let answer = server.runtime(|mut client| async move { client.list_pod_sandbox_stats(request).await });
        let linux = answer.expect("figures").stats.remove(0).linux.expect("linux");
        let container = linux.containers[0].clone();
        [(linux.cpu, linux.memory), (container.cpu, container.memory)]
            .map(|(cpu, memory)| (cpu.unwrap(), memory.unwrap()))
    };
    let value = |number: Option<UInt64Value>| number.map(|number| number.value);
    // processor time, and the use of it since the reading before
    for (cpu, memory) in list() {
        assert!(value(cpu.usage_core_nano_seconds) > Some(0), "{cpu:?}");
        assert_eq!(cpu.usage_nano_cores, None, "the first reading");
        if t.has_controllers() {
            let (rss, all) = (value(memory.rss_bytes), value(memory.usage_bytes));
            assert!(rss >= Some(8 << 20) && all >= rss, "{memory:?}");
        }
    }
    wait_for("a second reading", 30, || list().iter().all(|(cpu, _)| cpu.usage_nano_cores.is_some()).then_some(()));
    let metrics = server
        .runtime(|mut client| async move { client.list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await })?;
    let all = &metrics.pod_metrics[0].container_metrics[0].metrics;
    let metric = |name: &str| value(all.iter().find(|metric| metric.name == name).expect(name).value);
    if t.has_controllers() {
        assert!(metric("container_memory_rss") >= Some(8 << 20));
        assert_eq!((metric("container_processes"), metric("container_threads")), (Some(1), Some(1)));
    }

    // an ended sandbox uses nothing, which is said so that a kubelet can read it
    let request = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    server.runtime(|mut client| async move { client.stop_pod_sandbox(request).await })?;
    let list = ListPodSandboxStatsRequest::default();
    let all = server.runtime(|mut client| async move { client.list_pod_sandbox_stats(list).await })?.stats;
    assert!(all.is_empty(), "{all:?}");
    let request = PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let one = server.runtime(|mut client| async move { client.pod_sandbox_stats(request).await })?.stats;
    assert_eq!(one.and_then(|stats| stats.linux), Some(LinuxPodSandboxStats::default()));
    remove_sandbox(&server, &pod);
    Ok(())
}
