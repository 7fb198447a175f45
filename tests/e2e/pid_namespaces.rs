//! Apps with a PID namespace of their own, or with another app's.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::Verdict;
use tests::harness::Context;
use tests::process::{Process, all, descendants, wait_for};

tests::cases! {
    both an_app_is_pid_1_of_its_own 120;
    native an_app_joins_the_namespace_of_another;
    both with_ids_of_its_own_too;
    both an_app_is_among_the_hosts_processes 120;
    both the_hosts_processes_are_out_of_its_reach 120;
    native whoever_is_killed_on_the_way_nothing_is_left;
}

const PRIVATE: &str = "--pid=private";

/// The processes that an app sees: those of its /proc.
fn sees(pod: &tests::podctl::Pod<'_>, app: &str) -> Vec<i32> {
    let names = pod.enter(app, &["/probe", "ls", "/proc"]).ok();
    names.lines().filter_map(|name| name.parse().ok()).collect()
}

fn an_app_is_pid_1_of_its_own(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--name=own"]);
    pod.add("shared", &[], &["sleep", "inf"]);
    pod.app("start", "shared", &[]).ok();
    let check = [r#"--health-cmd=["/probe","cat","/proc/1/cmdline"]"#, "--health-interval=200ms"];
    pod.add(
        "one",
        &[&[PRIVATE, "--mask=/proc/uptime"][..], &check].concat(),
        &["report", "/out/one.json", "+", "spawn", "sleep", "inf", "+", "orderly", "7"],
    );
    pod.app("start", "one", &[]).ok();
    let report = pod.read("one");
    assert_eq!((&report["pid"], &report["ppid"]), (&1.into(), &0.into()), "{report}");
    // its /proc has what it would have in the pod's, covered in the same way
    let covers = |report: &Value| {
        let lines = report["mountinfo"].as_array().cloned().unwrap_or_default();
        let fields = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            (words[4].clone(), words[3].clone(), words[5].split(',').next().unwrap_or_default().to_owned())
        };
        let mut found: Vec<_> = lines.iter().filter_map(Value::as_str).map(fields).collect();
        found.retain(|(place, ..)| place.starts_with("/proc") && place != "/proc/uptime");
        found.sort();
        found
    };
    pod.add("plain", &[], &["report", "/out/plain.json"]);
    pod.app("start", "plain", &[]).ok();
    assert_eq!(covers(&report), covers(&pod.read("plain")));
    assert!(covers(&report).len() > 5, "{report}");
    assert_eq!(pod.enter("one", &["/probe", "cat", "/proc/uptime"]).ok(), "", "what is hidden is hidden");

    // who enters is in it, and the app's children are all that it sees
    let entered: Value = serde_json::from_str(&pod.enter("one", &["/probe", "report"]).ok())?;
    assert_eq!(entered["namespaces"]["pid"], report["namespaces"]["pid"], "{entered}");
    assert_eq!(entered["namespaces"]["mnt"], report["namespaces"]["mnt"]);
    assert_ne!(report["namespaces"]["pid"], pod.read("plain")["namespaces"]["pid"]);
    let seen = sees(&pod, "one");
    assert!(seen.contains(&1) && seen.len() <= 6, "{seen:?}");
    assert_eq!(pod.enter("one", &["/probe", "exit", "9"]).code, Some(9));
    assert_eq!(podctl.run(&["exec", &pod.uuid, "one", "--", "/probe", "exit", "5"]).code, Some(5));
    let words = pod.enter("one", &["/probe", "cat", "/proc/1/cmdline"]).ok();
    assert!(words.starts_with("/probe\0report"), "{words:?}");
    assert!(sees(&pod, "shared").len() > 4, "the pod's own namespace has them all");

    // from outside
    let health = wait_for("a check that is well", 20, || {
        let health = pod.status("one")["health"].clone();
        (health["status"] == "healthy").then_some(health)
    });
    assert!(health["output"].as_str().is_some_and(|said| said.contains("/out/one.json")), "{health}");
    assert_eq!(pod.state("one"), "running");
    let top = podctl.json(&["top", &pod.uuid, "one", "--format=json"]);
    // a check may be there, too
    let numbers: Vec<_> = top.as_array().expect("a list").iter().map(|member| &member["pid_in_pod"]).collect();
    assert!(numbers.len() >= 2 && numbers[..2] == [1, 2], "{top}");
    podctl.ok(&["pause", &pod.uuid, "one"]);
    podctl.ok(&["unpause", &pod.uuid, "one"]);
    // it ends in order, and what it has started ends with it
    pod.app("stop", "one", &[]).ok();
    assert_eq!(pod.exit_code("one"), 7);
    // entered while it does not run, it is as any app
    assert_eq!(pod.enter("one", &["/probe", "exit", "3"]).code, Some(3));

    // started again it has a new one; killed, it says so
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.enter("one", &["/probe", "exit", "0"]).code, Some(0));
    podctl.ok(&["kill", &pod.uuid, "one", "-s", "KILL"]);
    assert_eq!(pod.exit_code("one"), 137);
    for (name, actions, code) in [("quick", &["exit", "4"][..], 4), ("done", &["exit", "0"], 0)] {
        pod.add(name, &[PRIVATE], actions);
        pod.app("start", name, &[]).ok();
        assert_eq!(pod.exit_code(name), code, "{name}");
    }
    // what can't be executed is a failed start
    podctl.ok(&["app", "add", &pod.uuid, "probe", "--name=none", PRIVATE, "--exec=/no/such"]);
    let complaint = pod.app("start", "none", &[]).complaint();
    assert!(complaint.contains("Unable to open \"/no/such\""), "{complaint}");
    pod.end();
    Ok(())
}

fn an_app_joins_the_namespace_of_another(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[PRIVATE], &["report", "/out/one.json", "+", "sleep", "inf"]);
    pod.add("two", &["--pid=app:one"], &["report", "/out/two.json", "+", "sleep", "inf"]);
    let complaint = pod.app("start", "two", &[]).complaint();
    assert!(complaint.contains("app one does not run"), "{complaint}");
    pod.app("start", "one", &[]).ok();
    pod.app("start", "two", &[]).ok();
    let (one, two) = (pod.read("one"), pod.read("two"));
    assert_eq!(one["namespaces"]["pid"], two["namespaces"]["pid"]);
    assert_ne!(one["namespaces"]["mnt"], two["namespaces"]["mnt"]);
    assert_eq!(one["pid"], 1);
    let words = pod.enter("two", &["/probe", "cat", "/proc/1/cmdline"]).ok();
    assert!(words.contains("/out/one.json"), "{words:?}");
    // it ends alone, and with the one that it has joined
    pod.app("stop", "two", &[]).ok();
    assert_eq!(pod.state("one"), "running");
    pod.app("start", "two", &[]).ok();
    podctl.ok(&["kill", &pod.uuid, "one", "-s", "KILL"]);
    assert_eq!((pod.exit_code("one"), pod.exit_code("two")), (137, 137));
    for bad in ["--pid=hosts", "--pid=app:", "--pid="] {
        let complaint = pod.try_add("probe", "three", &[bad], &["sleep", "inf"]).complaint();
        assert!(
            complaint.contains("there are pod, private, host, and app:NAME") || complaint.contains("PID namespace"),
            "{complaint}"
        );
    }
    pod.end();
    Ok(())
}

/// In a user namespace the kernel has a say in what procfs is mounted.
fn with_ids_of_its_own_too(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--private-users"]);
    pod.add("one", &[PRIVATE], &["report", "/out/one.json", "+", "sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.read("one")["pid"], 1);
    assert!(sees(&pod, "one").len() <= 2);
    assert_ne!(pod.enter("one", &["/probe", "open", "w", "/proc/sys/kernel/hostname"]).ok(), "ok");
    pod.end();
    Ok(())
}

fn an_app_is_among_the_hosts_processes(t: &Context) -> Verdict {
    const HOST: &str = "--pid=host";
    let podctl = t.podctl();
    let pod = podctl.pod(&["--name=hosts"]);
    let nap = format!("31415{}", std::process::id());
    let limits = ["--mask=/proc/uptime", "--memory=64M"];
    let words = ["report", "/out/one.json", "+", "print", "hello", "+", "spawn", "sleep", &nap, "+", "orderly", "7"];
    pod.add("one", &[&[HOST][..], &limits].concat(), &words);
    pod.app("start", "one", &[]).ok();
    let report = pod.read("one");
    // it has the number that the host knows it by, and sees the host's processes
    let own = std::fs::read_link("/proc/self/ns/pid")?.display().to_string();
    assert!(report["namespaces"]["pid"].as_str().is_some_and(|pid| own.contains(pid)), "{own}: {report}");
    let number = report["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a PID");
    let itself = all().into_iter().find(|process| process.pid == number).expect("the app");
    assert!(itself.words.contains("/out/one.json"), "{itself:?}");
    assert!(sees(&pod, "one").contains(&i32::try_from(std::process::id())?));
    // in everything else it is as the others
    pod.add("plain", &limits, &["report", "/out/plain.json"]);
    pod.app("start", "plain", &[]).ok();
    let plain = pod.read("plain");
    for what in ["ids", "capabilities", "seccomp", "no_new_privs", "oom_score_adj", "limits", "umask", "cwd"] {
        assert_eq!(report[what], plain[what], "{what}");
    }
    let descriptors = |report: &Value| report["fds"].as_object().map(|fds| fds.keys().cloned().collect::<Vec<_>>());
    assert_eq!(descriptors(&report), descriptors(&plain));
    for namespace in ["net", "ipc", "uts", "cgroup", "user"] {
        assert_eq!(report["namespaces"][namespace], plain["namespaces"][namespace], "{namespace}");
    }
    assert_eq!(pod.enter("one", &["/probe", "cat", "/proc/uptime"]).ok(), "", "what is hidden is hidden");
    let entered: Value = serde_json::from_str(&pod.enter("one", &["/probe", "report"]).ok())?;
    assert_eq!(entered["namespaces"]["pid"], report["namespaces"]["pid"], "{entered}");
    assert_eq!(pod.enter("one", &["/probe", "exit", "9"]).code, Some(9));
    wait_for("its output", 20, || podctl.ok(&["logs", &pod.uuid, "one"]).contains("hello").then_some(()));
    let top = podctl.json(&["top", &pod.uuid, "one", "--format=json"]);
    assert!(top.to_string().contains(&nap) && top.to_string().contains("/out/one.json"), "{top}");
    let copied = t.dir.join("kept");
    podctl.ok(&["cp", "hosts/one:/data/kept", &copied.display().to_string()]);
    assert_eq!(std::fs::read_to_string(&copied)?.trim(), "from the image", "its root is the image's");
    // it ends in order, and what it has started ends with it
    // the app's own words have it, too
    let left = || all().into_iter().filter(|process| process.words.contains(&nap)).collect::<Vec<_>>();
    let gone = || left().is_empty().then_some(());
    pod.app("stop", "one", &[]).ok();
    assert_eq!(pod.exit_code("one"), 7);
    assert!(left().is_empty(), "{:?}", left());
    let runs = || all().iter().any(|process| process.words.contains(&nap)).then_some(());
    pod.app("start", "one", &[]).ok();
    wait_for("all that it starts", 20, runs);
    podctl.ok(&["kill", &pod.uuid, "one", "-s", "KILL"]);
    assert_eq!(pod.exit_code("one"), 137);
    wait_for("the end of all", 20, gone);
    for (name, actions, code) in [("quick", &["exit", "4"][..], 4), ("done", &["exit", "0"], 0)] {
        pod.add(name, &[HOST], actions);
        pod.app("start", name, &[]).ok();
        assert_eq!(pod.exit_code(name), code, "{name}");
    }
    podctl.ok(&["app", "add", &pod.uuid, "probe", "--name=none", HOST, "--exec=/no/such"]);
    let complaint = pod.app("start", "none", &[]).complaint();
    assert!(complaint.contains("Unable to open \"/no/such\""), "{complaint}");
    let checked = [HOST, "--health-cmd=[\"/probe\",\"exit\",\"0\"]"];
    let complaint = pod.try_add("probe", "checked", &checked, &["sleep", "inf"]).complaint();
    assert!(complaint.contains("no health checks"), "{complaint}");
    // with its pod's monitor goes the app
    pod.app("start", "one", &[]).ok();
    wait_for("all that it starts", 20, runs);
    let monitor = all().into_iter().find(|process| process.pid == pod.pid()).expect("PID 1").parent;
    kill(Pid::from_raw(monitor), Signal::SIGKILL)?;
    wait_for("the end of all", 20, gone);
    podctl.ok(&["rm", &pod.uuid]);
    let users = podctl.pod(&["--private-users"]);
    let complaint = users.try_add("probe", "one", &[HOST], &["sleep", "inf"]).complaint();
    assert!(complaint.contains("user namespace of its own"), "{complaint}");
    users.end();
    Ok(())
}

/// What the app may do to processes of the host, and who is left when one of the two that bear it is killed.
fn the_hosts_processes_are_out_of_its_reach(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let nap = format!("27182{}", std::process::id());
    pod.add("one", &["--pid=host"], &["report", "/out/one.json", "+", "spawn", "sleep", &nap, "+", "sleep", "inf"]);
    let start = || -> i32 {
        let _ = std::fs::remove_file(podctl.out().join("one.json"));
        pod.app("start", "one", &[]).ok();
        wait_for("what it has started", 20, || all().iter().any(|other| is_nap(other, &nap)).then_some(()));
        pod.read("one")["pid"].as_i64().and_then(|pid| pid.try_into().ok()).expect("a PID")
    };
    let gone = || (!all().iter().any(|other| other.words.contains(&nap))).then_some(());
    let main = start();
    let follower = Process::parent_of(main);
    let monitor = Process::parent_of(pod.pid());
    // without capabilities over them it can't trace the processes of the host, as root neither, nor use what they have open
    for host in [monitor, follower, i32::try_from(std::process::id())?] {
        for file in ["mem", "environ", "root/etc/passwd", "cwd/pod", "exe"] {
            let place = format!("/proc/{host}/{file}");
            let said = pod.enter("one", &["/probe", "open", "r", &place]).ok();
            assert_eq!(said.trim(), "EACCES", "{place}");
        }
        let number = host.to_string();
        let user = ["enter", &pod.uuid, "--app=one", "--user=4321", "--", "/probe", "may-signal", &number];
        assert_eq!(podctl.ok(&user).trim(), "EPERM", "{host}");
    }
    pod.app("stop", "one", &[]).ok();
    // a real-time signal is passed on, and the app's end by it is told
    start();
    tests::process::run(Command::new("sh").args(["-c", &format!("kill -37 {}", stands_in(&pod))])).ok();
    assert_eq!(pod.exit_code("one"), 128 + 37);
    wait_for("the end of all", 20, gone);
    // who executes it is killed
    let main = start();
    kill(Pid::from_raw(Process::parent_of(main)), Signal::SIGKILL)?;
    assert_eq!(pod.exit_code("one"), 254);
    wait_for("the end of all", 20, gone);
    // who stands in for it is
    start();
    kill(Pid::from_raw(stands_in(&pod)), Signal::SIGKILL)?;
    assert_eq!(pod.exit_code("one"), 137);
    wait_for("the end of all", 20, gone);
    // a launch record, which the root of the pod may have changed, gives nothing that the manifest does not
    pod.add("plain", &[], &["sleep", "inf"]);
    pod.app("start", "plain", &[]).ok();
    let before: Value = serde_json::from_str(&pod.enter("plain", &["/probe", "report"]).ok())?;
    let record = pod.dir().join("stage1/rootfs/opt/stage2/plain/launch");
    let mut text: Value = serde_json::from_str(&std::fs::read_to_string(&record)?)?;
    text["pid_namespace"] = "host".into();
    std::fs::write(&record, text.to_string())?;
    let after: Value = serde_json::from_str(&pod.enter("plain", &["/probe", "report"]).ok())?;
    assert_eq!(before["namespaces"]["pid"], after["namespaces"]["pid"]);
    pod.app("stop", "plain", &[]).ok();
    let complaint = pod.app("start", "plain", &[]).complaint();
    assert!(complaint.contains("app plain does not have the host's PID namespace"), "{complaint}");
    pod.end();
    Ok(())
}

/// The process that stands in for the app "one" in its pod.
fn stands_in(pod: &tests::podctl::Pod<'_>) -> i32 {
    let all = descendants(pod.pid());
    let found = all.iter().find(|other| other.words.contains("app-exec") && other.words.ends_with("one"));
    found.unwrap_or_else(|| panic!("nobody stands in for it: {all:?}")).pid
}

fn is_nap(process: &Process, nap: &str) -> bool {
    process.words.contains(&format!("sleep {nap}")) && !process.words.contains("report")
}

/// The process that bears the app's main process is killed at some moment or other: the app runs, or it does not, and
/// says so.
fn whoever_is_killed_on_the_way_nothing_is_left(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[PRIVATE], &["orderly", "0"]);
    let supervisor = pod.pid();
    for _ in 0..8 {
        let stop = std::sync::atomic::AtomicBool::new(false);
        let stop = &stop;
        std::thread::scope(|scope| {
            let killer = scope.spawn(move || {
                // the first that is seen of it
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let of_pod = all().into_iter().filter(|process| process.parent == supervisor);
                    if let Some(process) = of_pod.into_iter().find(|process| process.words.contains("/app-exec one")) {
                        return kill(Pid::from_raw(process.pid), Signal::SIGKILL).is_ok();
                    }
                }
                false
            });
            let started = pod.app("start", "one", &[]).code == Some(0);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            let killed = killer.join().expect("the killer");
            assert!(started || killed, "not killed and yet not started");
            if started && pod.enter("one", &["/probe", "exit", "3"]).code != Some(3) {
                // one that was seen before it became the app's command may have been killed after that
                assert!(killed, "an app that runs can't be entered");
                wait_for("the end of the app", 20, || (pod.state("one") != "running").then_some(()));
            }
        });
        pod.app("stop", "one", &[]).ok();
        let left = || podctl.json(&["top", &pod.uuid, "one", "--format=json"]);
        wait_for("the end of its processes", 20, || left().as_array().is_some_and(Vec::is_empty).then_some(()));
    }
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.state("one"), "running");
    pod.end();
    Ok(())
}
