//! Pods that are started again after their end, with all their files; and sandboxes that fail to start.

#![allow(clippy::zombie_processes, reason = "the warden of a failed test reaps what it has left")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Podctl;
use tests::process::{Process, descendants, wait_for};

use crate::pods::{cut_off, forget};

tests::cases! {
    both an_ended_pod_runs_again_with_all_it_had 120;
    native an_immutable_pod_runs_again;
    native what_can_not_be_started;
    native a_sandbox_that_fails_leaves_nothing;
}

/// How often an app has run: the number of lines in a file to which each run adds one.
#[track_caller]
fn runs(podctl: &Podctl, app: &str, file: &str) -> usize {
    podctl.ok(&["exec", "web", app, "--", "/probe", "cat", file]).lines().count()
}

fn an_ended_pod_runs_again_with_all_it_had(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for making in [&[][..], &["--private-users"], &["--no-overlay"]] {
        let options = ["--name=web", "--net=none", "--hostname=of-the-pod", "--volume=data,kind=empty"];
        let pod = podctl.pod(&[making, &options].concat());
        // The app writes the line before it counts as started.
        let counts = ["append", "/count", "x", "+", "append", "/data/count", "x", "+", "write", "/out/done", "x"];
        let counts = [&counts[..], &["+", "sleep", "inf"]].concat();
        let more = ["--mount=volume=data,target=/data", "--user=0", "--env=COLOUR=green", "--memory=64Mi"];
        pod.add("runs", &[&more[..], &["--disable-seccomp"]].concat(), &counts);
        pod.add("stopped", &[], &["sleep", "inf"]);
        pod.add("always", &["--restart=always"], &["sleep", "inf"]);
        pod.add("ended", &[], &["exit", "3"]);
        pod.add("idle", &[], &["sleep", "inf"]);
        for app in ["runs", "stopped", "always", "ended"] {
            pod.app("start", app, &[]).ok();
        }
        pod.app("stop", "stopped", &[]).ok();
        pod.app("stop", "always", &[]).ok();
        assert_eq!(pod.exit_code("ended"), 3);
        let done = podctl.out().join("done");
        let counted = |expected: usize| {
            wait_for("the app", 10, || done.exists().then_some(()));
            fs::remove_file(&done).expect("done");
            for file in ["/count", "/data/count"] {
                assert_eq!(runs(&podctl, "runs", file), expected, "{file} {making:?}");
            }
        };
        counted(1);
        let ends: [&dyn Fn(); 3] = [&|| drop(podctl.ok(&["stop", "web"])), &|| cut_off(pod.pid()), &|| {
            cut_off(pod.pid());
            forget(&pod.dir(), &pod.uuid);
        }];
        for (nth, end) in ends.iter().enumerate() {
            end();
            assert_eq!(podctl.json(&["status", "web", "--format=json"])["state"], "exited");
            podctl.ok(&["start", "web"]);
            let status = podctl.json(&["status", "web", "--format=json"]);
            assert_eq!((&status["name"], &status["state"]), (&json!(pod.uuid), &json!("running")));
            counted(nth + 2);
            assert_eq!(pod.exit_code("ended"), 3);
            let state = |app| pod.state(app);
            assert_eq!(["runs", "always", "ended"].map(state), ["running", "running", "exited"]);
            assert_eq!(["stopped", "idle"].map(state), ["exited", "created"].map(String::from), "{nth}");
            let seen: Value = serde_json::from_str(&podctl.ok(&["exec", "web", "runs", "--", "/probe", "report"]))?;
            assert_eq!((&seen["hostname"], &seen["env"]["COLOUR"]), (&json!("of-the-pod"), &json!("green")));
            assert_eq!(seen["seccomp"], "0", "what was asked for is kept");
        }
        // Starting a running pod changes nothing, and a stopped app can be started as before.
        podctl.ok(&["start", "web"]);
        pod.app("start", "stopped", &[]).ok();
        podctl.ok(&["restart", "web"]);
        counted(5);
        assert_eq!(pod.state("stopped"), "running");
        pod.end();
    }
    Ok(())
}

fn an_immutable_pod_runs_again(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let app = ["probe", "--exec=/probe", "--", "append", "/count", "x", "+", "orderly", "5"];
    let uuid = podctl.ok(&[&["prepare", "--net=none", "--name=web"][..], &app].concat());
    let mut run = podctl.command(&["run-prepared", &uuid]).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let running = || {
        wait_for("the app", 15, || {
            let pid = podctl.json(&["status", "web", "--format=json"])["pid"].as_i64()?;
            descendants(i32::try_from(pid).ok()?).into_iter().find(|p| p.words.contains("orderly"))
        })
    };
    Process::holds_sigterm(running().pid);
    podctl.ok(&["stop", "web"]);
    assert!(run.wait()?.success(), "an orderly end");
    for nth in 2..4 {
        podctl.ok(&["start", "web"]);
        Process::holds_sigterm(running().pid);
        assert_eq!(runs(&podctl, "probe", "/count"), nth);
        podctl.ok(&["stop", "web"]);
        let status = podctl.json(&["status", "web", "--format=json"]);
        assert_eq!((&status["name"], &status["apps"][0]["exit_code"]), (&json!(uuid), &json!(5)), "{status}");
    }
    podctl.ok(&["rm", "web"]);
    Ok(())
}

fn what_can_not_be_started(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let prepared = podctl.ok(&["prepare", "--net=none", "probe"]);
    let line = podctl.fails(&["start", &prepared]);
    assert!(line.contains("run-prepared"), "{line}");
    podctl.ok(&["rm", &prepared]);
    let gone = t.dir.join("gone");
    fs::create_dir(&gone)?;
    let pod = podctl.sandbox(&["--net=none", &format!("--volume=v,kind=host,source={}", gone.display())]);
    podctl.ok(&["stop", &pod.uuid]);
    // A pod that fails to start is unchanged, and can be started when what it needs exists.
    fs::remove_dir(&gone)?;
    let line = podctl.fails(&["start", &pod.uuid]);
    assert!(line.contains("gone") && line.contains("did not come up"), "{line}");
    assert_eq!(podctl.json(&["status", &pod.uuid, "--format=json"])["state"], "exited");
    fs::create_dir(&gone)?;
    podctl.ok(&["start", &pod.uuid]);
    podctl.ok(&["stop", &pod.uuid]);
    podctl.ok(&["gc", "--mark-only"]);
    let line = podctl.fails(&["start", &pod.uuid]);
    assert!(line.contains("marked for removal"), "{line}");
    podctl.ok(&["gc", "--grace-period=0s"]);
    Ok(())
}

fn a_sandbox_that_fails_leaves_nothing(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let gone = |what: &str| {
        wait_for(&format!("nothing left of {what}"), 15, || {
            (podctl.json(&["list", "--format=json"]) == json!([])).then_some(())
        });
    };
    let fails = |args: &[&str], code| {
        let out = podctl.run(args);
        assert_eq!(out.code, Some(code), "{out}");
        assert!(out.stderr.contains("no-such"), "{out}");
        gone(&args.join(" "));
    };
    let bad = "--volume=v,kind=host,source=/no-such";
    fails(&["sandbox", "--net=none", bad], 254);
    // `run` itself fails here, after it has replaced podctl.
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    let config = t.dir.join("networks");
    fs::create_dir_all(config.join("net.d"))?;
    fs::write(config.join("net.d/10-x.conf"), r#"{"cniVersion":"0.4.0","name":"x","type":"no-such"}"#)?;
    let networks = [format!("--local-config={}", config.display()), "--net=x".to_owned()];
    let [local, net] = [networks[0].as_str(), networks[1].as_str()];
    fails(&["sandbox", local, net], 254);
    fails(&["sandbox", "--foreground", local, net], 125);
    fails(&["run", local, net, "probe"], 125);
    // Interrupted while it starts: it waits for a plugin that never answers.
    let slow = config.join("net.d/slow");
    let waits = t.dir.join("waits");
    fs::write(&slow, format!("#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\n: >{}\nexec sleep 100\n", waits.display()))?;
    fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    fs::write(config.join("net.d/10-x.conf"), r#"{"cniVersion":"0.4.0","name":"x","type":"slow"}"#)?;
    let mut sandbox = podctl.command(&["sandbox", local, net]);
    let mut sandbox = sandbox.process_group(0).stderr(Stdio::null()).spawn()?;
    wait_for("the plugin", 15, || waits.exists().then_some(()));
    kill(Pid::from_raw(i32::try_from(sandbox.id())?), Signal::SIGINT)?;
    assert_eq!(sandbox.wait()?.code(), Some(254));
    gone("an interrupted sandbox");
    Ok(())
}
