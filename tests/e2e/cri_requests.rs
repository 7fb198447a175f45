//! The Kubernetes runtime: what a kubelet asks for of mounts, paths, users and the kernel's parameters, and what of it is
//! refused.

use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tests::Verdict;
use tests::cri::api::security_profile::ProfileType;
use tests::cri::api::{
    Capability, ContainerConfig, Int64Value, LinuxContainerConfig, LinuxContainerSecurityContext, Mount,
    MountPropagation, NamespaceMode, NamespaceOption, PodSandboxConfig, RemovePodSandboxRequest, RunPodSandboxRequest,
    SecurityProfile, StatusRequest, SupplementalGroupsPolicy,
};
use tests::cri::{Server, probe, sandbox};
use tests::harness::Context;
use tonic::Code;

tests::cases! {
    native mounts_paths_and_users_of_a_container 120;
    native filters_and_pid_namespaces_of_containers 120;
}

const NONE: Option<&str> = None;

fn with_context(context: LinuxContainerSecurityContext) -> Option<LinuxContainerConfig> {
    Some(LinuxContainerConfig { security_context: Some(context), ..Default::default() })
}

/// Runs a container that stays; its id.
#[track_caller]
fn stays(server: &Server<'_>, pod: &str, config: ContainerConfig) -> String {
    let id = server.container(pod, ContainerConfig { args: ["sleep", "inf"].map(str::to_owned).to_vec(), ..config });
    server.start_container(&id);
    id
}

#[track_caller]
fn said(server: &Server<'_>, id: &str, words: &[&str]) -> String {
    let words: Vec<&str> = ["/probe"].iter().chain(words).copied().collect();
    let answer = server.exec(id, &words, 30).expect("an answer");
    String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
}

fn remove_sandbox(server: &Server<'_>, id: &str) {
    let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await }).expect("a removal");
}

fn filters_and_pid_namespaces_of_containers(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let pod = server.sandbox(&sandbox("asked"));
    let file = t.dir.join("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["sethostname"],"action":"SCMP_ACT_ERRNO"}]}"#;
    fs::write(&file, text)?;
    let profile = |kind: ProfileType, path: &str| {
        Some(SecurityProfile { profile_type: kind.into(), localhost_ref: path.to_owned() })
    };
    let context = |seccomp: Option<SecurityProfile>, pid: NamespaceMode, target: &str| LinuxContainerSecurityContext {
        capabilities: Some(Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() }),
        namespace_options: Some(NamespaceOption {
            pid: pid.into(),
            target_id: target.to_owned(),
            ..Default::default()
        }),
        seccomp,
        ..Default::default()
    };
    let run = |name: &str, context: LinuxContainerSecurityContext| {
        stays(&server, &pod, ContainerConfig { linux: with_context(context), ..probe(name, &[]) })
    };
    let path = file.display().to_string();
    let localhost = profile(ProfileType::Localhost, &path);
    let filtered = run("filtered", context(localhost.clone(), NamespaceMode::Container, ""));
    assert_eq!(said(&server, &filtered, &["syscall", "sethostname"]), "EPERM");
    assert_eq!(said(&server, &filtered, &["syscall", "mount"]), "ok");
    let free = LinuxContainerSecurityContext { privileged: true, ..context(localhost, NamespaceMode::Pod, "") };
    let free = run("free", free);
    assert_eq!(said(&server, &free, &["syscall", "sethostname"]), "ok", "a privileged container has no filter");
    let unfiltered = run("unfiltered", context(profile(ProfileType::Unconfined, ""), NamespaceMode::Pod, ""));
    assert!(said(&server, &unfiltered, &["cat", "/proc/self/status"]).contains("Seccomp:\t0"));

    // its own PID namespace, and the pod's
    let words = |id: &str| said(&server, id, &["cat", "/proc/1/cmdline"]);
    assert!(words(&filtered).starts_with("/probe"), "{}", words(&filtered));
    assert!(words(&free).contains("systemd"), "{}", words(&free));
    let joined = run("joined", context(None, NamespaceMode::Target, &filtered));
    assert!(words(&joined).starts_with("/probe"), "{}", words(&joined));
    assert!(said(&server, &joined, &["cat", "/proc/self/status"]).contains("Seccomp:\t0"));
    let ended = server.run(
        &pod,
        ContainerConfig {
            linux: with_context(context(None, NamespaceMode::Container, "")),
            ..probe("ended", &["exit", "9"])
        },
    );
    assert_eq!((ended.exit_code, ended.reason.as_str()), (9, "Error"));

    let refused = |context: LinuxContainerSecurityContext| {
        let config = ContainerConfig { linux: with_context(context), ..probe("refused", &[]) };
        server.try_container(&pod, config).expect_err("it makes no sense")
    };
    for (context, code, why) in [
        (
            context(profile(ProfileType::Localhost, "/no/such"), NamespaceMode::Pod, ""),
            Code::InvalidArgument,
            "/no/such",
        ),
        (context(profile(ProfileType::Localhost, "x.json"), NamespaceMode::Pod, ""), Code::InvalidArgument, "absolute"),
        (context(None, NamespaceMode::Target, "1234"), Code::InvalidArgument, "not a container of the sandbox"),
        (context(None, NamespaceMode::Node, ""), Code::InvalidArgument, "host's PID namespace"),
    ] {
        let refused = refused(context);
        assert!(refused.code() == code && refused.message().contains(why), "{refused}");
    }
    // the host's, in a sandbox that was made for it
    let mut hosts = sandbox("hosts");
    let options = hosts.linux.as_mut().and_then(|linux| linux.security_context.as_mut()?.namespace_options.as_mut());
    options.expect("namespaces").pid = NamespaceMode::Node.into();
    let hosts = server.sandbox(&hosts);
    let on_host = ContainerConfig { linux: with_context(context(None, NamespaceMode::Node, "")), ..probe("all", &[]) };
    let on_host = stays(&server, &hosts, on_host);
    let seen = said(&server, &on_host, &["ls", "/proc"]);
    assert!(seen.lines().any(|name| *name == std::process::id().to_string()), "{seen}");
    remove_sandbox(&server, &hosts);
    let apparmor = LinuxContainerSecurityContext {
        apparmor: profile(ProfileType::Localhost, "web"),
        ..context(None, NamespaceMode::Pod, "")
    };
    assert!(refused(apparmor).message().contains("AppArmor"));
    remove_sandbox(&server, &pod);
    Ok(())
}

fn mounts_paths_and_users_of_a_container(t: &Context) -> Verdict {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE)?;
    let source = t.dir.join("source");
    for dir in ["below", "later", "shared"] {
        fs::create_dir_all(source.join(dir))?;
    }
    mount(Some("none"), &source.join("below"), Some("tmpfs"), MsFlags::empty(), NONE)?;
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let features = server.runtime(|mut client| async move { client.status(StatusRequest::default()).await })?;
    let handler = features.runtime_handlers.first().and_then(|handler| handler.features);
    assert!(handler.is_some_and(|handler| handler.recursive_read_only_mounts));
    assert!(features.features.is_some_and(|features| features.supplemental_groups_policy));

    let with_sysctls = |pairs: &[(&str, &str)], config: PodSandboxConfig| {
        let mut linux = config.linux.unwrap_or_default();
        linux.sysctls = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        PodSandboxConfig { linux: Some(linux), ..config }
    };
    let run = |config: PodSandboxConfig| {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        server.runtime(|mut client| async move { client.run_pod_sandbox(request).await })
    };
    for name in ["kernel.panic", "net.core.somaxconn"] {
        let refused = run(with_sysctls(&[(name, "5")], sandbox("refused"))).expect_err(name);
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(name), "{refused}");
    }
    let own = [("kernel.shm_rmid_forced", "1"), ("fs.mqueue.msg_max", "100")];
    let pod = server.sandbox(&with_sysctls(&own, sandbox("asked")));

    let at = |path: &str, propagation: MountPropagation| Mount {
        host_path: source.display().to_string(),
        container_path: path.to_owned(),
        propagation: propagation.into(),
        ..Default::default()
    };
    use MountPropagation::{PropagationBidirectional, PropagationHostToContainer, PropagationPrivate};
    let privileged = LinuxContainerSecurityContext {
        privileged: true,
        // of no effect
        masked_paths: vec!["/data/kept".into()],
        ..Default::default()
    };
    let mounts = vec![
        at("/private", PropagationPrivate),
        at("/slave", PropagationHostToContainer),
        at("/shared", PropagationBidirectional),
        Mount { readonly: true, ..at("/top", PropagationHostToContainer) },
        Mount { readonly: true, recursive_read_only: true, ..at("/all", PropagationPrivate) },
    ];
    let free = stays(
        &server,
        &pod,
        ContainerConfig { linux: with_context(privileged), mounts: mounts.clone(), ..probe("free", &[]) },
    );
    let shown: Vec<_> =
        server.status(&free)?.mounts.iter().map(|m| (m.container_path.clone(), m.propagation)).collect();
    assert_eq!(shown, mounts.iter().map(|m| (m.container_path.clone(), m.propagation)).collect::<Vec<_>>());
    mount(Some("none"), &source.join("later"), Some("tmpfs"), MsFlags::empty(), NONE)?;
    fs::write(source.join("later/word"), "x")?;
    for (name, comes) in [("private", false), ("slave", true), ("shared", true), ("top", true), ("all", false)] {
        assert_eq!(said(&server, &free, &["ls", &format!("/{name}/later")]) == "word", comes, "{name}");
    }
    for (path, outcome) in [("/top/x", "ENOENT"), ("/top/below/x", "ok"), ("/all/below/x", "EROFS")] {
        said(&server, &free, &["write", path, "x"]);
        assert_eq!(said(&server, &free, &["open", "w", path]), outcome, "{path}");
    }
    said(&server, &free, &["mount", "/shared/shared"]);
    assert!(fs::read_to_string("/proc/self/mountinfo")?.contains(&format!("{}/shared ", source.display())));
    assert_eq!(said(&server, &free, &["cat", "/data/kept"]), "from the image", "nothing is hidden from it");
    assert_eq!(said(&server, &free, &["cat", "/proc/sys/fs/mqueue/msg_max"]), "100");
    assert_eq!(said(&server, &free, &["cat", "/proc/sys/kernel/shm_rmid_forced"]), "1");

    // a user by name, its groups, what it does not see, and capabilities that last
    let context = LinuxContainerSecurityContext {
        run_as_username: "web".into(),
        supplemental_groups: vec![7],
        masked_paths: vec!["/data/kept".into(), "/proc/interrupts".into()],
        readonly_paths: vec!["/tmp".into()],
        capabilities: Some(Capability { add_ambient_capabilities: vec!["SYS_TIME".into()], ..Default::default() }),
        seccomp: Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() }),
        ..Default::default()
    };
    let strict = LinuxContainerSecurityContext {
        supplemental_groups_policy: SupplementalGroupsPolicy::Strict.into(),
        run_as_username: String::new(),
        run_as_user: Some(Int64Value { value: 1001 }),
        ..context.clone()
    };
    for (name, context, groups) in [("merge", context, "2001 7 3001"), ("strict", strict, "2001 7")] {
        let id = stays(&server, &pod, ContainerConfig { linux: with_context(context), ..probe(name, &[]) });
        let status = said(&server, &id, &["cat", "/proc/self/status"]);
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!((line("Uid:"), line("Gid:")), (vec!["1001".to_owned(); 4], vec!["2001".to_owned(); 4]));
        let mut found = line("Groups:");
        let mut expected: Vec<String> = groups.split(' ').map(str::to_owned).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{name}");
        let told = server.status(&id)?.user.and_then(|user| user.linux).expect("whom it runs as");
        let mut told_groups: Vec<String> = told.supplemental_groups.iter().map(i64::to_string).collect();
        told_groups.sort();
        assert_eq!((told.uid, told.gid, told_groups), (1001, 2001, expected), "{name}");
        // CAP_SYS_TIME; the filter is there, and yet privileges can be gained
        assert_eq!((line("CapAmb:"), line("CapEff:")), (line("CapPrm:"), vec!["0000000002000000".to_owned()]));
        assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), (vec!["0".to_owned()], vec!["2".to_owned()]));
        for (how, path, outcome) in [
            ("r", "/data/kept", "EACCES"),
            ("r", "/proc/interrupts", "EACCES"),
            ("w", "/tmp/new", "ENOENT"),
            ("r", "/home/readme", "ok"),
        ] {
            assert_eq!(said(&server, &id, &["open", how, path]), outcome, "{name}: {path}");
        }
        said(&server, &id, &["write", "/tmp/new", "x"]);
        assert_eq!(said(&server, &id, &["open", "r", "/tmp/new"]), "ENOENT", "{name}: /tmp is read-only");
    }

    // what makes no sense
    let refused = |mount: Mount, context: LinuxContainerSecurityContext| {
        let config = ContainerConfig { linux: with_context(context), mounts: vec![mount], ..probe("refused", &[]) };
        server.try_container(&pod, config).expect_err("it makes no sense").message().to_owned()
    };
    let usual = LinuxContainerSecurityContext::default;
    let recursive = |propagation| Mount { readonly: true, recursive_read_only: true, ..at("/x", propagation) };
    for (mount, context, why) in [
        (recursive(PropagationHostToContainer), usual(), "goes with private propagation"),
        (recursive(PropagationBidirectional), usual(), "privileged"),
        (Mount { recursive_read_only: true, ..at("/x", PropagationPrivate) }, usual(), "goes with readonly"),
        (at("/x", PropagationBidirectional), usual(), "takes a privileged container"),
    ] {
        let message = refused(mount, context);
        assert!(message.contains(why), "{message}");
    }
    let host_ipc = with_sysctls(&[("kernel.sem", "1 2 3 4")], sandbox("ipc"));
    let mut linux = host_ipc.linux.clone().unwrap_or_default();
    if let Some(options) = linux.security_context.as_mut().and_then(|context| context.namespace_options.as_mut()) {
        options.ipc = NamespaceMode::Node.into();
    }
    let refused = run(PodSandboxConfig { linux: Some(linux), ..host_ipc }).expect_err("the host's IPC");
    assert!(refused.message().contains("host's IPC"), "{refused}");

    remove_sandbox(&server, &pod);
    umount2(&source.join("shared"), MntFlags::empty())
        .map_err(|e| format!("the container's mount on the host: {e}"))?;
    Ok(())
}
