//! The Kubernetes runtime service: the calls of a kubelet, on real pods, by an independent client.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::Verdict;
use tests::cri::api::security_profile::ProfileType;
use tests::cri::api::{
    AuthConfig, Capability, CheckpointContainerRequest, ContainerConfig, ContainerFilter, ContainerMetadata,
    ContainerState, CreateContainerRequest, DnsConfig, ImageFsInfoRequest, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    ListContainerStatsRequest, ListContainersRequest, ListImagesRequest, ListPodSandboxRequest, Mount, NamespaceOption,
    PodSandboxConfig, PodSandboxFilter, PodSandboxState, PodSandboxStatus, PodSandboxStatusRequest, PullImageRequest,
    RemoveContainerRequest, RemoveImageRequest, RemovePodSandboxRequest, ReopenContainerLogRequest,
    RunPodSandboxRequest, SecurityProfile, StatusRequest, StopContainerRequest, StopPodSandboxRequest, VersionRequest,
};
use tests::cri::{Server, probe, sandbox};
use tests::harness::Context;
use tests::nethost::Host;
use tests::oci::OciImage;
use tests::process::{all, wait_for};
use tests::registry::{Certificates, PASSWORD, Registry, USER, Users};
use tonic::{Code, Status};

tests::cases! {
    both a_pod_of_kubernetes_lives_and_ends 120;
    native a_container_is_what_was_asked_for 120;
    native a_server_that_is_killed_loses_nothing 120;
    native what_makes_no_sense_is_refused;
    native a_pod_joins_the_network_that_is_configured 120;
    native images_are_pulled_with_credentials 120;
}

#[track_caller]
fn stop_sandbox(server: &Server<'_>, id: &str) {
    let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
    server.runtime(|mut client| async move { client.stop_pod_sandbox(request).await }).expect("a stop");
}

#[track_caller]
fn remove_sandbox(server: &Server<'_>, id: &str) {
    let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await }).expect("a removal");
}

fn stop(server: &Server<'_>, id: &str, timeout: i64) -> Result<(), Status> {
    let request = StopContainerRequest { container_id: id.to_owned(), timeout };
    server.runtime(|mut client| async move { client.stop_container(request).await }).map(drop)
}

fn remove(server: &Server<'_>, id: &str) -> Result<(), Status> {
    let request = RemoveContainerRequest { container_id: id.to_owned() };
    server.runtime(|mut client| async move { client.remove_container(request).await }).map(drop)
}

fn sandbox_status(server: &Server<'_>, id: &str) -> Result<PodSandboxStatus, Status> {
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let answer = server.runtime(|mut client| async move { client.pod_sandbox_status(request).await })?;
    Ok(answer.status.expect("a status"))
}

/// The ids of sandboxes that match a filter.
fn sandboxes(server: &Server<'_>, filter: Option<PodSandboxFilter>) -> Vec<String> {
    let request = ListPodSandboxRequest { filter };
    let answer = server.runtime(|mut client| async move { client.list_pod_sandbox(request).await });
    answer.expect("a list").items.into_iter().map(|item| item.id).collect()
}

/// The ids and states of containers that match a filter.
fn containers(server: &Server<'_>, filter: Option<ContainerFilter>) -> Vec<(String, ContainerState)> {
    let request = ListContainersRequest { filter };
    let answer = server.runtime(|mut client| async move { client.list_containers(request).await });
    answer.expect("a list").containers.into_iter().map(|found| (found.id.clone(), found.state())).collect()
}

fn labelled(name: &str, value: &str) -> std::collections::HashMap<String, String> {
    [(name.to_owned(), value.to_owned())].into()
}

fn a_pod_of_kubernetes_lives_and_ends(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let version = server.runtime(|mut client| async move { client.version(VersionRequest::default()).await })?;
    assert_eq!((version.runtime_name.as_str(), version.runtime_api_version.as_str()), ("podctl", "v1"));
    let status = server.runtime(|mut client| async move { client.status(StatusRequest::default()).await })?;
    let conditions = status.status.expect("a status").conditions;
    assert!(conditions.iter().any(|c| c.r#type == "RuntimeReady" && c.status), "{conditions:?}");
    assert!(conditions.iter().any(|c| c.r#type == "NetworkReady"), "{conditions:?}");

    let logs = t.dir.join("logs");
    let config = PodSandboxConfig {
        labels: labelled("app", "web"),
        annotations: labelled("note", "two\nlines"),
        log_directory: logs.display().to_string(),
        ..sandbox("web")
    };
    let pod = server.sandbox(&config);
    assert!(pod.bytes().all(|byte| byte.is_ascii_hexdigit()), "{pod}");
    assert_eq!(server.sandbox(&config), pod, "asked for again it is the same");
    let status = sandbox_status(&server, &pod)?;
    assert_eq!((status.state(), &status.labels), (PodSandboxState::SandboxReady, &config.labels));
    assert_eq!((&status.annotations, &status.metadata), (&config.annotations, &config.metadata));
    let filter = |label_selector| Some(PodSandboxFilter { label_selector, ..Default::default() });
    assert_eq!(sandboxes(&server, filter(labelled("app", "web"))), [pod.as_str()]);
    assert!(sandboxes(&server, filter(labelled("app", "db"))).is_empty());
    assert_eq!(
        sandboxes(&server, Some(PodSandboxFilter { id: pod[..8].to_owned(), ..Default::default() })),
        [pod.as_str()]
    );

    // one container prints and ends, with its log where the kubelet reads it
    let talker = ContainerConfig {
        log_path: "talker/0.log".into(),
        labels: labelled("io.kubernetes.container.name", "talker"),
        ..probe("talker", &["print", "hello", "+", "warn", "help", "+", "exit", "7"])
    };
    let ended = server.run(&pod, talker.clone());
    assert_eq!((ended.exit_code, ended.reason.as_str()), (7, "Error"));
    assert!(ended.created_at > 0 && ended.started_at >= ended.created_at && ended.finished_at >= ended.started_at);
    assert_eq!((ended.log_path, &ended.labels), (logs.join("talker/0.log").display().to_string(), &talker.labels));
    let log = fs::read_to_string(logs.join("talker/0.log"))?;
    let lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
    assert!(lines.contains(&"stdout F hello") && lines.contains(&"stderr F help"), "{log}");
    let second = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "talker".into(), attempt: 1 }),
        ..probe("talker", &["exit", "0"])
    };
    let second = server.run(&pod, second);
    assert_eq!((second.exit_code, second.reason.as_str()), (0, "Completed"));
    assert_eq!(second.metadata.expect("metadata").attempt, 1);

    // another container stays
    let waiter =
        server.container(&pod, ContainerConfig { log_path: "waiter/0.log".into(), ..probe("waiter", &["stubborn"]) });
    assert_eq!(server.status(&waiter)?.state(), ContainerState::ContainerCreated);
    server.start_container(&waiter);
    server.start_container(&waiter);
    assert_eq!(server.status(&waiter)?.state(), ContainerState::ContainerRunning);
    let running = ContainerFilter {
        state: Some(tests::cri::api::ContainerStateValue { state: ContainerState::ContainerRunning.into() }),
        ..Default::default()
    };
    assert_eq!(containers(&server, Some(running)), [(waiter.clone(), ContainerState::ContainerRunning)]);

    let said = server.exec(&waiter, &["/probe", "print", "out", "+", "warn", "err", "+", "exit", "3"], 30)?;
    assert_eq!((&*said.stdout, &*said.stderr, said.exit_code), (&b"out\n"[..], &b"err\n"[..], 3));
    // a command that times out is killed; the container goes on
    let nap = format!("31415{}", std::process::id());
    let late = server.exec(&waiter, &["/probe", "sleep", &nap], 1).expect_err("a timeout");
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    wait_for("the end of the command", 10, || (!all().iter().any(|p| p.words.ends_with(&nap))).then_some(()));
    assert_eq!(server.status(&waiter)?.state(), ContainerState::ContainerRunning);
    server.exec(&waiter, &["/probe", "exit", "0"], 0)?;

    let stats = server
        .runtime(|mut client| async move { client.list_container_stats(ListContainerStatsRequest::default()).await })?;
    let of = |id: &str| stats.stats.iter().find(|one| one.attributes.as_ref().is_some_and(|a| a.id == id));
    let used = of(&waiter).expect("stats of the container that runs");
    assert!(used.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds).is_some(), "{used:?}");
    assert!(of(&ended.id).is_some());

    // the log file that was renamed is replaced by a new one
    fs::rename(logs.join("waiter/0.log"), logs.join("waiter/0.log.1"))?;
    let request = ReopenContainerLogRequest { container_id: waiter.clone() };
    server.runtime(|mut client| async move { client.reopen_container_log(request).await })?;
    assert!(logs.join("waiter/0.log").exists());
    // while a container is being started, by a process that holds its lock, it has none: the start is waited for
    let uuid = [&pod[..8], &pod[8..12], &pod[12..16], &pod[16..20], &pod[20..]].join("-");
    let held = fs::File::open(podctl.data.join("pods/run").join(uuid).join("appsinfo").join(&waiter[..32]))?;
    held.lock()?;
    std::thread::scope(|scope| {
        let reopened = scope.spawn(|| {
            let request = ReopenContainerLogRequest { container_id: waiter.clone() };
            server.runtime(|mut client| async move { client.reopen_container_log(request).await })
        });
        std::thread::sleep(Duration::from_millis(500));
        assert!(!reopened.is_finished(), "the start goes on");
        held.unlock().expect("unlock");
        reopened.join().expect("a thread").expect("a log");
    });

    stop(&server, &waiter, 0)?;
    let killed = server.status(&waiter)?;
    assert_eq!((killed.state(), killed.exit_code), (ContainerState::ContainerExited, 137));
    stop(&server, &waiter, 10)?;
    remove(&server, &waiter)?;
    remove(&server, &waiter)?;
    assert_eq!(server.status(&waiter).expect_err("it is gone").code(), Code::NotFound);

    // stopping the sandbox stops its containers, which can be removed afterwards
    let last = server.container(&pod, probe("last", &["stubborn"]));
    server.start_container(&last);
    stop_sandbox(&server, &pod);
    stop_sandbox(&server, &pod);
    assert_eq!(sandbox_status(&server, &pod)?.state(), PodSandboxState::SandboxNotready);
    let killed = server.status(&last)?;
    assert_eq!((killed.state(), killed.exit_code), (ContainerState::ContainerExited, 137));
    remove(&server, &last)?;
    assert!(server.try_container(&pod, probe("late", &["exit", "0"])).is_err());
    remove_sandbox(&server, &pod);
    remove_sandbox(&server, &pod);
    assert_eq!(sandbox_status(&server, &pod).expect_err("it is gone").code(), Code::NotFound);
    assert!(sandboxes(&server, None).is_empty() && containers(&server, None).is_empty());
    Ok(())
}

/// Runs a container that reports what it sees.
#[track_caller]
fn report(t: &Context, server: &Server<'_>, pod: &str, config: ContainerConfig) -> Value {
    let name = config.metadata.clone().expect("metadata").name;
    let out = t.dir.join("seen");
    fs::create_dir_all(&out).expect("mkdir");
    fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let file = format!("/out/{name}.json");
    let mount = Mount { host_path: out.display().to_string(), container_path: "/out".into(), ..Default::default() };
    let mounts = std::iter::once(mount).chain(config.mounts.clone()).collect();
    let args = vec!["report".to_owned(), file];
    let ended = server.run(pod, ContainerConfig { args, mounts, ..config });
    assert_eq!(ended.exit_code, 0, "{ended:?}");
    let text = fs::read_to_string(out.join(format!("{name}.json"))).expect("a report");
    serde_json::from_str(&text).expect("JSON")
}

fn with_context(context: LinuxContainerSecurityContext) -> Option<LinuxContainerConfig> {
    Some(LinuxContainerConfig { security_context: Some(context), ..Default::default() })
}

fn a_container_is_what_was_asked_for(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let pod = server.sandbox(&sandbox("asked"));

    let missing = t.dir.join("made/for/it");
    let context = LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["ALL".into()],
            ..Default::default()
        }),
        run_as_user: Some(Int64Value { value: 1000 }),
        run_as_group: Some(Int64Value { value: 1001 }),
        supplemental_groups: vec![1002, 1003],
        readonly_rootfs: true,
        no_new_privs: true,
        seccomp: Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() }),
        ..Default::default()
    };
    let resources = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpu_shares: 512,
        oom_score_adj: 987,
        ..Default::default()
    };
    let config = ContainerConfig {
        envs: vec![KeyValue { key: "A".into(), value: b"b=c d".to_vec() }],
        working_dir: "/out".into(),
        mounts: vec![Mount {
            host_path: missing.display().to_string(),
            container_path: "/made".into(),
            readonly: true,
            ..Default::default()
        }],
        linux: Some(LinuxContainerConfig { resources: Some(resources), security_context: Some(context) }),
        ..probe("strict", &[])
    };
    let seen = report(t, &server, &pod, config);
    assert_eq!((&seen["env"]["A"], &seen["cwd"]), (&"b=c d".into(), &"/out".into()));
    assert_eq!(seen["ids"]["uid"][0], 1000);
    assert_eq!(
        (&seen["ids"]["gid"][0], &seen["ids"]["groups"]),
        (&1001.into(), &serde_json::json!([1001, 1002, 1003]))
    );
    // CAP_NET_ADMIN alone
    assert_eq!(seen["capabilities"]["CapBnd"], "0000000000001000");
    assert_eq!((&seen["seccomp"], &seen["no_new_privs"]), (&"2".into(), &"1".into()));
    assert_eq!((&seen["oom_score_adj"], &seen["hostname"]), (&"987".into(), &"asked-host".into()));
    let mounted = |at: &str| {
        let mut lines = seen["mountinfo"].as_array().expect("mounts").iter().filter_map(Value::as_str);
        let found = lines.rfind(|line| line.split(' ').nth(4) == Some(at));
        found.unwrap_or_else(|| panic!("nothing is mounted at {at}")).split(' ').nth(5).expect("options").to_owned()
    };
    assert!(mounted("/").starts_with("ro") && mounted("/made").starts_with("ro") && mounted("/out").starts_with("rw"));
    assert!(missing.is_dir(), "what is mounted is made");

    let context = LinuxContainerSecurityContext { privileged: true, ..Default::default() };
    let seen = report(t, &server, &pod, ContainerConfig { linux: with_context(context), ..probe("free", &[]) });
    let status = fs::read_to_string("/proc/self/status")?;
    let ours = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("CapBnd").trim();
    assert_eq!((&seen["seccomp"], &seen["capabilities"]["CapEff"]), (&"0".into(), &ours.into()));

    // only the given command, in place of the image's
    let config = ContainerConfig { command: vec!["/probe".into()], ..probe("command", &["exit", "5"]) };
    assert_eq!(server.run(&pod, config).exit_code, 5);
    let config = ContainerConfig { command: vec!["/no/such/program".into()], ..probe("none", &[]) };
    let none = server.container(&pod, config);
    let request = tests::cri::api::StartContainerRequest { container_id: none.clone() };
    let refused = server.runtime(|mut client| async move { client.start_container(request).await });
    assert!(refused.expect_err("no program").message().contains("/no/such/program"));

    // more memory than its limit
    let resources = LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..Default::default() };
    let config = ContainerConfig {
        linux: Some(LinuxContainerConfig { resources: Some(resources), ..Default::default() }),
        ..probe("hungry", &["alloc", "134217728"])
    };
    let ended = server.run(&pod, config);
    assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    remove_sandbox(&server, &pod);
    Ok(())
}

/// After a kill at any moment the server finds the old state; what it was making is complete or absent.
fn a_server_that_is_killed_loses_nothing(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let pod = server.sandbox(&sandbox("kept"));
    let container = server.container(&pod, probe("waiter", &["sleep", "inf"]));
    server.start_container(&container);
    let ended = server.run(&pod, probe("ended", &["exit", "4"]));
    let (before, waiting) = (sandbox_status(&server, &pod)?, server.status(&container)?);
    server.restart();
    assert_eq!((sandbox_status(&server, &pod)?, server.status(&container)?), (before, waiting));
    assert_eq!(server.status(&ended.id)?, ended);
    assert_eq!(server.exec(&container, &["/probe", "exit", "6"], 10)?.exit_code, 6);
    // the client repeats a call whose answer was lost
    let created = server.container(&pod, probe("asked-twice", &["exit", "0"]));
    server.restart();
    assert_eq!(server.container(&pod, probe("asked-twice", &["exit", "0"])), created);

    // while it makes pods: as soon as the first files of a new one exist
    for number in 0..4 {
        let config = sandbox(&format!("cut-{number}"));
        let pods = |phase: &str| fs::read_dir(podctl.data.join("pods").join(phase)).map_or(0, Iterator::count);
        let before = pods("run");
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
                server.runtime(|mut client| async move { client.run_pod_sandbox(request).await }).is_ok()
            });
            if number % 2 == 0 {
                wait_for("a pod in the making", 30, || (pods("prepare") > 0 || pods("run") > before).then_some(()));
            } else {
                wait_for("a pod that boots", 30, || (pods("run") > before).then_some(()));
            }
            server.signal_kill();
            assert!(!asking.join().expect("a call") || pods("run") > before);
        });
        server.restart();
        // the pod is listed or absent; a kubelet ends and removes what it finds
        for id in sandboxes(&server, None).into_iter().filter(|id| *id != pod) {
            stop_sandbox(&server, &id);
            remove_sandbox(&server, &id);
        }
    }
    remove_sandbox(&server, &pod);
    assert!(sandboxes(&server, None).is_empty());
    let left = podctl.json(&["list", "--format=json"]);
    assert_eq!(left.as_array().map(Vec::len), Some(0), "{left}");
    Ok(())
}

fn what_makes_no_sense_is_refused(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let code = |result: Result<(), Status>| result.expect_err("a refusal").code();
    assert_eq!(code(sandbox_status(&server, "0123").map(drop)), Code::NotFound);
    assert_eq!(code(server.status("../../etc").map(drop)), Code::NotFound);
    for id in ["no-such-id", &"0".repeat(32)] {
        stop_sandbox(&server, id);
        remove_sandbox(&server, id);
        stop(&server, id, 1)?;
        remove(&server, id)?;
    }
    let run = |config: PodSandboxConfig, handler: &str| {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        server.runtime(|mut client| async move { client.run_pod_sandbox(request).await }).map(drop)
    };
    assert_eq!(code(run(PodSandboxConfig::default(), "")), Code::InvalidArgument);
    assert_eq!(code(run(sandbox("x"), "kata")), Code::InvalidArgument);
    let pod = server.sandbox(&sandbox("x"));
    let image = Some(ImageSpec { image: "no/such/image:1".into(), ..Default::default() });
    let config = ContainerConfig { image, ..probe("x", &[]) };
    assert_eq!(code(server.try_container(&pod, config).map(drop)), Code::NotFound);
    let capabilities = Capability { add_capabilities: vec!["BANANA".into()], ..Default::default() };
    let context = LinuxContainerSecurityContext { capabilities: Some(capabilities), ..Default::default() };
    let config = ContainerConfig { linux: with_context(context), ..probe("x", &[]) };
    assert_eq!(code(server.try_container(&pod, config).map(drop)), Code::InvalidArgument);
    let request = CreateContainerRequest { pod_sandbox_id: pod.clone(), ..Default::default() };
    let none = server.runtime(|mut client| async move { client.create_container(request).await });
    assert_eq!(code(none.map(drop)), Code::InvalidArgument);
    let stays = server.container(&pod, probe("stays", &["sleep", "inf"]));
    assert_eq!(code(server.exec(&stays, &["/probe"], 1).map(drop)), Code::FailedPrecondition, "not started yet");
    let absent = server
        .runtime(|mut client| async move { client.checkpoint_container(CheckpointContainerRequest::default()).await });
    assert_eq!(code(absent.map(drop)), Code::Unimplemented);
    remove_sandbox(&server, &pod);
    // a second server at the same socket is refused
    let listen = format!("--listen=unix://{}", podctl.data.with_file_name("cri.sock").display());
    let refused = podctl.fails(&["cri", &listen]);
    assert!(refused.contains("another process does"), "{refused}");
    assert!(podctl.fails(&["cri", "--listen=cri.sock"]).contains("absolute path"));
    Ok(())
}

fn a_pod_joins_the_network_that_is_configured(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let server = Server::start(&host.podctl, &[&host.local]);
    let dns = DnsConfig {
        servers: vec!["10.0.0.10".into()],
        searches: vec!["default.svc.test".into(), "svc.test".into()],
        options: vec!["ndots:5".into()],
    };
    let own = LinuxPodSandboxConfig {
        security_context: Some(tests::cri::api::LinuxSandboxSecurityContext {
            namespace_options: Some(NamespaceOption::default()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let pod = server.sandbox(&PodSandboxConfig { dns_config: Some(dns), linux: Some(own), ..sandbox("net") });
    let network = sandbox_status(&server, &pod)?.network.expect("a network");
    assert!(network.ip.starts_with("10.77.1.") && network.additional_ips.is_empty(), "{network:?}");
    let seen = report(t, &server, &pod, probe("seen", &[]));
    let interfaces = seen["interfaces"].to_string();
    assert!(interfaces.contains("eth0") && !interfaces.contains("eth1"), "{interfaces}");
    let waiter = server.container(&pod, probe("waiter", &["sleep", "inf"]));
    server.start_container(&waiter);
    let resolv = server.exec(&waiter, &["/probe", "cat", "/etc/resolv.conf"], 10)?.stdout;
    let expected = "search default.svc.test svc.test\nnameserver 10.0.0.10\noptions ndots:5\n";
    assert_eq!(String::from_utf8_lossy(&resolv).trim(), expected.trim());
    // its address is free after the stop
    stop_sandbox(&server, &pod);
    assert_eq!(sandbox_status(&server, &pod)?.network.expect("a network").ip, "");
    assert!(!host.reservations().join("br").join(&network.ip).exists(), "{} is still taken", network.ip);
    remove_sandbox(&server, &pod);
    tests::nethost::same(&before, &host.picture(), "after the pod");
    Ok(())
}

fn images_are_pulled_with_credentials(t: &Context) -> Verdict {
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let registry = Registry::start(&t.dir.join("registry"), &certificates, 5000, Users::Password);
    let image = OciImage::new(&t.dir.join("image"), &[5_000]);
    let layout = image.layout(&t.dir.join("layout"), "1");
    registry.copy(&layout, &format!("docker://{}/app/web:1", registry.host));
    let trusting = format!("export SSL_CERT_FILE={}", certificates.authority().display());
    let podctl = t.podctl().called_after(&trusting);
    let server = Server::start(&podctl, &[]);
    let name = format!("{}/app/web:1", registry.host);
    let spec = |text: &str| Some(ImageSpec { image: text.to_owned(), ..Default::default() });
    let pull = |auth: Option<AuthConfig>| {
        let request = PullImageRequest { image: spec(&name), auth, sandbox_config: None };
        server.images(|mut client| async move { client.pull_image(request).await })
    };
    let list = || {
        let answer = server.images(|mut client| async move { client.list_images(ListImagesRequest::default()).await });
        answer.expect("a list").images
    };
    let status = |text: &str| {
        let request = tests::cri::api::ImageStatusRequest { image: spec(text), verbose: false };
        server.images(|mut client| async move { client.image_status(request).await }).expect("a status").image
    };
    pull(None).expect_err("nobody");
    let user = AuthConfig { username: USER.into(), password: "wrong".into(), ..Default::default() };
    pull(Some(user.clone())).expect_err("a wrong password");
    assert!(status(&name).is_none() && list().is_empty());
    let id = pull(Some(AuthConfig { password: PASSWORD.into(), ..user }))?.image_ref;
    let digest = format!("{}/app/web@{}", registry.host, image.digest());
    for text in [&id, &name, &digest] {
        let found = status(text).unwrap_or_else(|| panic!("{text} is not found"));
        assert_eq!((&found.id, &found.repo_tags), (&id, &vec![name.clone()]));
        assert_eq!(found.repo_digests, [digest.as_str()]);
        assert!(found.size > 0 && found.uid.is_some());
    }
    assert_eq!(list().len(), 1, "the pods' own image is not Kubernetes'");
    let usage = server.images(|mut client| async move { client.image_fs_info(ImageFsInfoRequest {}).await })?;
    let used = usage.image_filesystems.first().and_then(|fs| fs.used_bytes).expect("bytes").value;
    assert!(used > 5_000, "{used}");

    let pod = server.sandbox(&sandbox("pulled"));
    let config = ContainerConfig { image: spec(&id), ..probe("web", &[]) };
    let ended = server.run(&pod, config);
    assert_eq!((ended.exit_code, &ended.image_ref), (0, &id));
    let remove = |text: &str| {
        let request = RemoveImageRequest { image: spec(text) };
        server.images(|mut client| async move { client.remove_image(request).await }).map(drop)
    };
    assert_eq!(remove(&id).expect_err("it is used").code(), Code::FailedPrecondition);
    remove_sandbox(&server, &pod);
    remove(&name)?;
    remove(&name)?;
    assert!(list().is_empty() && !Path::new(&podctl.data).join("images").join(&id).exists());
    Ok(())
}
