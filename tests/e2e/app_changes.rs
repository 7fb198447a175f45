//! Changing an app while its pod runs: its limits, its image.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tests::Verdict;
use tests::harness::{Context, Layout};
use tests::podctl::{Pod, Podctl};
use tests::process::{descendants, pod_cgroups, wait_for};

tests::cases! {
    both limits_change_while_it_runs_and_stay;
    native an_apps_image_is_replaced_and_its_options_stay;
}

/// The kernel's values of an app's limits: memory, CPU, processes.
#[track_caller]
fn limits(t: &Context, pod: &Pod<'_>, app: &str) -> [String; 3] {
    let unit = PathBuf::from(format!("system.slice/app-{app}.service"));
    let read = |file: &str| {
        let found = pod_cgroups(&pod.uuid).into_iter().map(|dir| dir.join(&unit).join(file)).find(|path| path.exists());
        found.map(|path| fs::read_to_string(&path).expect("a limit").trim().to_owned()).unwrap_or_default()
    };
    match t.layout {
        Layout::V1 => ["memory.limit_in_bytes", "cpu.cfs_quota_us", "pids.max"].map(read),
        Layout::V2 => ["memory.max", "cpu.max", "pids.max"].map(read),
    }
}

fn limits_change_while_it_runs_and_stay(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    pod.add("one", &["--memory=64Mi", "--cpu-shares=512"], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    assert!(podctl.fails(&["update", "web", "one"]).contains("--memory 64m"));
    assert!(podctl.fails(&["update", "web", "one", "--memory=64"]).contains("write 64m"));
    assert!(podctl.fails(&["update", "web", "two", "--memory=64m"]).contains("two"));
    let change = ["update", "web", "one", "--memory=96m", "--cpu=0.5", "--pids=50"];
    if !t.has_controllers() {
        let line = podctl.fails(&change);
        assert!(line.contains("can't enforce the limits on memory, cpu, cpu-shares, pids"), "{line}");
        pod.end();
        return Ok(());
    }
    let process = || descendants(pod.pid()).into_iter().find(|p| p.words == "/probe sleep inf").map(|p| p.pid);
    let before = wait_for("the app", 10, process);
    podctl.ok(&change);
    let cpu = if t.layout == Layout::V1 { "50000" } else { "50000 100000" };
    let expected = ["100663296", cpu, "50"];
    assert_eq!(limits(t, &pod, "one"), expected);
    assert_eq!(process(), Some(before), "it was started anew");
    // Limits that were not given are unchanged.
    let isolators = podctl.json(&["inspect", "web", "one"]).to_string();
    assert!(isolators.contains("512"), "{isolators}");
    pod.app("restart", "one", &[]).ok();
    assert_eq!(limits(t, &pod, "one"), expected);
    podctl.ok(&["restart", "web"]);
    assert_eq!(limits(t, &pod, "one"), expected);
    // Nor does a replacement go back to those before.
    podctl.ok(&["app", "replace", "web", "one", "--env=A=b"]);
    wait_for("the new app", 10, process);
    assert_eq!(limits(t, &pod, "one"), expected);
    // Nothing of it outlives the app.
    pod.app("stop", "one", &[]).ok();
    pod.app("rm", "one", &[]).ok();
    pod.add("one", &["--memory=64Mi"], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    assert_eq!(limits(t, &pod, "one")[0], "67108864");
    pod.end();
    Ok(())
}

/// An image of the probe with a name of its own.
fn import(podctl: &Podctl, name: &str, version: &str) {
    let app = json!({ "exec": ["/probe", "append", "/out/runs", version, "+", "sleep", "inf"],
        "environment": [{ "name": "VERSION", "value": version }] });
    podctl.import_with(name, &app);
}

fn an_apps_image_is_replaced_and_its_options_stay(t: &Context) -> Verdict {
    let podctl = t.podctl();
    import(&podctl, "first", "one");
    import(&podctl, "second", "two");
    podctl.import_with("broken", &json!({ "exec": ["/no-such-command"] }));
    let pod = podctl.pod(&["--net=none", "--name=web", "--volume=data,kind=empty"]);
    let options = ["--env=COLOUR=green", "--user=1001", "--memory=64Mi", "--mount=volume=data,target=/data"];
    pod.try_add("first", "db", &[&options[..], &["--restart=on-failure", "--stop-timeout=7"]].concat(), &[]).ok();
    pod.app("start", "db", &[]).ok();
    let runs = |expected: &str| {
        wait_for(expected, 15, || (fs::read_to_string(podctl.out().join("runs")).ok()? == expected).then_some(()));
    };
    runs("one\n");
    let seen = |key: &str| {
        let report = podctl.ok(&["exec", "web", "db", "--", "/probe", "report"]);
        serde_json::from_str::<serde_json::Value>(&report).expect("a report")["env"][key].clone()
    };
    podctl.ok(&["exec", "web", "db", "--user=root", "--", "/probe", "write", "/data/kept", "x"]);
    podctl.ok(&["exec", "web", "db", "--user=root", "--", "/probe", "write", "/own", "of the first"]);
    podctl.ok(&["app", "replace", "web", "db", "--image=second"]);
    runs("one\ntwo\n");
    assert_eq!([seen("VERSION"), seen("COLOUR")], ["two", "green"]);
    podctl.ok(&["exec", "web", "db", "--", "/probe", "cat", "/data/kept"]);
    assert_ne!(podctl.run(&["exec", "web", "db", "--", "/probe", "cat", "/own"]).code, Some(0), "a new root");
    let manifest = fs::read_to_string(pod.dir().join("pod"))?;
    for kept in ["\"1001\"", "67108864", "on-failure", "\"7\""] {
        assert!(manifest.contains(kept), "{kept}: {manifest}");
    }
    // Only the given options change.
    podctl.ok(&["app", "replace", "web", "db", "--image=first", "--env=SIZE=big"]);
    runs("one\ntwo\none\n");
    assert_eq!([seen("VERSION"), seen("COLOUR"), seen("SIZE")], ["one", "green", "big"]);
    // After a failure the old app is back, with the files it had written.
    podctl.ok(&["exec", "web", "db", "--user=root", "--", "/probe", "write", "/own", "of the old"]);
    let line = podctl.fails(&["app", "replace", "web", "db", "--image=broken"]);
    assert!(line.contains("no-such-command") && line.contains("is back"), "{line}");
    runs("one\ntwo\none\none\n");
    assert_eq!([seen("VERSION"), seen("SIZE")], ["one", "big"]);
    assert_eq!(podctl.ok(&["exec", "web", "db", "--", "/probe", "cat", "/own"]), "of the old");
    // Errors that are found before the old app is stopped do not stop it.
    assert!(podctl.fails(&["app", "replace", "web", "db", "--image=none", "--pull=never"]).contains("none"));
    runs("one\ntwo\none\none\n");
    // An app that does not run is not started.
    pod.app("stop", "db", &[]).ok();
    podctl.ok(&["app", "replace", "web", "db", "--image=second"]);
    assert_eq!(pod.state("db"), "created");
    pod.end();
    Ok(())
}
