//! Apps with a PID namespace of their own, or with another app's.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::Verdict;
use tests::harness::Context;
use tests::process::{all, wait_for};

tests::cases! {
    both an_app_is_pid_1_of_its_own 120;
    native an_app_joins_the_namespace_of_another;
    both with_ids_of_its_own_too;
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
    for bad in ["--pid=host", "--pid=app:", "--pid="] {
        let complaint = pod.try_add("probe", "three", &[bad], &["sleep", "inf"]).complaint();
        assert!(
            complaint.contains("there are pod, private, and app:NAME") || complaint.contains("PID namespace"),
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
            if started {
                assert_eq!(pod.enter("one", &["/probe", "exit", "3"]).code, Some(3));
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
