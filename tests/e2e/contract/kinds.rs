//! Every kind of pod through every phase: overlays or copies, own user namespace, each network, with and without
//! `--debug`, mutable and immutable, with a terminal.

use std::fs;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::minihost::{Kind, MiniPod};
use tests::process::{Process, descendants, run, wait_for};
use tests::screen::Screen;

use super::exited;
use super::networks::Networks;

tests::cases! {
    both overlays 240;
    both copies 240;
    both ids_of_their_own 240;
    both declared_apps 240;
    both declared_apps_that_fail 120;
    both a_terminal_for_the_app 240;
}

/// The annotations of an app with attachable streams.
pub fn streams() -> Value {
    let names = ["stdin", "stdout", "stderr"].map(|name| format!("coreos.com/rkt/stage2/{name}"));
    json!({"annotations": names.map(|name| json!({"name": name, "value": "stream"}))})
}

const IDS: Kind = Kind { overlay: false, mutable: true, debug: false, shift: Some(800_000) };

fn overlays(t: &Context) -> Verdict {
    with_each_network(t, Kind::default())
}

fn copies(t: &Context) -> Verdict {
    with_each_network(t, Kind { overlay: false, ..Kind::default() })
}

fn ids_of_their_own(t: &Context) -> Verdict {
    with_each_network(t, IDS)
}

fn with_each_network(t: &Context, kind: Kind) -> Verdict {
    let (host, nets) = (t.minihost(), Networks::new(t));
    nets.network("own", &json!({"cniVersion": "0.4.0"}));
    for (net, debug) in [("host", false), ("none", true), ("default", false), ("own", true)] {
        let (net, kind) = (format!("--net={net}"), Kind { debug, ..kind });
        let (mut pod, monitor) = host.boot_as(kind, &json!([]), &[&net, &nets.flag]);
        whole_life(&mut pod);
        let pids: Vec<i32> = descendants(pod.pid()).iter().map(|p| p.pid).chain([pod.pid()]).collect();
        pod.stop(debug, monitor);
        assert!(!pids.iter().any(|p| Process::lives(*p)), "something of the pod lives on");
        pod.collect(2);
    }
    Ok(())
}

/// Adds, starts, stops and removes an app, twice under the same name.
#[track_caller]
fn whole_life(pod: &mut MiniPod<'_>) {
    for round in 0..2 {
        assert_eq!(pod.state("one"), ("unknown", None));
        pod.add_with("one", &["/probe", "orderly", "7"], &json!([]), &streams()).ok();
        assert_eq!((pod.list(), pod.state("one")), (vec!["one".to_owned()], ("created", None)));
        pod.start_app("one").ok();
        assert_eq!(pod.state("one"), ("running", None));
        let report = run(pod.enter(Some("one"), &["/probe", "report"]).env_remove("TERM"));
        let report: Value = serde_json::from_str(&report.ok()).expect("a report");
        assert_eq!((&report["env"]["AC_APP_NAME"], &report["env"]["TERM"]), (&json!("one"), &json!("vt100")));
        let listed = pod.cross("attach", &["--action=list", "--app=one"]);
        let listed: Value = serde_json::from_str(&listed.ok()).unwrap_or_else(|e| panic!("attach --action=list: {e}"));
        assert_eq!((&listed["version"], listed["targets"].is_array()), (&json!(1), true));
        // The app waits for its signal when its start is complete, or soon after.
        wait_for("the app", 10, || {
            let own = descendants(pod.pid()).into_iter().find(|p| p.words == "/probe orderly 7")?;
            let status = fs::read_to_string(format!("/proc/{}/status", own.pid)).ok()?;
            status.lines().any(|line| line.starts_with("State:\tS")).then_some(())
        });
        pod.cross("app/stop", &["--app=one", "--debug"]).ok();
        assert_eq!(exited(pod, "one"), 7);
        if round == 0 {
            pod.start_app("one").ok();
            assert_eq!(pod.state("one"), ("running", None));
        }
        pod.rm("one");
    }
    assert_eq!(pod.cross("app/stop", &["--app=one"]).code, Some(5));
}

fn declared_apps(t: &Context) -> Verdict {
    for (nth, roots) in [Kind::default(), Kind { overlay: false, ..Kind::default() }, IDS].into_iter().enumerate() {
        let host = t.minihost_in(&format!("mini{nth}"));
        for debug in [false, true] {
            let mut pod = host.prepare_as(Kind { mutable: false, debug, ..roots }, &json!([]));
            pod.declare("one", &["/probe", "print", "from one"], &json!([]), &json!({}));
            pod.declare("two", &["/probe", "warn", "from two", "+", "report"], &json!([]), &json!({}));
            let ids = roots.shift.map(|shift| format!("--private-users={shift}:65536"));
            let flags: Vec<&str> = ["--net=none"].into_iter().chain(ids.as_deref()).collect();
            let out = pod.run_to_end(&flags);
            let all = format!("{}{}", out.stdout, out.stderr);
            assert!(out.code == Some(0) && all.contains("from one") && all.contains("from two"), "{out}");
            assert!(all.contains("\"AC_APP_NAME\": \"two\""), "{out}");
            for app in ["one", "two"] {
                let status = fs::read_to_string(pod.upper().join("rkt/status").join(app))?;
                assert_eq!(status, "0\n", "{app}");
            }
            pod.collect(2);
        }
    }
    Ok(())
}

/// The first app that fails ends the pod, and the pod's exit code is that app's.
fn declared_apps_that_fail(t: &Context) -> Verdict {
    let host = t.minihost();
    let mut pod = host.prepare_as(Kind { mutable: false, ..Kind::default() }, &json!([]));
    pod.declare("stays", &["/probe", "sleep", "inf"], &json!([]), &json!({}));
    pod.declare("fails", &["/probe", "exit", "42"], &json!([]), &json!({}));
    let out = pod.run_to_end(&["--net=host"]);
    assert_eq!(out.code, Some(42), "{out}");
    assert_eq!(fs::read_to_string(pod.upper().join("rkt/status/fails"))?, "42\n");
    pod.collect(1);
    Ok(())
}

/// Each kind of root with each network; the output of PID 1 with `--debug` is not mixed into the terminal.
fn a_terminal_for_the_app(t: &Context) -> Verdict {
    let nets = Networks::new(t);
    nets.network("own", &json!({"cniVersion": "0.4.0"}));
    for (nth, roots) in [Kind::default(), Kind { overlay: false, ..Kind::default() }, IDS].into_iter().enumerate() {
        let host = t.minihost_in(&format!("mini{nth}"));
        for (net, debug) in [("host", true), ("none", false), ("default", true), ("own", false)] {
            let mut pod = host.prepare_as(Kind { mutable: false, debug, ..roots }, &json!([]));
            pod.declare("one", &["/probe", "print", "shown", "+", "cat", "/dev/stdin"], &json!([]), &json!({}));
            let (net, ids) =
                (format!("--net={net}"), roots.shift.map(|shift| format!("--private-users={shift}:65536")));
            let flags: Vec<&str> =
                [net.as_str(), &nets.flag, "--interactive"].into_iter().chain(ids.as_deref()).collect();
            let (command, lock) = pod.run_command(&flags);
            let mut screen = Screen::new();
            let mut monitor = screen.start(&command, [None, None, None]);
            drop(lock);
            screen.shows("shown");
            screen.types("typed\n\x04");
            screen.shows("typed");
            assert_eq!(screen.end_of(&mut monitor), 0, "{flags:?}");
            let config: Value = serde_json::from_str(&fs::read_to_string(pod.dir().join("runtime-config"))?)?;
            assert_eq!((&config["Interactive"], &config["Debug"]), (&json!(true), &json!(debug)), "{flags:?}");
            pod.collect(1);
        }
    }
    Ok(())
}
