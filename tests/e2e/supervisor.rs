//! What a pod's PID 1 can do, and what applies to the pod as a whole.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::{Context, Layout};
use tests::podctl::Pod;
use tests::process::{Process, descendants, pod_cgroups, run, wait_for};

tests::cases! {
    both pid1_can_do_what_it_and_the_apps_need;
    native pid1_has_only_the_libraries_that_it_calls;
    native apps_that_come_later_get_what_their_pod_has 120;
    both an_app_that_asks_for_more_than_its_pod_has_is_refused;
    both the_pods_cgroups_are_read_only_but_for_the_supervisors;
    both only_devices_of_the_list_can_be_made_and_used;
    both isolators_of_the_pod_hold_or_are_named;
    both an_app_that_the_pods_end_ends_has_not_failed;
    native stop_of_a_pod_that_has_just_ended;
    native files_of_an_app_that_another_manager_removes_in_the_upper_directory;
}

const NET_ADMIN: u64 = 1 << 12;
const SYS_MODULE: u64 = 1 << 16;
const SYS_ADMIN: u64 = 1 << 21;

/// The bounding set in the text of a /proc/PID/status.
#[track_caller]
fn bounding(status: &str) -> u64 {
    let line = status.lines().find_map(|line| Some(line.split_once("CapBnd:")?.1)).expect(status);
    u64::from_str_radix(line.trim(), 16).expect(line)
}

fn pid1_can_do_what_it_and_the_apps_need(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_with("probe", &json!({}));
    let bounding_of = |options: &[&str], app: &[&str]| {
        let words = [&["run", "--rm", "--net=none"][..], options, &["probe"], app, &["--exec=/probe", "--"]].concat();
        bounding(&podctl.ok(&[&words[..], &["cat", "/proc/1/status", "+", "sleep", "1"]].concat()))
    };
    for options in [&[][..], &["--private-users"]] {
        let set = bounding_of(options, &[]);
        assert_eq!(set & (NET_ADMIN | SYS_MODULE | SYS_ADMIN), SYS_ADMIN, "{options:?}: {set:x}");
        let set = bounding_of(options, &["--caps-retain=CAP_NET_ADMIN"]);
        assert_eq!(set & (NET_ADMIN | SYS_MODULE), NET_ADMIN, "{options:?}: {set:x}");
    }
    for options in ["--disable-capabilities-restriction", "--pod-caps-retain=all"] {
        let set = bounding_of(&[options], &[]);
        assert_eq!(set & (NET_ADMIN | SYS_MODULE), NET_ADMIN | SYS_MODULE, "{options}: {set:x}");
    }
    Ok(())
}

/// The libraries that a process has mapped: names, and what identifies the file in memory, which pods share.
fn libraries(pid: i32) -> BTreeSet<(String, String)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps of PID 1");
    let words = maps.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let files = words.filter(|words| words.last().is_some_and(|path| path.contains(".so")));
    files.map(|words| (words[5].rsplit('/').next().unwrap_or_default().to_owned(), words[4].to_owned())).collect()
}

/// Each library that PID 1 maps costs every pod memory of its own, and what it maps is in memory once for all pods. A
/// directive that would need one of the others fails for the process that it concerns, with a message; the pod goes on.
fn pid1_has_only_the_libraries_that_it_calls(t: &Context) -> Verdict {
    let host = t.minihost();
    let ((one, first), (mut two, second)) =
        (host.boot(&json!([]), &["--net=none"]), host.boot(&json!([]), &["--net=none"]));
    let mapped = libraries(one.pid());
    let names: Vec<&str> = mapped.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"libsystemd-core-252.so") && names.contains(&"libabsent.so"), "{names:?}");
    for absent in ["libcrypto", "libgcrypt", "libpam", "libselinux", "libapparmor", "libacl", "libkmod", "libzstd"] {
        assert!(!names.iter().any(|name| name.starts_with(absent)), "{absent}: {names:?}");
    }
    assert_eq!(mapped, libraries(two.pid()), "pods share the files of their stage1 image");

    let unit = "[Service]\nType=oneshot\nUser=root\nPAMName=login\nStandardError=truncate:/run/said\nExecStart=/usr/bin/systemctl\n";
    fs::write(two.dir().join("stage1/rootfs/etc/systemd/system/session.service"), unit)?;
    let out = run(&mut two.enter(None, &["/usr/bin/systemctl", "start", "session.service"]));
    assert_ne!(out.code, Some(0), "{out}");
    let said = fs::read_to_string(format!("/proc/{}/root/run/said", two.pid()))?;
    assert_eq!(said, "Error: pam_start: the library with this function is not in the stage1 image\n");
    two.add("later", &["/probe", "sleep", "inf"], &json!([]));
    two.start_app("later").ok();
    for (pod, monitor) in [(one, first), (two, second)] {
        pod.stop(false, monitor);
        pod.collect(1);
    }
    Ok(())
}

/// Options of the sandbox limit what its apps may ask for.
fn apps_that_come_later_get_what_their_pod_has(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_with("probe", &json!({}));
    let said = podctl.fails(&["sandbox", "--pod-caps-retain=CAP_NET_ADMIN,CAP_NOPE"]);
    assert!(said.contains("--pod-caps-retain: \"CAP_NOPE\" is not a capability"), "{said}");
    for (options, fit, do_not) in [
        (
            &[][..],
            &["CAP_DAC_READ_SEARCH", "CAP_IPC_OWNER", "CAP_SYS_ADMIN"][..],
            &["CAP_NET_ADMIN", "CAP_SYS_MODULE"][..],
        ),
        (&["--pod-caps-retain=CAP_NET_ADMIN"], &["CAP_NET_ADMIN"], &["CAP_SYS_MODULE", "CAP_IPC_OWNER"]),
        (&["--pod-caps-retain=all"], &["CAP_NET_ADMIN", "CAP_SYS_MODULE"], &[]),
    ] {
        let pod = podctl.pod(options);
        for capability in fit {
            pod.try_add("probe", "one", &[&format!("--caps-retain={capability}")], &["sleep", "inf"]).ok();
            pod.app("rm", "one", &[]).ok();
        }
        for capability in do_not {
            let refused = pod.try_add("probe", "one", &[&format!("--caps-retain={capability}")], &["sleep", "inf"]);
            let told = format!("the pod has no {capability}, and");
            assert!(refused.code.is_some_and(|code| code != 0) && refused.stderr.contains(&told), "{refused}");
            assert!(refused.stderr.contains(&format!("--pod-caps-retain={capability}")), "{refused}");
            assert_eq!(pod.manifest_apps(), Vec::<String>::new());
        }
        // A pod without restrictions has all that exists, and so has a command that enters it, but no more.
        pod.add("open", &["--disable-capabilities-restriction"], &["report", "/out/open.json", "+", "sleep", "inf"]);
        pod.app("start", "open", &[]).ok();
        let entered: Value = serde_json::from_str(&pod.enter("open", &["/probe", "report"]).ok())?;
        let pid1 = bounding(&fs::read_to_string(format!("/proc/{}/status", pod.pid()))?);
        let set = |report: &Value| report["capabilities"]["CapBnd"].as_str().map(|set| u64::from_str_radix(set, 16));
        assert_eq!((set(&entered), set(&pod.read("open"))), (Some(Ok(pid1)), Some(Ok(pid1))), "{options:?}");
        pod.end();
    }
    Ok(())
}

/// Prepares a pod with these isolators of its own.
fn with_isolators<'a>(host: &'a tests::minihost::MiniHost, isolators: Value) -> tests::minihost::MiniPod<'a> {
    let pod = host.prepare(&json!([]));
    let path = pod.in_phase("prepared").join("pod");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).expect("pod")).expect("JSON");
    manifest["isolators"] = isolators;
    fs::write(&path, manifest.to_string()).expect("pod");
    pod
}

fn an_app_that_asks_for_more_than_its_pod_has_is_refused(t: &Context) -> Verdict {
    let host = t.minihost();
    let retain = |names: &[&str]| json!([{"name": "os/linux/capabilities-retain-set", "value": {"set": names}}]);
    let pod = with_isolators(&host, retain(&["CAP_NET_ADMIN"]));
    let monitor = pod.start(&["--net=none"]);
    pod.wait_ready();
    let status = fs::read_to_string(format!("/proc/{}/status", pod.pid())).expect("status");
    assert_eq!(bounding(&status) & (NET_ADMIN | SYS_MODULE), NET_ADMIN, "{status}");
    let mut pod = pod;
    let uuid = format!("--uuid={}", pod.uuid);
    for (app, capability, fits) in [("one", "CAP_NET_ADMIN", true), ("two", "CAP_SYS_MODULE", false)] {
        pod.stage(app, &["/probe", "report"], &json!([]), &json!({"isolators": retain(&[capability])}));
        let added = pod.cross("app/add", &[&format!("--app={app}"), &uuid]);
        assert_eq!(added.code == Some(0), fits, "{added}");
        if !fits {
            assert!(added.stderr.contains("the pod has no CAP_SYS_MODULE"), "{added}");
        }
    }
    pod.start_app("one").ok();
    pod.rm("one");
    pod.rm("two");
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}

fn the_pods_cgroups_are_read_only_but_for_the_supervisors(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &["--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE", "--memory=64Mi"], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let root = "/proc/1/root/sys/fs/cgroup";
    let places: &[&str] = if t.layout == Layout::V1 { &["", "/memory", "/cpu", "/systemd", "/unified"] } else { &[""] };
    for place in places {
        let made = pod.enter("one", &["/probe", "mkdir", &format!("{root}{place}/x")]);
        assert!(made.stderr.contains("Read-only file system"), "{place}: {made}");
    }
    pod.end();
    Ok(())
}

fn only_devices_of_the_list_can_be_made_and_used(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    pod.add("open", &["--disable-paths"], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    pod.app("start", "open", &[]).ok();
    let make = |app: &str, device: &str| {
        let path = format!("/node-{}", device.replace(':', "-"));
        pod.enter(app, &["/probe", "mknod", device, &path]).ok()
    };
    for device in ["c5:2", "c5:1", "c1:11", "c10:200", "b7:0"] {
        assert_eq!(make("one", device), "EPERM", "{device}");
        assert_eq!(make("open", device), "ok", "{device}");
    }
    for device in ["c1:3", "c1:9", "c5:0"] {
        assert_eq!(make("one", device), "ok", "{device}");
    }
    pod.end();
    // Processes outside the apps, such as PID 1, have the device list of the pod itself.
    let closed = podctl.pod(&[]);
    assert_eq!(["1 11", "7 0", "1 3"].map(|device| beside_the_apps(t, &closed, device)), [false, false, true]);
    closed.end();
    let free = podctl.pod(&["--disable-paths"]);
    assert!(beside_the_apps(t, &free, "1 11"));
    free.add("one", &[], &["sleep", "inf"]);
    free.app("start", "one", &[]).ok();
    assert_eq!(free.enter("one", &["/probe", "mknod", "c1:11", "/kmsg"]).ok(), "ok");
    free.end();
    Ok(())
}

/// Whether a process in the pod's cgroup, but in no app's, can make this character device.
fn beside_the_apps(t: &Context, pod: &Pod, device: &str) -> bool {
    let has_the_list = |dir: &PathBuf| t.layout == Layout::V2 || dir.join("devices.list").exists();
    let dir = pod_cgroups(&pod.uuid).into_iter().find(has_the_list).expect("the pod's cgroup");
    let (beside, node) = (dir.join("beside"), t.dir.join("node"));
    fs::create_dir(&beside).expect("a cgroup");
    let script = "echo $$ >\"$0\"/cgroup.procs && exec mknod \"$1\" c $2 $3";
    let mut command = Command::new("sh");
    let made = run(command.args(["-c", script]).arg(&beside).arg(&node).args(device.split(' ')));
    fs::remove_dir(&beside).expect("an empty cgroup");
    assert!(made.code == Some(0) || made.stderr.contains("Operation not permitted"), "{made}");
    let is_there = node.exists();
    if is_there {
        fs::remove_file(&node).expect("the node");
    }
    is_there
}

fn isolators_of_the_pod_hold_or_are_named(t: &Context) -> Verdict {
    let host = t.minihost();
    let pod = with_isolators(
        &host,
        json!([
            {"name": "resource/memory", "value": {"limit": "256Mi"}},
            {"name": "resource/cpu", "value": {"limit": "1.5"}},
            {"name": "os/linux/cpu-shares", "value": 512},
            {"name": "resource/pids", "value": {"limit": 200}},
            {"name": "os/linux/oom-score-adj", "value": 5},
        ]),
    );
    let (monitor, said) = pod.start_with_output(&["--net=none"]);
    pod.wait_ready();
    let holds = |files: &[(&str, &str)]| {
        for (file, value) in files {
            let found: Vec<PathBuf> = pod_cgroups(&pod.uuid).into_iter().map(|dir| dir.join(file)).collect();
            let found: Vec<&PathBuf> = found.iter().filter(|path| path.exists()).collect();
            assert!(!found.is_empty(), "{file}");
            for path in found {
                assert_eq!(fs::read_to_string(path).expect("a limit").trim(), *value, "{}", path.display());
            }
        }
    };
    match t.layout {
        Layout::V1 => holds(&[
            ("memory.limit_in_bytes", "268435456"),
            ("cpu.cfs_quota_us", "150000"),
            ("cpu.shares", "512"),
            ("pids.max", "200"),
        ]),
        Layout::V2 if t.has_controllers() => {
            holds(&[
                ("memory.max", "268435456"),
                ("cpu.max", "150000 100000"),
                ("cpu.weight", "50"),
                ("pids.max", "200"),
            ]);
        }
        Layout::V2 => {}
    }
    let warned = fs::read_to_string(&said).expect("what run said");
    let line = warned.lines().find(|line| line.contains("the pod: this host can't enforce"));
    let line = line.unwrap_or_else(|| panic!("no warning: {warned}"));
    assert!(line.contains("oom-score-adj"), "{line}");
    assert_eq!(line.contains("memory"), t.layout == Layout::V2 && !t.has_controllers(), "{line}");
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}

fn an_app_that_the_pods_end_ends_has_not_failed(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("quiet", &[], &["sleep", "inf"]);
    pod.add("stubborn", &["--stop-timeout=1"], &["stubborn"]);
    pod.add("orderly", &[], &["orderly", "5"]);
    pod.add("stopped", &[], &["sleep", "inf"]);
    for app in ["quiet", "stubborn", "orderly", "stopped"] {
        pod.app("start", app, &[]).ok();
    }
    pod.app("stop", "stopped", &[]).ok();
    let orderly = wait_for("the app", 10, || descendants(pod.pid()).into_iter().find(|p| p.words.contains("orderly")));
    Process::holds_sigterm(orderly.pid);
    podctl.ok(&["stop", &pod.uuid]);
    let codes: Vec<_> =
        ["quiet", "stubborn", "orderly", "stopped"].iter().map(|app| pod.status(app)["exit_code"].clone()).collect();
    assert_eq!(codes, [json!(0), json!(0), json!(5), json!(143)]);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn stop_of_a_pod_that_has_just_ended(t: &Context) -> Verdict {
    let host = t.minihost();
    for force in [&[][..], &["--force"]] {
        let (pod, mut monitor) = host.boot(&json!([]), &["--net=none"]);
        let stop = || {
            let mut command = Command::new(pod.dir().join(pod.entrypoint("stop")));
            run(command.args(force).arg(&pod.uuid).current_dir(pod.dir()))
        };
        let stopped = stop();
        assert_eq!(stopped.code, Some(0), "{stopped}");
        monitor.wait()?;
        wait_for("the end of PID 1", 10, || (!Process::lives(pod.pid())).then_some(()));
        let again = stop();
        assert_eq!(again.code, Some(0), "{again}");
        pod.collect(1);
    }
    Ok(())
}

/// As rkt does it: behind the mounted overlay.
fn files_of_an_app_that_another_manager_removes_in_the_upper_directory(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&json!([]), &["--net=none"]);
    for code in [3, 4, 5] {
        pod.add("one", &["/probe", "exit", &code.to_string()], &json!([]));
        pod.start_app("one").ok();
        wait_for("the app's end", 10, || (pod.state("one").0 == "exited").then_some(()));
        assert_eq!(pod.state("one"), ("exited", Some(code)));
        // The status of an app exists a little before its unit has ended.
        let stopped = pod.cross("app/stop", &["--app=one"]);
        assert!(matches!(stopped.code, Some(0 | 5)), "{stopped}");
        pod.cross("app/rm", &["--app=one"]).ok();
        for name in ["status/one", "status/one-created", "status/one-started", "status/one.exit", "env/one"] {
            let path = pod.upper().join("rkt").join(name);
            assert!(!path.exists(), "{name} is left to be removed behind the overlay's back");
        }
        pod.rm("one");
    }
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}
