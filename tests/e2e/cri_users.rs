//! The Kubernetes runtime: pods with a user namespace of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use tests::Verdict;
use tests::cri::api::{
    ContainerConfig, Device, IdMapping, LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, Mount, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxStatusRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StatusRequest, UserNamespace,
};
use tests::cri::{Server, probe, sandbox};
use tests::harness::Context;
use tests::nethost::Host;
use tonic::Code;

tests::cases! {
    native a_pod_has_the_ids_that_the_kubelet_gives 120;
}

fn mappings(host_id: u32) -> Vec<IdMapping> {
    vec![IdMapping { host_id, container_id: 0, length: 100_000 }]
}

fn options(host_id: u32) -> NamespaceOption {
    let users = UserNamespace { mode: NamespaceMode::Pod.into(), uids: mappings(host_id), gids: mappings(host_id) };
    NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() }
}

fn pod(options: NamespaceOption) -> PodSandboxConfig {
    let context = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    let linux = Some(LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() });
    PodSandboxConfig { linux, ..sandbox("users") }
}

fn with_options(options: NamespaceOption) -> Option<LinuxContainerConfig> {
    let context = LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() };
    Some(LinuxContainerConfig { security_context: Some(context), ..Default::default() })
}

fn said(server: &Server<'_>, id: &str, words: &[&str]) -> String {
    let words: Vec<&str> = ["/probe"].iter().chain(words).copied().collect();
    let answer = server.exec(id, &words, 30).expect("an answer");
    String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
}

fn a_pod_has_the_ids_that_the_kubelet_gives(t: &Context) -> Verdict {
    const FIRST: u32 = 3_000_000;
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("roots"), "secret")?;
    fs::set_permissions(source.join("roots"), fs::Permissions::from_mode(0o600))?;
    let server = Server::start(&host.podctl, &[&host.local]);
    let status = server.runtime(|mut client| async move { client.status(StatusRequest::default()).await })?;
    let features = status.runtime_handlers.first().and_then(|handler| handler.features);
    assert!(features.is_some_and(|features| features.user_namespaces), "{features:?}");

    let id = server.sandbox(&pod(options(FIRST)));
    let dir = fs::read_dir(host.podctl.data.join("pods/run"))?.next().expect("a pod")?.path();
    assert!(dir.join("overlay").exists(), "its root is a copy: it could not be mounted with ids of its own");
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false };
    let status = server.runtime(|mut client| async move { client.pod_sandbox_status(request).await })?.status;
    let told = status.and_then(|status| status.linux?.namespaces?.options?.userns_options);
    assert_eq!(told, options(FIRST).userns_options);

    let at = |path: &str| Mount {
        host_path: source.display().to_string(),
        container_path: path.to_owned(),
        ..Default::default()
    };
    let mapped = |path: &str, first| Mount { uid_mappings: mappings(first), gid_mappings: mappings(first), ..at(path) };
    let device = Device { host_path: "/dev/zero".into(), container_path: "/dev/mine".into(), permissions: "rw".into() };
    let config = ContainerConfig {
        linux: with_options(options(FIRST)),
        mounts: vec![mapped("/mapped", FIRST), at("/plain")],
        devices: vec![device],
        ..probe("main", &["sleep", "inf"])
    };
    let main = server.container(&id, config);
    server.start_container(&main);
    for map in ["uid_map", "gid_map"] {
        let map = said(&server, &main, &["cat", &format!("/proc/self/{map}")]);
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "3000000", "100000"]);
    }
    let own = |path: &str| -> serde_json::Value {
        serde_json::from_str(&said(&server, &main, &["stat", path])).expect("JSON")
    };
    for (path, uid) in [("/probe", 0), ("/mapped/roots", 0), ("/plain/roots", 65534)] {
        assert_eq!((own(path)["uid"].as_u64(), own(path)["gid"].as_u64()), (Some(uid), Some(uid)), "{path}");
    }
    for (how, path, outcome) in [
        ("r", "/mapped/roots", "ok"),
        ("w", "/mapped/roots", "ok"),
        ("r", "/plain/roots", "EACCES"),
        ("w", "/dev/mine", "ok"),
    ] {
        assert_eq!(said(&server, &main, &["open", how, path]), outcome, "{path}");
    }
    said(&server, &main, &["write", "/mapped/new", "x"]);
    let made = fs::metadata(source.join("new"))?;
    assert_eq!((made.uid(), made.gid()), (0, 0), "what the pod's root makes in a mapped mount is the host's root's");

    let refused = |config: ContainerConfig| {
        let status = server.try_container(&id, config).expect_err("it makes no sense");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        status.message().to_owned()
    };
    let other = refused(ContainerConfig { linux: with_options(options(FIRST + 1)), ..probe("other", &[]) });
    assert!(other.contains("not the sandbox's"), "{other}");
    let other = refused(ContainerConfig { mounts: vec![mapped("/x", FIRST + 1)], ..probe("other", &[]) });
    assert!(other.contains("not those of the sandbox"), "{other}");
    // a device that does not exist is not made
    let missing = source.join("device");
    let with_device = |source: &str, target: &str, permissions: &str| {
        let (host_path, container_path) = (source.to_owned(), target.to_owned());
        let good =
            Device { host_path: "/dev/zero".into(), container_path: "/dev/mine".into(), permissions: "rw".into() };
        let bad = Device { host_path, container_path, permissions: permissions.to_owned() };
        refused(ContainerConfig { devices: vec![good, bad], ..probe("other", &[]) })
    };
    let other = with_device(&missing.display().to_string(), "/dev/x", "");
    assert!(other.contains("devices[1].host_path") && other.contains("No such file") && !missing.exists(), "{other}");
    // nor is anything but a node taken for a device, nor anything but r, w and m for what may be done with it
    for (source, target, permissions, why) in [
        ("/etc/passwd", "/dev/x", "rwm", "devices[1].host_path: \"/etc/passwd\" is not a device"),
        ("/dev", "/dev/x", "rwm", "devices[1].host_path: \"/dev\" is not a device"),
        (
            "/dev/zero",
            "/etc/../../../q",
            "rw",
            "devices[1].container_path: \"/etc/../../../q\" is not an absolute path",
        ),
        ("/dev/zero", "/dev/x", "zz", "devices[1].permissions: \"zz\""),
    ] {
        let other = with_device(source, target, permissions);
        assert!(other.contains(why), "{other}");
    }
    let run = |options: NamespaceOption| {
        let request = RunPodSandboxRequest { config: Some(pod(options)), runtime_handler: String::new() };
        server.runtime(|mut client| async move { client.run_pod_sandbox(request).await })
    };
    let on_host = run(NamespaceOption { network: NamespaceMode::Node.into(), ..options(FIRST) });
    let on_host = on_host.expect_err("users of its own on the host's network");
    assert!(on_host.code() == Code::InvalidArgument && on_host.message().contains("network"), "{on_host}");

    let request = RemovePodSandboxRequest { pod_sandbox_id: id };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await })?;
    tests::nethost::same(&before, &host.picture(), "after the pod");
    Ok(())
}
