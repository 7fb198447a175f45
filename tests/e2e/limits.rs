//! Limits: in the files of the cgroup, and in their effect.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tests::Verdict;
use tests::harness::{Context, Layout};
use tests::podctl::Pod;
use tests::process::{descendants, pod_cgroups, wait_for};

tests::cases! {
    both a_memory_limit_holds_or_is_named;
    native enter_shares_the_apps_limit;
    native cpu_limits_and_shares;
    both every_limit_is_set_or_named;
    native more_processes_than_allowed;
    both what_a_host_cant_enforce_is_named_for_isolators_too;
    both limits_of_a_whole_pod;
}

/// A process of an app or entered into one, found by a word of its command line.
#[track_caller]
fn app_pid(pod: &Pod<'_>, word: &str) -> i32 {
    wait_for(&format!("a process with {word}"), 10, || {
        let mut family = descendants(pod.pid()).into_iter().chain(descendants(std::process::id() as i32));
        family.find(|p| p.words.starts_with("/probe") && p.words.contains(word)).map(|p| p.pid)
    })
}

/// The directory of a process's cgroup in the hierarchy of a controller.
fn cgroup(pid: i32, controller: &str, layout: Layout) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let wanted = if layout == Layout::V2 { "" } else { controller };
    let path = text.lines().find_map(|l| {
        let mut fields = l.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|c| c == wanted).then(|| fields.next()).flatten()
    });
    let path = path.unwrap_or_else(|| panic!("{pid} is in no {controller} cgroup: {text}")).trim_start_matches('/');
    match layout {
        Layout::V2 => PathBuf::from("/sys/fs/cgroup").join(path),
        Layout::V1 => PathBuf::from("/sys/fs/cgroup").join(controller).join(path),
    }
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn a_memory_limit_holds_or_is_named(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    if !t.has_controllers() {
        // The limit can't be enforced here: the app runs nevertheless, with a warning.
        let args = ["--debug", "app", "add", &pod.uuid, "probe", "--name=small", "--memory=32Mi", "--", "sleep", "inf"];
        let added = podctl.run(&args);
        let started = podctl.run(&["--debug", "app", "start", &pod.uuid, "--app=small"]);
        assert!((added.code, started.code) == (Some(0), Some(0)), "{added}\n{started}");
        let said = format!("{}{}", added.stderr, started.stderr);
        let warned = said.lines().any(|l| l.contains("warn") && l.contains("memory"));
        assert!(warned, "no warning names the memory limit: {added}\n{started}");
        pod.end();
        return Ok(());
    }
    pod.add("small", &["--memory=32Mi"], &["alloc", "8000000", "+", "write", "/out/small", "x", "+", "sleep", "inf"]);
    pod.add("large", &["--memory=32Mi"], &["alloc", "100000000", "+", "exit", "0"]);
    pod.app("start", "small", &[]).ok();
    let small = podctl.out().join("small");
    wait_for("the app with enough memory", 10, || small.exists().then_some(()));
    let file = if t.layout == Layout::V1 { "memory.limit_in_bytes" } else { "memory.max" };
    let group = cgroup(app_pid(&pod, "sleep"), "memory", t.layout);
    assert_eq!(read(group.join(file)), (32 * 1024 * 1024).to_string());
    pod.app("start", "large", &[]).ok();
    assert_eq!(pod.exit_code("large"), 137, "more than the limit was let through");
    assert_eq!(pod.state("small"), "running");
    // Bytes, which the kernel rounds to whole pages; and Docker's units, powers of 1024.
    for (name, memory, bytes) in [("bytes", "--memory=50000000", 50_000_000), ("docker", "--memory=50M", 50 << 20)] {
        pod.add(name, &[memory], &["print", name, "+", "sleep", "inf"]);
        pod.app("start", name, &[]).ok();
        let group = cgroup(app_pid(&pod, name), "memory", t.layout);
        assert_eq!(read(group.join(file)).parse::<u64>()? / 4096, bytes / 4096);
    }
    pod.end();
    Ok(())
}

fn enter_shares_the_apps_limit(t: &Context) -> Verdict {
    if !t.has_controllers() {
        return Err("this machine has no memory controller: what this test is for can't be seen on it".into());
    }
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("small", &["--memory=32Mi"], &["sleep", "inf"]);
    pod.app("start", "small", &[]).ok();
    let app = cgroup(app_pid(&pod, "sleep"), "memory", t.layout);
    let mut child = podctl.command(&["enter", &pod.uuid, "--app", "small", "--", "/probe", "sleep", "77"]).spawn()?;
    let entered = cgroup(app_pid(&pod, "77"), "memory", t.layout);
    assert_eq!(entered, app);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(app_pid(&pod, "77")), nix::sys::signal::Signal::SIGKILL)?;
    child.wait()?;
    let out = pod.enter("small", &["/probe", "alloc", "100000000"]);
    assert!(out.signal == Some(9) || out.code == Some(137), "an entered command escapes the limit: {out}");
    pod.end();
    Ok(())
}

fn cpu_limits_and_shares(t: &Context) -> Verdict {
    if !t.has_controllers() {
        return Err("this machine has no cpu controller: what this test is for can't be seen on it".into());
    }
    let podctl = t.podctl();
    podctl.import_with("shares", &json!({"isolators": [{"name": "os/linux/cpu-shares", "value": 512}]}));
    let pod = podctl.pod(&[]);
    pod.add("half", &["--cpu=500m"], &["print", "half", "+", "sleep", "inf"]);
    pod.try_add("shares", "shares", &[], &["print", "shares", "+", "sleep", "inf"]).ok();
    pod.app("start", "half", &[]).ok();
    pod.app("start", "shares", &[]).ok();
    let half = cgroup(app_pid(&pod, "half"), "cpu", t.layout);
    let shares = cgroup(app_pid(&pod, "shares"), "cpu", t.layout);
    match t.layout {
        Layout::V1 => {
            let quota: i64 = read(half.join("cpu.cfs_quota_us")).parse()?;
            let period: i64 = read(half.join("cpu.cfs_period_us")).parse()?;
            assert_eq!(quota * 2, period, "{quota} of {period}");
            assert_eq!(read(shares.join("cpu.shares")), "512");
        }
        Layout::V2 => {
            let max = read(half.join("cpu.max"));
            let (quota, period) = max.split_once(' ').ok_or(max.clone())?;
            assert_eq!(quota.parse::<i64>()? * 2, period.parse::<i64>()?, "{max}");
            assert_ne!(read(shares.join("cpu.weight")), "100");
        }
    }
    pod.end();
    Ok(())
}

/// A file and its content.
type Value = (&'static str, &'static str);

/// An option, its controller, and the files, on v1 and on v2, one of which holds its value, if any.
const LIMITS: [(&str, &str, &[Value], &[Value]); 7] = [
    ("memory", "memory", &[("memory.limit_in_bytes", "67108864")], &[("memory.max", "67108864")]),
    ("memory-high", "memory", &[], &[("memory.high", "50331648")]),
    ("memory-swap", "memory", &[], &[("memory.swap.max", "0")]),
    ("cpu", "cpu", &[("cpu.cfs_quota_us", "50000")], &[("cpu.max", "50000 100000")]),
    ("cpu-shares", "cpu", &[("cpu.shares", "512")], &[("cpu.weight", "50")]),
    ("pids", "pids", &[("pids.max", "20")], &[("pids.max", "20")]),
    // The scheduler bfq has its own scale, from 1 to 1000, to which systemd converts.
    ("io-weight", "blkio", &[("blkio.bfq.weight", "118"), ("blkio.weight", "300")], &[("io.weight", "default 300")]),
];

const OPTIONS: [&str; 8] = [
    "--memory=64Mi",
    "--memory-high=48Mi",
    "--memory-swap=0",
    "--cpu=500m",
    "--cpu-shares=512",
    "--pids=20",
    "--io-weight=300",
    "--oom-score-adj=77",
];

fn every_limit_is_set_or_named(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    // podctl passes on the entrypoint's warning.
    let mut words = vec!["--debug", "app", "add", &pod.uuid, "probe", "--name=one", "--mount=volume=out,target=/out"];
    words.extend(OPTIONS);
    words.extend(["--", "report", "/out/one.json", "+", "sleep", "inf"]);
    let said = podctl.run(&words);
    assert_eq!(said.code, Some(0), "{said}");
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.read("one")["oom_score_adj"], "77");
    let pid = app_pid(&pod, "sleep");
    let mut lost = Vec::new();
    for (name, controller, v1, v2) in LIMITS {
        let files = if t.layout == Layout::V1 { v1 } else { v2 };
        let group = cgroup(pid, controller, t.layout);
        match files.iter().find(|(file, _)| group.join(file).exists()) {
            Some((file, value)) => assert_eq!(read(group.join(file)), *value, "{file}"),
            None => lost.push(name),
        }
    }
    let named =
        said.stderr.lines().find_map(|line| line.split_once("can't enforce the limits on ")).map(|(_, names)| names);
    let named: Vec<&str> = named.map(|names| names.split(", ").map(str::trim).collect()).unwrap_or_default();
    assert_eq!(named, lost, "{said}");
    match t.layout {
        Layout::V2 if t.has_controllers() => assert!(lost.is_empty(), "{lost:?}"),
        Layout::V2 => assert_eq!(lost.len(), LIMITS.len(), "{lost:?}"),
        Layout::V1 => {
            assert!(!lost.contains(&"memory") && !lost.contains(&"cpu") && !lost.contains(&"pids"), "{lost:?}")
        }
    }
    if t.layout == Layout::V2 && t.has_controllers() {
        // A little above the limit at which it is throttled: it goes on, and the kernel counted it.
        pod.enter("one", &["/probe", "alloc", "50500000"]).ok();
        let events = read(cgroup(pid, "memory", t.layout).join("memory.events"));
        assert!(!events.contains("high 0\n") && events.contains("oom_kill 0"), "{events}");
    }
    pod.end();
    Ok(())
}

fn more_processes_than_allowed(t: &Context) -> Verdict {
    if !t.has_controllers() {
        return Err("this machine has no pids controller: what this test is for can't be seen on it".into());
    }
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let spawn = ["spawn", "sleep", "inf", "+"].repeat(8);
    pod.add("free", &[], &[&spawn[..], &["exit", "7"]].concat());
    pod.add("bound", &["--pids=6"], &[&spawn[..], &["exit", "7"]].concat());
    for (app, code) in [("free", 7), ("bound", 1)] {
        pod.app("start", app, &[]).ok();
        assert_eq!(pod.exit_code(app), code, "{app}");
    }
    // Entered processes count, too.
    pod.add("two", &["--pids=3"], &["spawn", "sleep", "inf", "+", "spawn", "sleep", "inf", "+", "sleep", "inf"]);
    pod.app("start", "two", &[]).ok();
    wait_for("its processes", 10, || {
        let group = cgroup(app_pid(&pod, "sleep inf +"), "pids", t.layout);
        (read(group.join("pids.current")) == "3").then_some(())
    });
    let complaint = pod.enter("two", &["/probe", "spawn", "sleep", "1"]);
    assert!(complaint.code != Some(0), "{complaint}");
    pod.end();
    Ok(())
}

/// Limits that images declare are handled as those of the command line.
fn what_a_host_cant_enforce_is_named_for_isolators_too(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_with(
        "limited",
        &json!({"isolators": [
            {"name": "resource/pids", "value": {"limit": 20}},
            {"name": "resource/io-weight", "value": {"weight": 300}},
            {"name": "resource/memory-high", "value": {"limit": "48Mi"}},
            {"name": "resource/memory-swap", "value": {"limit": "0"}},
            {"name": "resource/cpu", "value": {"request": "500m", "limit": "1.5"}},
        ]}),
    );
    let pod = podctl.pod(&[]);
    let said = podctl.run(&["--debug", "app", "add", &pod.uuid, "limited", "--name=one", "--", "sleep", "inf"]);
    assert_eq!(said.code, Some(0), "{said}");
    pod.app("start", "one", &[]).ok();
    let pid = app_pid(&pod, "sleep");
    let warned = |name: &str| said.stderr.lines().any(|line| line.contains("can't enforce") && line.contains(name));
    let holds = |name, controller, file: &str, value: &str| {
        let file = cgroup(pid, controller, t.layout).join(file);
        match file.exists() {
            true => assert_eq!(read(file), value, "{name}"),
            false => assert!(warned(name), "{name} is not named: {said}"),
        }
    };
    match t.layout {
        Layout::V1 => {
            holds("cpu", "cpu", "cpu.cfs_quota_us", "150000");
            holds("cpu-shares", "cpu", "cpu.shares", "512");
            assert!(warned("memory-high") && warned("memory-swap"), "{said}");
        }
        Layout::V2 => {
            holds("cpu", "cpu", "cpu.max", "150000 100000");
            holds("cpu-shares", "cpu", "cpu.weight", "50");
            holds("memory-high", "memory", "memory.high", "50331648");
            holds("memory-swap", "memory", "memory.swap.max", "0");
            holds("io-weight", "io", "io.weight", "default 300");
        }
    }
    holds("pids", "pids", "pids.max", "20");
    pod.end();
    Ok(())
}

/// Limits of a pod as a whole: from its start on, and changed while it runs, all of them or none.
fn limits_of_a_whole_pod(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let pod = podctl.pod(&["--pod-memory=256m", "--pod-cpu=1.5", "--pod-cpu-shares=512", "--pod-pids=200"]);
    let holds = |memory: u64, cpu: u32, pids: u32| {
        let all = [("memory", memory.to_string()), ("cpu", cpu.to_string()), ("pids", pids.to_string())];
        for (limit, wanted) in all {
            let (file, wanted) = match (limit, t.layout) {
                ("memory", Layout::V1) => ("memory.limit_in_bytes", wanted),
                ("memory", Layout::V2) => ("memory.max", wanted),
                ("cpu", Layout::V1) => ("cpu.cfs_quota_us", wanted),
                ("cpu", Layout::V2) => ("cpu.max", wanted + " 100000"),
                _ => ("pids.max", wanted),
            };
            let place = pod_cgroups(&pod.uuid).into_iter().map(|dir| dir.join(file)).find(|path| path.exists());
            assert_eq!(read(place.expect(file)), wanted, "{file}");
        }
    };
    if !t.has_controllers() {
        let said = podctl.fails(&["update", &pod.uuid, "--pod-memory=128m"]);
        assert!(said.contains("can't enforce the limits on memory"), "{said}");
        pod.end();
        return Ok(());
    }
    holds(256 << 20, 150_000, 200);
    pod.add("busy", &["--cpu=1"], &["sleep", "inf"]);
    pod.app("start", "busy", &[]).ok();
    podctl.ok(&["update", &pod.uuid, "--pod-memory=128m", "--pod-pids=100"]);
    holds(128 << 20, 150_000, 100);
    podctl.ok(&["update", &pod.uuid, "--pod-pids=90", "busy", "--memory=64m"]);
    holds(128 << 20, 150_000, 90);
    for (words, why) in [
        (&["--pod-memory=5"][..], "--pod-memory 5"),
        (&["--pod-pids=0"], "--pod-pids"),
        (&["busy", "--pod-pids=70"], "leave out the app busy"),
    ] {
        let said = podctl.fails(&[&["update", &pod.uuid], words].concat());
        assert!(said.contains(why), "{said}");
    }
    // The kernel refuses a cgroup of v1 less processor time than one below it has; what was set before is put back.
    if t.layout == Layout::V1 {
        let said = podctl.fails(&["update", &pod.uuid, "--pod-memory=100m", "--pod-cpu=500m"]);
        assert!(said.contains("cpu.cfs_quota_us"), "{said}");
    }
    holds(128 << 20, 150_000, 90);
    let manifest = fs::read_to_string(pod.dir().join("pod"))?;
    assert!(manifest.contains("134217728") && !manifest.contains("104857600"), "{manifest}");
    pod.end();
    let said = podctl.fails(&["sandbox", "--pod-memory=1g", "--pod-memory-high=2g"]);
    assert!(said.contains("above the memory limit"), "{said}");
    Ok(())
}
