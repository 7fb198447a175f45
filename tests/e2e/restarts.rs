//! Apps that are restarted when they end: how often, after which pause, and their status.

use std::fs;
use std::process::Command;

use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::{descendants, wait_for};

tests::cases! {
    both crash_loops_and_what_is_told_of_them 120;
}

/// The line of an app in the table of a pod's status.
#[track_caller]
fn line(podctl: &Podctl, pod: &Pod<'_>, app: &str) -> String {
    let text = podctl.ok(&["status", &pod.uuid]);
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(app));
    line.unwrap_or_else(|| panic!("no {app} in {text}")).to_owned()
}

#[track_caller]
fn shows(podctl: &Podctl, pod: &Pod<'_>, app: &str, words: &str) {
    wait_for(&format!("{app}: {words}"), 30, || line(podctl, pod, app).contains(words).then_some(()));
}

fn crash_loops_and_what_is_told_of_them(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    // A stop signal without effect, and no kill within the time of this test.
    let patient = ["--restart=unless-stopped", "--stop-signal=SIGWINCH", "--stop-timeout=1h"];
    pod.add("loop", &patient, &["append", "/out/runs", "x", "+", "exit", "1"]);
    pod.add("limited", &["--restart=on-failure:1"], &["exit", "3"]);
    pod.add("few", &["--restart=always", "--restart-limit=0"], &["exit", "0"]);
    pod.add("fine", &["--restart=on-failure"], &["exit", "0"]);
    pod.add("killed", &["--restart=on-failure"], &["signal", "SIGSEGV"]);
    pod.add("once", &["--restart=on-failure"], &["once", "/out/first", "4", "+", "sleep", "inf"]);
    let mut apps = vec!["loop", "limited", "few", "fine", "killed", "once"];
    if t.has_controllers() {
        pod.add("big", &["--restart=always", "--memory=32Mi"], &["alloc", "100000000"]);
        apps.push("big");
    }
    for app in &apps {
        // Some runs end before they count as started.
        let _ = pod.app("start", app, &[]);
    }
    shows(&podctl, &pod, "limited", "exited (exit 3, gave up after 1 restart)");
    assert_eq!(pod.status("limited")["restarts"], 1);
    shows(&podctl, &pod, "few", "gave up after 0 restarts");
    shows(&podctl, &pod, "fine", "exited ");
    shows(&podctl, &pod, "once", "running (restarted 1x, last: exit 4, ");
    if t.has_controllers() {
        shows(&podctl, &pod, "big", "restarting (2x, out of memory, ");
    }
    shows(&podctl, &pod, "killed", "restarting (3x, SIGSEGV, ");
    shows(&podctl, &pod, "loop", "restarting (3x, exit 1, ");
    wait_for("who waits for the next start", 20, || {
        descendants(pod.pid()).into_iter().find(|p| p.words.ends_with("app-exec --back-off loop"))
    });
    let by_hand = Command::new(pod.dir().join("stage1/rootfs/opt/stage1/bin/app-rm"))
        .arg("--app=loop")
        .env_clear()
        .current_dir(pod.dir())
        .output()?;
    assert!(!by_hand.status.success(), "an app between two runs was removed");
    let status = pod.status("loop");
    assert_eq!((&status["state"], &status["last_end"]["exit_code"]), (&"running".into(), &1.into()), "{status}");
    let runs = fs::read_to_string(podctl.out().join("runs"))?.lines().count() as u64;
    assert!((3..=status["restarts"].as_u64().ok_or("no restarts")? + 1).contains(&runs), "{runs} {status}");
    let list = podctl.ok(&["list"]);
    assert!(list.contains(" restarting)"), "{list}");
    // A stop ends the pause; the app has the status of its last end.
    pod.app("stop", "loop", &[]).ok();
    let status = pod.status("loop");
    assert_eq!((&status["state"], &status["exit_code"]), (&"exited".into(), &1.into()), "{status}");
    assert!(line(&podctl, &pod, "loop").contains("exited (stopped, exit 1)"), "{status}");
    // A start by the user begins counting again.
    let _ = pod.app("start", "loop", &[]);
    shows(&podctl, &pod, "loop", "restarting (1x, exit 1, ");
    pod.end();
    Ok(())
}
