//! What has happened to pods and apps, told while it happens and long after; and the tree of what runs.

use std::collections::HashSet;
use std::fs::{self, File};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Podctl;
use tests::process::{Process, wait_for};

tests::cases! {
    both what_happens_is_told_and_kept;
    native the_tree_shows_who_started_whom;
}

/// What is told, as words: `APP EVENT CODE`.
fn words(text: &str) -> Vec<String> {
    let event = |line: &str| -> String {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
        let word = |key: &str| event[key].as_str().map(str::to_owned);
        let code = event["exit_code"].as_i64().map(|code| code.to_string());
        [word("app"), word("event"), code].into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    text.lines().map(event).collect()
}

#[track_caller]
fn told(podctl: &Podctl, more: &[&str]) -> Vec<String> {
    words(&podctl.ok(&[&["events", "--format=json"], more].concat()))
}

/// The wanted ones are there, in this order, whatever is between them.
#[track_caller]
fn must_have(told: &[String], wanted: &[&str]) {
    let mut rest = told.iter();
    for word in wanted {
        assert!(rest.any(|told| told == word), "{word:?} is not there, or not after the others: {told:?}");
    }
}

fn what_happens_is_told_and_kept(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    let path = t.dir.join("followed");
    let mut follower = podctl
        .command(&["events", "-f", "--format=json", "web"])
        .stdout(File::create(&path)?)
        .stderr(Stdio::null())
        .spawn()?;
    let followed = |word: &str| {
        wait_for(word, 30, || {
            let text = fs::read_to_string(&path).ok()?;
            // the last line may be half written
            let whole = text.rfind('\n').map(|end| text[..=end].to_owned())?;
            words(&whole).iter().any(|told| told == word).then_some(())
        });
    };
    followed("pod-started");
    pod.add("once", &[], &["exit", "3"]);
    followed("once added");
    let _ = pod.app("start", "once", &[]);
    followed("once exited 3");
    pod.add("loop", &["--restart=on-failure", "--restart-limit=1"], &["exit", "1"]);
    let _ = pod.app("start", "loop", &[]);
    followed("loop gave-up");
    pod.add(
        "ill",
        &[r#"--health-cmd=["/probe","cat","/out/wanted"]"#, "--health-interval=200ms", "--health-retries=1"],
        &["sleep", "inf"],
    );
    pod.app("start", "ill", &[]).ok();
    followed("ill unhealthy 1");
    fs::write(podctl.out().join("wanted"), "x")?;
    followed("ill healthy 0");
    if t.has_controllers() {
        pod.add("big", &["--memory=32Mi"], &["alloc", "100000000"]);
        let _ = pod.app("start", "big", &[]);
        followed("big out-of-memory");
        followed("big exited 137");
    }
    pod.app("rm", "once", &[]).ok();
    followed("once removed");
    let all = told(&podctl, &["web"]);
    must_have(&all, &["pod-started", "once added", "once started", "once exited 3", "once removed"]);
    must_have(
        &all,
        &["loop started", "loop exited 1", "loop restarting", "loop started", "loop exited 1", "loop gave-up"],
    );
    assert!(told(&podctl, &["web", "loop"]).iter().all(|told| told.starts_with("loop ")));
    assert!(told(&podctl, &["web", "--since=now"]).is_empty() && told(&podctl, &["other"]).is_empty());
    let text = podctl.ok(&["events", "web", "once"]);
    assert!(text.lines().any(|line| line.ends_with("  web/once  exited (exit 3)")), "{text}");
    // An orderly end is the monitor's to tell; one that nobody could tell is told all the same.
    podctl.ok(&["stop", "web"]);
    followed("pod-ended 0");
    podctl.ok(&["start", "web"]);
    let pid1 = pod.pid();
    kill(Pid::from_raw(Process::look_up(pid1).expect("PID 1").parent), Signal::SIGKILL)?;
    wait_for("the pod's end", 15, || (!Process::lives(pid1)).then_some(()));
    podctl.ok(&["wait", "web"]);
    followed("pod-ended");
    // The pod goes, what happened to it stays, and is told once.
    let before = told(&podctl, &["web"]);
    podctl.ok(&["rm", "web"]);
    followed("pod-removed");
    assert_eq!(told(&podctl, &["web"])[..before.len()], before);
    assert_eq!(told(&podctl, &[&pod.uuid[..8]]).len(), before.len() + 1);
    let text = fs::read_to_string(&path)?;
    let once: HashSet<&str> = text.lines().collect();
    assert_eq!(once.len(), text.lines().count(), "an event was told twice");
    follower.kill()?;
    follower.wait()?;
    Ok(())
}

fn the_tree_shows_who_started_whom(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    pod.add("db", &[], &["spawn", "sleep", "4712", "+", "sleep", "inf"]);
    pod.add("idle", &[], &["sleep", "inf"]);
    pod.app("start", "db", &[]).ok();
    let child = |tree: &Value| -> Option<(i64, Value)> {
        let first = &tree[0]["apps"][0]["processes"][0];
        // until it executes its own command it has its parent's words
        let child = first["children"].get(0).filter(|child| child["command"] == "/proc/self/exe sleep 4712")?;
        Some((first["pid"].as_i64()?, child.clone()))
    };
    let (parent, found) = wait_for("the child", 20, || child(&podctl.json(&["tree", "web", "--format=json"])));
    let pid = found["pid"].as_i64().expect("pid");
    assert_eq!(Process::parent_of(i32::try_from(pid)?), i32::try_from(parent)?);
    let text = podctl.ok(&["tree"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines[1]), ("web  running", "├─ db  running"), "{text}");
    assert!(lines[2].starts_with(&format!("│  └─ {parent} /probe spawn")), "{text}");
    assert_eq!(lines[3], format!("│     └─ {pid} /proc/self/exe sleep 4712"));
    assert_eq!(lines[4], "└─ idle  created");
    pod.end();
    assert_eq!(podctl.ok(&["tree"]), "");
    Ok(())
}
