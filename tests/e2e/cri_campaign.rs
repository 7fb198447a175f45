//! The whole life of many pods, by several clients at once, while the Kubernetes runtime is killed every second.
//!
//! A normal run has few pods; `CRI_CAMPAIGN=100:8` has a hundred by eight clients, and prints figures.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tests::Verdict;
use tests::cri::api::{
    AuthConfig, ContainerConfig, ContainerStatsRequest, CreateContainerRequest, ExecSyncRequest, ImageSpec,
    ListPodSandboxRequest, PodSandboxConfig, PodSandboxMetadata, PullImageRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, StartContainerRequest, StopContainerRequest, StopPodSandboxRequest,
};
use tests::cri::{Server, probe, sandbox};
use tests::harness::Context;
use tests::oci::OciImage;
use tests::process::wait_for;
use tests::registry::{Certificates, PASSWORD, Registry, USER, Users};
use tonic::{Code, Status};

tests::cases! {
    native pods_live_and_end_while_the_server_is_killed 300;
    native a_removal_that_was_cut_short_is_finished;
}

/// How long a client goes on asking for one thing.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often the server is killed.
const KILL: Duration = Duration::from_secs(1);

/// Pods, clients, and how often the server is killed at most: on a busy machine a second may be too short for anything.
fn size() -> (usize, usize, usize) {
    let Ok(text) = std::env::var("CRI_CAMPAIGN") else { return (4, 2, 10) };
    let parse = || {
        let (pods, clients) = text.split_once(':')?;
        Some((pods.parse().ok()?, clients.parse().ok()?, usize::MAX))
    };
    parse().unwrap_or_else(|| panic!("CRI_CAMPAIGN={text:?}: use PODS:CLIENTS, such as 100:8"))
}

/// What the campaign counts.
#[derive(Default)]
struct Counts {
    kills: AtomicUsize,
    retries: AtomicUsize,
    replaced: AtomicUsize,
    done: AtomicUsize,
}

/// Asks until it is answered, as a kubelet does: whatever the answer was lost for.
fn ask<A>(counts: &Counts, what: &str, mut call: impl FnMut() -> Result<A, Status>) -> Result<A, Status> {
    let end = Instant::now() + PATIENCE;
    loop {
        match call() {
            Err(status) if status.code() != Code::AlreadyExists && Instant::now() < end => {
                counts.retries.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(status) if status.code() != Code::AlreadyExists => panic!("{what}: {status}"),
            other => return other,
        }
    }
}

fn config(number: usize, attempt: u32, logs: &str) -> PodSandboxConfig {
    let name = format!("pod-{number}");
    PodSandboxConfig {
        log_directory: format!("{logs}/{name}"),
        labels: [("number".to_owned(), number.to_string())].into(),
        metadata: Some(PodSandboxMetadata {
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt,
            name: name.clone(),
        }),
        ..sandbox(&name)
    }
}

fn live(server: &Server<'_>, counts: &Counts, number: usize, image: &str, logs: &str) {
    let stop_and_remove = |id: &str| {
        let _ = ask(counts, "stop a sandbox", || {
            let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
            server.runtime(|mut client| async move { client.stop_pod_sandbox(request).await })
        });
        let _ = ask(counts, "remove a sandbox", || {
            let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
            server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await })
        });
    };
    let mut attempt = 0;
    let pod = loop {
        let made = ask(counts, "run a sandbox", || {
            let config = Some(config(number, attempt, logs));
            let request = RunPodSandboxRequest { config, runtime_handler: String::new() };
            server.runtime(|mut client| async move { client.run_pod_sandbox(request).await })
        });
        if let Ok(made) = made {
            break made.pod_sandbox_id;
        }
        // one that did not come up is removed, and followed by the next
        counts.replaced.fetch_add(1, Ordering::Relaxed);
        attempt += 1;
        let filter = tests::cri::api::PodSandboxFilter {
            label_selector: [("number".to_owned(), number.to_string())].into(),
            ..Default::default()
        };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        let list = ask(counts, "list", || {
            let request = request.clone();
            server.runtime(|mut client| async move { client.list_pod_sandbox(request).await })
        });
        list.expect("a list").items.iter().for_each(|item| stop_and_remove(&item.id));
    };
    let auth = AuthConfig { username: USER.into(), password: PASSWORD.into(), ..Default::default() };
    let spec = Some(ImageSpec { image: image.to_owned(), ..Default::default() });
    ask(counts, "pull", || {
        let request = PullImageRequest { image: spec.clone(), auth: Some(auth.clone()), sandbox_config: None };
        server.images(|mut client| async move { client.pull_image(request).await })
    })
    .expect("an image");
    let container = ContainerConfig {
        image: spec.clone(),
        log_path: "main/0.log".into(),
        ..probe("main", &["print", &format!("hello {number}"), "+", "sleep", "inf"])
    };
    let container = ask(counts, "create", || {
        let config = Some(container.clone());
        let request = CreateContainerRequest { pod_sandbox_id: pod.clone(), config, sandbox_config: None };
        server.runtime(|mut client| async move { client.create_container(request).await })
    });
    let id = container.expect("a container").container_id;
    ask(counts, "start", || {
        let request = StartContainerRequest { container_id: id.clone() };
        server.runtime(|mut client| async move { client.start_container(request).await })
    })
    .expect("a start");
    let said = ask(counts, "exec", || {
        let cmd = ["/probe", "print", "inside"].map(str::to_owned).to_vec();
        let request = ExecSyncRequest { container_id: id.clone(), cmd, timeout: 60 };
        server.runtime(|mut client| async move { client.exec_sync(request).await })
    });
    assert_eq!(String::from_utf8_lossy(&said.expect("an exec").stdout), "inside\n");
    let log = format!("{logs}/pod-{number}/main/0.log");
    let line = format!("stdout F hello {number}");
    wait_for("the log", 60, || fs::read_to_string(&log).ok().filter(|text| text.contains(&line)));
    let stats = ask(counts, "stats", || {
        let request = ContainerStatsRequest { container_id: id.clone() };
        server.runtime(|mut client| async move { client.container_stats(request).await })
    });
    assert!(stats.expect("stats").stats.is_some_and(|stats| stats.memory.is_some()));
    ask(counts, "stop", || {
        let request = StopContainerRequest { container_id: id.clone(), timeout: 2 };
        server.runtime(|mut client| async move { client.stop_container(request).await })
    })
    .expect("a stop");
    stop_and_remove(&pod);
    counts.done.fetch_add(1, Ordering::Relaxed);
}

fn pods_live_and_end_while_the_server_is_killed(t: &Context) -> Verdict {
    let (pods, clients, kills) = size();
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let registry = Registry::start(&t.dir.join("registry"), &certificates, 5000, Users::Password);
    let image = OciImage::new(&t.dir.join("image"), &[5_000]);
    let name = format!("{}/app/web:1", registry.host);
    registry.copy(&image.layout(&t.dir.join("layout"), "1"), &format!("docker://{name}"));
    let podctl = t.podctl().called_after(&format!("export SSL_CERT_FILE={}", certificates.authority().display()));
    let server = Server::start(&podctl, &[]);
    let logs = t.dir.join("logs").display().to_string();
    let (counts, next, over) = (Counts::default(), AtomicUsize::new(0), AtomicBool::new(false));
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= pods {
                            return;
                        }
                        live(&server, &counts, number, &name, &logs);
                    }
                })
            })
            .collect();
        let killer = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && counts.kills.load(Ordering::Relaxed) < kills {
                std::thread::sleep(KILL);
                server.restart();
                counts.kills.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        over.store(true, Ordering::Relaxed);
        killer.join().expect("the killer");
        assert!(ended.iter().all(Result::is_ok), "a client has failed");
    });
    let number = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    println!(
        "{} pods by {clients} clients in {:.1} s: the server was killed {} times, {} calls were made again, {} sandboxes replaced",
        number(&counts.done),
        began.elapsed().as_secs_f64(),
        number(&counts.kills),
        number(&counts.retries),
        number(&counts.replaced),
    );
    assert_eq!(number(&counts.done), pods);
    let request = ListPodSandboxRequest::default();
    let left = server.runtime(|mut client| async move { client.list_pod_sandbox(request).await })?.items;
    assert!(left.is_empty(), "{left:?}");
    let left = podctl.json(&["list", "--format=json"]);
    assert_eq!(left.as_array().map(Vec::len), Some(0), "{left}");
    Ok(())
}

/// What is left of a pod that was half removed when the server was killed: its directory without the manifest.
fn a_removal_that_was_cut_short_is_finished(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let half_removed = |name: &str| -> std::io::Result<(String, std::path::PathBuf)> {
        let pod = server.sandbox(&sandbox(name));
        let request = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
        server.runtime(|mut client| async move { client.stop_pod_sandbox(request).await }).expect("a stop");
        let is_it = |at: &std::path::PathBuf| at.to_string_lossy().replace('-', "").ends_with(&pod);
        let run = fs::read_dir(podctl.data.join("pods/run"))?.flatten().map(|entry| entry.path()).find(is_it);
        let run = run.expect("its directory");
        let garbage = podctl.data.join("pods/exited-garbage").join(run.file_name().expect("a name"));
        fs::create_dir_all(podctl.data.join("pods/exited-garbage"))?;
        fs::rename(&run, &garbage)?;
        fs::remove_file(garbage.join("pod"))?;
        Ok((pod, garbage))
    };
    let (pod, garbage) = half_removed("asked")?;
    let request = ListPodSandboxRequest::default();
    let left = server.runtime(|mut client| async move { client.list_pod_sandbox(request).await })?.items;
    assert!(left.is_empty(), "{left:?}");
    for _ in 0..2 {
        let request = RemovePodSandboxRequest { pod_sandbox_id: pod.clone() };
        server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await })?;
        assert!(!garbage.exists(), "{garbage:?}");
    }
    // a container whose times are gone, but which is still listed, has a time: kubelets refuse a status without one
    let pod = server.sandbox(&sandbox("with-a-container"));
    let container = server.container(&pod, probe("short", &["exit", "0"]));
    let request = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    server.runtime(|mut client| async move { client.stop_pod_sandbox(request).await })?;
    let uuid = [&pod[..8], &pod[8..12], &pod[12..16], &pod[16..20], &pod[20..]].join("-");
    let dir = podctl.data.join("pods/run").join(uuid);
    let created = format!("rkt/status/{}-created", &container[..32]);
    // in the root, where that is still mounted, and in what is below it
    let below = fs::read_dir(dir.join("overlay"))?.flatten().map(|entry| entry.path().join("upper"));
    for root in std::iter::once(dir.join("stage1/rootfs")).chain(below) {
        match fs::remove_file(root.join(&created)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    let left = server.status(&container)?;
    assert!(left.created_at > 0 && left.finished_at >= left.created_at, "{left:?}");
    let request = RemovePodSandboxRequest { pod_sandbox_id: pod };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await })?;
    // who is not asked does it when it starts; it removes what was just begun to be made, too
    let (_, garbage) = half_removed("started")?;
    let begun = [("embryo", 1), ("prepare", 2), ("garbage", 3)].map(|(phase, number)| {
        let uuid = format!("0badc0de-{number:04}-4000-8000-000000000000");
        podctl.data.join("pods").join(phase).join(uuid)
    });
    for dir in &begun {
        fs::create_dir_all(dir)?;
    }
    server.restart();
    wait_for("the removal", 20, || (!garbage.exists() && !begun.iter().any(|dir| dir.exists())).then_some(()));
    Ok(())
}
