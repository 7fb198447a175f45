//! Limits and usage are visible; a pod and its apps can be paused and signalled.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::Uid;
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::{Process, wait_for};

tests::cases! {
    both all_that_is_in_force_is_told 90;
    both use_of_pods_and_apps_is_counted;
    both what_is_paused_does_nothing 120;
    both signals_reach_an_app;
    native others_than_root_are_told_how;
    native the_machine_is_examined;
}

/// An app that uses CPU as long as it may.
const BUSY: [&str; 2] = ["flood", "999999999999999"];

fn inspect(podctl: &Podctl, words: &[&str]) -> Value {
    podctl.json(&[&["inspect"], words].concat())
}

fn all_that_is_in_force_is_told(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let app = json!({"mountPoints": [{"name": "data", "path": "/data"}]});
    podctl.import_with("with-volume", &app);
    let pod = podctl.pod(&["--name=web", "--net=none", "--hostname=box", "--private-users"]);
    let options =
        ["--memory=64Mi", "--pids=20", "--cpu=500m", "--user=7", "--group=8", "--env=A=b", "--caps-retain=CAP_KILL"];
    let more = ["--no-new-privileges", "--stop-signal=INT", "--working-dir=/data"];
    pod.try_add("with-volume", "one", &[&options[..], &more].concat(), &["sleep", "inf"]).ok();

    // before it runs: the limits that it will have
    let told = inspect(&podctl, &["web", "one"]);
    assert_eq!(
        (&told["state"], &told["pid"], &told["mounts"]),
        (&json!("created"), &json!(null), &json!([])),
        "{told}"
    );
    podctl.ok(&["app", "start", "web", "one"]);
    let told = inspect(&podctl, &["web", "one"]);
    for (field, expected) in [
        ("name", json!("one")),
        ("state", json!("running")),
        ("paused", json!(false)),
        ("user", json!(7)),
        ("group", json!(8)),
        ("working_directory", json!("/data")),
        ("exec", json!(["/probe", "sleep", "inf"])),
        ("capabilities", json!(["CAP_KILL"])),
        ("no_new_privileges", json!(true)),
        ("seccomp", json!("filtered")),
        ("annotations", json!({"podctl.io/stop-signal": "INT"})),
    ] {
        assert_eq!(told[field], expected, "{field}: {told}");
    }
    assert_eq!(told["environment"]["A"], "b", "{told}");
    let pid = told["pid"].as_i64().ok_or("no pid")?;
    let (pid, sleeps) = (i32::try_from(pid)?, |process: Process| process.words.contains("sleep"));
    // systemd hears that the app has started just before its program is executed
    wait_for("the program", 10, || Process::look_up(pid).is_some_and(sleeps).then_some(()));
    let volumes = told["volumes"].as_array().ok_or("no volumes")?;
    let of = |target: &str| volumes.iter().find(|volume| volume["target"] == target).unwrap_or(&Value::Null).clone();
    assert_eq!((&of("/data")["implicit"], &of("/out")["implicit"]), (&json!(true), &json!(false)), "{told}");
    assert!(fs::metadata(of("/data")["source"].as_str().ok_or("no source")?)?.is_dir());
    let mounts = told["mounts"].as_array().ok_or("no mounts")?;
    for target in ["/", "/data", "/out", "/proc", "/dev"] {
        assert!(mounts.iter().any(|mount| mount["target"] == target), "{target}: {told}");
    }
    let unified = told["cgroups"]["unified"].as_str().ok_or("no cgroup")?;
    assert!(unified.ends_with("/system.slice/app-one.service"), "{unified}");
    if t.has_controllers() {
        assert_eq!(told["limits"], json!({"memory": 64 << 20, "pids": 20, "cpu": 500_000}), "{told}");
    }

    let told = inspect(&podctl, &["web"]);
    assert_eq!((&told["name"], &told["pod_name"]), (&json!(pod.uuid), &json!("web")), "{told}");
    assert_eq!(told["runtime"]["Hostname"], "box", "{told}");
    assert!(told["private_users"].as_str().is_some_and(|ids| ids.ends_with(":65536")), "{told}");
    assert_eq!(told["inspected_apps"][0]["name"], "one", "{told}");
    assert_eq!(told["volumes"][0]["name"], "out", "{told}");

    assert!(podctl.fails(&["inspect", "web", "two"]).contains("no app two"));
    podctl.ok(&["stop", "web"]);
    // ended apps are still listed
    assert_eq!(inspect(&podctl, &["web"])["inspected_apps"][0]["pid"], json!(null));
    podctl.ok(&["rm", "web"]);
    assert!(podctl.fails(&["inspect", "web"]).contains("no pod"));
    Ok(())
}

fn use_of_pods_and_apps_is_counted(t: &Context) -> Verdict {
    let podctl = t.podctl();
    assert_eq!(podctl.json(&["stats", "--no-stream", "--format=json"]), json!([]));
    let pod = podctl.pod(&["--name=web"]);
    pod.add("busy", &["--memory=64Mi", "--pids=20", "--stdout=null"], &BUSY);
    pod.add("idle", &[], &["sleep", "inf"]);
    pod.add("off", &[], &["sleep", "inf"]);
    for app in ["busy", "idle"] {
        podctl.ok(&["app", "start", "web", app]);
    }
    wait_for("the busy app to have been on a processor", 30, || {
        let all = podctl.json(&["stats", "web", "--no-stream", "--format=json"]);
        let rows: Vec<Value> = all.as_array().expect("rows").clone();
        let names: Vec<_> = rows.iter().map(|row| row["app"].as_str()).collect();
        assert_eq!(names, [None, Some("busy"), Some("idle")], "{all}");
        for row in &rows {
            let number = |field: &str| row[field].as_u64().unwrap_or_else(|| panic!("no {field} in {row}"));
            assert!(number("memory") > 0 && number("pids") > 0 && row["pod_name"] == "web", "{row}");
        }
        if t.has_controllers() {
            assert_eq!((&rows[1]["memory_limit"], &rows[1]["pids_limit"]), (&json!(64 << 20), &json!(20)), "{all}");
        }
        let busy = rows[1]["cpu_percent"].as_f64().unwrap_or_default();
        (busy > rows[2]["cpu_percent"].as_f64().unwrap_or(f64::MAX) && rows[1]["cpu_us"].as_u64() > Some(0))
            .then_some(())
    });
    let table = podctl.ok(&["stats", "web", "--no-stream"]);
    assert!(table.starts_with("POD") && table.contains("busy") && !table.contains("off"), "{table}");

    // without --no-stream it goes on until it is interrupted, with a line per update
    let mut stream = podctl.command(&["stats", "--format=json"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream.stdout.take().expect("a pipe")));
    for _ in 0..2 {
        let line: Value = serde_json::from_str(&lines.next().ok_or("no line")??)?;
        assert_eq!(line[1]["app"], "busy", "{line}");
    }
    stream.kill()?;
    stream.wait()?;

    let members = podctl.json(&["top", "web", "busy", "--format=json"]);
    assert!(members[0]["command"].as_str().is_some_and(|command| command.starts_with("/probe flood")), "{members}");
    assert!(members[0]["pid_in_pod"].as_i64() > Some(1) && members[0]["uid"] == 0, "{members}");
    let all = podctl.ok(&["top", "web"]);
    assert!(all.contains("systemd") && all.contains("sleep inf"), "{all}");
    assert!(podctl.fails(&["stats", "none"]).contains("no pod"));
    podctl.ok(&["stop", "--force", "web"]);
    for verb in ["stats", "top"] {
        let words = if verb == "stats" { &["stats", "web", "--no-stream"][..] } else { &["top", "web"] };
        assert!(podctl.fails(words).contains("exited"));
    }
    podctl.ok(&["rm", "web"]);
    Ok(())
}

/// The CPU time of an app's first process, in ticks.
#[track_caller]
fn ticks(pod: &Pod<'_>, app: &str) -> u64 {
    let pid = inspect(pod.podctl, &[&pod.uuid, app])["pid"].as_i64().expect("a running app");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
}

#[track_caller]
fn goes_on(pod: &Pod<'_>, app: &str) {
    let before = ticks(pod, app);
    wait_for(&format!("{app} to go on"), 30, || (ticks(pod, app) > before).then_some(()));
}

/// A frozen app uses no CPU time, so two samples are enough.
#[track_caller]
fn holds_still(pod: &Pod<'_>, app: &str) {
    let before = ticks(pod, app);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ticks(pod, app), before, "{app} goes on");
}

fn what_is_paused_does_nothing(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--name=web"]);
    for app in ["one", "two"] {
        pod.add(app, &["--stdout=null"], &BUSY);
        podctl.ok(&["app", "start", "web", app]);
        goes_on(&pod, app);
    }
    // one app
    podctl.ok(&["pause", "web", "one"]);
    podctl.ok(&["pause", "web", "one"]);
    holds_still(&pod, "one");
    goes_on(&pod, "two");
    assert_eq!(inspect(&podctl, &["web", "one"])["paused"], true);
    // every list says so, of this app alone
    for (words, line) in [
        (&["status", "web"][..], "one   paused"),
        (&["app", "list", "web"], "one   paused"),
        (&["app", "status", "web", "one"], "state=paused"),
        (&["tree", "web"], "├─ one  paused"),
        (&["list"], "running (1 paused)"),
    ] {
        let text = podctl.ok(words);
        assert!(text.contains(line) && !text.contains("two   paused"), "{words:?}: {text}");
    }
    let states = |value: &Value| -> Vec<bool> {
        value["apps"].as_array().expect("apps").iter().map(|app| app["paused"] == true).collect()
    };
    let status = podctl.json(&["status", "web", "--format=json"]);
    assert_eq!((states(&status), &status["paused"]), (vec![true, false], &Value::Null), "{status}");
    let tree = podctl.json(&["tree", "web", "--format=json"]);
    assert_eq!((states(&tree[0]), &tree[0]["paused"]), (vec![true, false], &json!(false)), "{tree}");
    let line = podctl.fails(&["exec", "web", "one", "--", "/probe", "help"]);
    assert!(line.contains("app one is paused") && line.contains("podctl unpause"), "{line}");
    podctl.ok(&["exec", "web", "two", "--", "/probe", "help"]);
    podctl.ok(&["unpause", "web", "one"]);
    podctl.ok(&["unpause", "web", "one"]);
    goes_on(&pod, "one");
    // a paused app can be stopped, and handles its signal
    podctl.ok(&["pause", "web", "one"]);
    podctl.ok(&["app", "stop", "web", "one"]);
    assert_eq!(pod.status("one")["exit_signal"], "SIGTERM");
    assert!(podctl.fails(&["pause", "web", "one"]).contains("does not run"));
    assert!(podctl.fails(&["pause", "web", "none"]).contains("no app none"));

    // the pod
    podctl.ok(&["pause", "web"]);
    holds_still(&pod, "two");
    assert!(podctl.ok(&["list"]).contains("paused") && podctl.ok(&["status", "web"]).contains("state=paused"));
    let text = podctl.ok(&["tree", "web"]);
    assert!(text.starts_with("web  paused\n") && text.contains("two  paused"), "{text}");
    assert_eq!(podctl.json(&["app", "list", "web", "--format=json"])[1]["paused"], true);
    for words in
        [&["exec", "web", "two", "--", "/probe"][..], &["app", "start", "web", "one"], &["enter", "web", "--", "x"]]
    {
        let line = podctl.fails(words);
        assert!(line.contains("is paused") && line.contains("podctl unpause"), "{line}");
    }
    podctl.ok(&["unpause", "web"]);
    goes_on(&pod, "two");
    podctl.ok(&["app", "start", "web", "one"]);
    goes_on(&pod, "one");

    // a paused pod stops in order and at once, also with apps that were paused by themselves
    podctl.ok(&["pause", "web", "one"]);
    podctl.ok(&["pause", "web"]);
    podctl.ok(&["stop", "web"]);
    assert_eq!(pod.status("two")["exit_code"], 0);
    assert!(podctl.fails(&["pause", "web"]).contains("exited"));
    podctl.ok(&["rm", "web"]);
    let pod = podctl.pod(&[]);
    podctl.ok(&["pause", &pod.uuid]);
    podctl.ok(&["kill", &pod.uuid]);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn signals_reach_an_app(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--name=web"]);
    pod.add("told", &[], &["told", "/out/ready", "+", "exit", "5"]);
    podctl.ok(&["app", "start", "web", "told"]);
    let ready = podctl.out().join("ready");
    wait_for("the app to take signals", 20, || ready.exists().then_some(()));
    podctl.ok(&["kill", "web", "told", "--signal=TERM"]);
    assert_eq!(pod.exit_code("told"), 5);
    assert!(podctl.fails(&["kill", "web", "told"]).contains("does not run"));

    podctl.ok(&["app", "rm", "web", "told"]);
    // all processes that it has started end with it
    pod.add("one", &[], &["spawn", "sleep", "inf", "+", "sleep", "inf"]);
    podctl.ok(&["app", "start", "web"]);
    wait_for("both processes", 20, || {
        (podctl.json(&["top", "web", "one", "--format=json"]).as_array().map(Vec::len) == Some(2)).then_some(())
    });
    podctl.ok(&["kill", "web", "-s", "KILL"]);
    assert_eq!(pod.exit_code("one"), 137);
    wait_for("the other process to end", 20, || {
        (podctl.json(&["top", "web", "one", "--format=json"]) == json!([])).then_some(())
    });
    for bad in ["BANANA", "0", "-1", ""] {
        assert!(podctl.fails(&["kill", "web", "one", &format!("--signal={bad}")]).contains("--signal"), "{bad}");
    }
    assert!(podctl.fails(&["kill", "web", "none"]).contains("no app none"));
    podctl.ok(&["kill", "web"]);
    assert_eq!(podctl.json(&["status", "web", "--format=json"])["state"], "exited");
    podctl.ok(&["rm", "web"]);
    Ok(())
}

fn others_than_root_are_told_how(t: &Context) -> Verdict {
    use std::os::unix::process::CommandExt;
    assert!(Uid::effective().is_root());
    let binary = t.dir.join("podctl");
    fs::copy(tests::dist().join("podctl"), &binary)?;
    let as_somebody = |words: &[&str]| {
        let mut command = std::process::Command::new(&binary);
        tests::process::run(command.args(words).uid(65534).gid(65534))
    };
    let out = as_somebody(&["list", "-q"]);
    assert_eq!((out.code, out.stderr.as_str()), (Some(254), "podctl needs root: try sudo podctl list -q\n"), "{out}");
    as_somebody(&["--help"]).ok();
    as_somebody(&["completion", "bash"]).ok();
    assert_eq!(as_somebody(&["lst"]).code, Some(2));
    Ok(())
}

fn the_machine_is_examined(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let told = podctl.json(&["doctor", "--format=json"]);
    let findings = told["findings"].as_array().ok_or("no findings")?;
    let state = |part: &str| &findings.iter().find(|one| one["part"] == part).unwrap_or(&Value::Null)["verdict"];
    for part in ["kernel", "cgroups", "overlayfs", "seccomp", "programs"] {
        assert_eq!(state(part), "ok", "{part}: {told}");
    }
    // no pod runs from a file system mounted noexec
    let dir = t.dir.join("noexec");
    fs::create_dir(&dir)?;
    let script = "mount -t tmpfs -o noexec none \"$1\" && exec \"$0\" --dir=\"$1\" doctor";
    let binary = tests::dist().join("podctl");
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script]).args([&binary, &dir]);
    let out = tests::process::run(&mut command);
    assert_eq!(out.code, Some(1), "{out}");
    assert_eq!(out.stderr, "podctl: no pod can run on this machine: see programs\n", "{out}");
    assert!(out.stdout.contains("\nprograms         fatal  ") && out.stdout.contains("is mounted noexec"), "{out}");

    let told = podctl.json(&["info", "--format=json"]);
    assert_eq!((&told["directory"], &told["pods"]), (&json!(podctl.data), &json!({})), "{told}");
    let pod = podctl.pod(&["--net=none"]);
    let told = podctl.json(&["info", "--format=json"]);
    assert_eq!((&told["pods"], &told["images"]), (&json!({"running": 1}), &json!(2)), "{told}");
    assert!(podctl.ok(&["info"]).contains("pods:                  1 running\n"));
    pod.end();
    Ok(())
}
