//! What a user is told of apps and pods that have failed, were stopped, paused or started again, or lost processes.

use std::fs;
use std::process::Command;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Podctl;
use tests::process::{run, wait_for};

tests::cases! {
    both what_has_happened_to_apps_is_told 90;
    native a_restart_for_a_failed_check_waits_as_others_do;
}

/// The line of an app in the table of a pod's status.
#[track_caller]
fn line(podctl: &Podctl, app: &str) -> String {
    let text = podctl.ok(&["status", "web"]);
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(app));
    line.unwrap_or_else(|| panic!("no {app} in {text}")).to_owned()
}

/// The events of an app, or of the whole pod.
#[track_caller]
fn events(podctl: &Podctl, app: Option<&str>) -> Vec<Value> {
    let text = podctl.ok(&["events", "web", "--format=json"]);
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e} in {line}")));
    all.filter(|event| event["app"].as_str() == app).collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

/// A time as RFC 3339 in nanoseconds since 1970.
#[track_caller]
fn nanoseconds(time: &Value) -> u128 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is not a time"));
    let said = run(Command::new("date").args(["-d", text, "+%s%N"])).ok();
    said.parse().unwrap_or_else(|e| panic!("{text}: {e}: {said}"))
}

fn what_has_happened_to_apps_is_told(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);

    // Stopped by the user, or ended by itself.
    for app in ["off", "bad"] {
        let words: &[&str] = if app == "off" { &["sleep", "inf"] } else { &["exit", "3"] };
        pod.add(app, &[], words);
        let _ = pod.app("start", app, &[]);
    }
    pod.app("stop", "off", &[]).ok();
    assert!(line(&podctl, "off").contains("exited (stopped, SIGTERM)"), "{}", line(&podctl, "off"));
    wait_for("the end of bad", 30, || line(&podctl, "bad").contains("exited (exit 3)").then_some(()));
    assert_eq!((&pod.status("off")["stopped"], &pod.status("off")["state"]), (&true.into(), &"exited".into()));
    // The pod runs, and does not look as if all were well.
    assert!(podctl.ok(&["list"]).contains("running (1 failed)"), "{}", podctl.ok(&["list"]));

    // Started again by its policy: the last start is told, and the end before it, in both formats.
    pod.add("again", &["--restart=on-failure"], &["once", "/out/first", "4", "+", "sleep", "inf"]);
    let _ = pod.app("start", "again", &[]);
    wait_for("the restart", 30, || line(&podctl, "again").contains("restarted 1x, last: exit 4").then_some(()));
    let status = pod.status("again");
    let marker = pod.dir().join("stage1/rootfs/rkt/status/again-started");
    let first = fs::metadata(marker)?.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
    let number = |value: &Value| value.as_u64().map(u128::from).unwrap_or_default();
    let (started, ended) = (number(&status["started_at"]), number(&status["last_end"]["at"]));
    assert!(first < ended && ended < started, "{first} {status}");
    for (time, text) in [(started, &status["started"]), (ended, &status["last_end"]["finished"])] {
        assert_eq!(nanoseconds(text), time, "{status}");
    }

    // A pause is an event, and stats tell it.
    for (words, app, kind) in [
        (&["pause", "web", "again"][..], Some("again"), "paused"),
        (&["pause", "web", "again"], Some("again"), "paused"),
        (&["unpause", "web", "again"], Some("again"), "unpaused"),
        (&["pause", "web"], None, "pod-paused"),
        (&["unpause", "web"], None, "pod-unpaused"),
    ] {
        podctl.ok(words);
        let told = events(&podctl, app);
        assert_eq!(kinds(&told).iter().filter(|told| **told == kind).count(), 1, "{words:?}: {told:?}");
        let stats = podctl.json(&["stats", "web", "--no-stream", "--format=json"]);
        let row = stats.as_array().and_then(|rows| rows.iter().find(|row| row["app"].as_str() == app));
        assert_eq!(row.ok_or("no row")?["paused"], words[0] == "pause", "{words:?}: {stats}");
    }

    // The kernel kills a process of an app that goes on.
    if t.has_controllers() {
        pod.add("short", &["--memory=32Mi"], &["spawn", "alloc", "100000000", "+", "sleep", "inf"]);
        pod.app("start", "short", &[]).ok();
        let killed = wait_for("a kill", 30, || pod.status("short")["oom_kills"].as_u64());
        let words =
            if killed == 1 { "(1 process killed: out of memory)".to_owned() } else { format!("({killed} processes") };
        assert!(line(&podctl, "short").contains(&words), "{}", line(&podctl, "short"));
        assert_eq!(podctl.json(&["inspect", "web", "short"])["oom_kills"], killed);
        assert!(podctl.ok(&["list"]).contains("1 out of memory"), "{}", podctl.ok(&["list"]));
        wait_for("the event", 30, || kinds(&events(&podctl, Some("short"))).contains(&"out-of-memory").then_some(()));
        let told = events(&podctl, Some("short"));
        assert_eq!(kinds(&told).iter().filter(|kind| **kind == "out-of-memory").count(), 1, "{told:?}");
        assert!(told.iter().any(|event| event["why"].as_str().is_some_and(|why| why.contains("killed"))), "{told:?}");
        // Its own end later is not one of lack of memory.
        pod.app("stop", "short", &[]).ok();
        assert!(line(&podctl, "short").contains("exited (stopped, SIGTERM)"), "{}", line(&podctl, "short"));
        pod.app("start", "short", &[]).ok();
        wait_for("another kill", 30, || pod.status("short")["oom_kills"].as_u64());
    }

    // Formats.
    let text = podctl.ok(&["inspect", "web", "off", "--format=text"]);
    assert!(text.lines().any(|line| line == "state=exited") && text.contains("\nexec.0=/probe\n"), "{text}");
    podctl.ok(&["volume", "create", "data"]);
    assert!(podctl.ok(&["volume", "inspect", "data", "--format=text"]).contains("0.name=data\n"));
    podctl.ok(&["stop", "web"]);
    if t.has_controllers() {
        assert_eq!(pod.status("short")["exit_code"], 0, "{}", pod.status("short"));
    }
    podctl.ok(&["rm", "web"]);
    Ok(())
}

fn a_restart_for_a_failed_check_waits_as_others_do(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    let often = ["--health-interval=200ms", "--health-retries=1"];
    let ill = [&often[..], &[r#"--health-cmd=["/probe","exit","1"]"#, "--health-on-failure=restart"]].concat();
    pod.add("ill", &ill, &["sleep", "inf"]);
    let slow = [&often[..], &[r#"--health-cmd=["/probe","sleep","inf"]"#, "--health-timeout=200ms"]].concat();
    pod.add("slow", &slow, &["sleep", "inf"]);
    for app in ["ill", "slow"] {
        pod.app("start", app, &[]).ok();
    }
    // A check that says nothing and takes too long is told as what it is.
    let unhealthy = wait_for("what is told of slow", 30, || {
        events(&podctl, Some("slow")).into_iter().find(|event| event["event"] == "unhealthy")
    });
    assert_eq!(unhealthy["why"], "timed out after 0.2 s", "{unhealthy}");
    // The pauses between an end and the next start are those of every restart: 1 s, 2 s.
    let told = wait_for("two restarts", 60, || {
        let told = events(&podctl, Some("ill"));
        (kinds(&told).iter().filter(|kind| **kind == "started").count() > 2).then_some(told)
    });
    let of = |kind: &str| {
        told.iter().filter(|event| event["event"] == kind).map(|event| nanoseconds(&event["time"])).collect::<Vec<_>>()
    };
    let (starts, ends) = (of("started"), of("exited"));
    for (number, seconds) in [(0, 1), (1, 2)] {
        let pause = starts[number + 1] - ends[number];
        assert!(pause >= seconds * 1_000_000_000, "{pause} ns after end {number}: {told:?}");
    }
    pod.end();
    Ok(())
}
