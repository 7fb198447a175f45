//! What an app declares about its life cycle: event handlers, stop signal and timeout, sockets, restarts.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::{Context, Layout};
use tests::podctl::{Pod, Podctl};
use tests::process::{Process, descendants, run, wait_for};

tests::cases! {
    both handlers_run_in_the_app_around_its_life;
    both a_failed_pre_start_keeps_the_app_from_starting;
    native a_failed_post_stop_changes_no_status;
    both an_app_says_when_it_is_ready;
    native an_app_that_never_is_ready_has_not_started;
    both sockets_are_opened_before_the_app_starts 90;
    native ports_in_use_are_a_failed_start;
    both the_stop_signal_is_the_declared_one;
    both a_stop_takes_as_long_as_it_is_told 90;
    both a_policy_starts_an_app_again 90;
    native a_restart_is_a_stop_and_a_start;
    native nonsense_is_refused_at_add;
}

fn status_file(pod: &Pod<'_>, name: &str) -> PathBuf {
    pod.dir().join("stage1/rootfs/rkt/status").join(name)
}

pub fn written(pod: &Pod<'_>, app: &str) -> Option<String> {
    fs::read_to_string(status_file(pod, app)).ok()
}

/// Imports the probe as an image of its own with this `app` section and these annotations.
#[track_caller]
fn import(podctl: &Podctl, name: &str, app: &Value, annotations: &[(&str, &str)]) {
    let mut manifest = tests::image::manifest(name, app);
    manifest["annotations"] = annotations.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    podctl.import_manifest(name, &manifest);
}

pub fn out(podctl: &Podctl, name: &str) -> Option<String> {
    fs::read_to_string(podctl.out().join(name)).ok()
}

#[track_caller]
pub fn wait_out(podctl: &Podctl, name: &str) -> String {
    wait_for(name, 15, || out(podctl, name))
}

/// The PID of the app's process, found by a word of its command line.
pub fn app_pid(pod: &Pod<'_>, word: &str) -> Option<i32> {
    let family = descendants(pod.pid());
    family.into_iter().find(|p| p.words.starts_with("/probe") && p.words.contains(word)).map(|p| p.pid)
}

fn handlers_run_in_the_app_around_its_life(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let app = json!({
        "user": "web", "group": "www",
        "eventHandlers": [
            {"name": "pre-start", "exec": ["probe", "append", "/out/order", "first", "+", "report", "/out/pre.json"]},
            {"name": "post-stop", "exec": ["/probe", "append", "/out/order", "last", "+", "report", "/out/post.json"]},
        ],
    });
    import(&podctl, "handled", &app, &[]);
    // For the handlers and the app, which run as different users, to write to.
    fs::write(podctl.out().join("order"), "")?;
    fs::set_permissions(podctl.out().join("order"), fs::Permissions::from_mode(0o666))?;
    let actions = ["append", "/out/order", "main", "+", "report", "/out/main.json", "+", "orderly", "3"];
    pod.try_add("handled", "handled", &["--caps-retain=CAP_KILL"], &actions).ok();
    pod.app("start", "handled", &[]).ok();
    wait_out(&podctl, "main.json");
    assert_eq!(out(&podctl, "order").unwrap_or_default(), "first\nmain\n");
    pod.app("stop", "handled", &[]).ok();
    // The stop waited for the handler; the status is the app's own.
    assert_eq!(out(&podctl, "order").unwrap_or_default(), "first\nmain\nlast\n");
    assert_eq!(pod.exit_code("handled"), 3);
    let main = pod.read("main");
    for handler in ["pre", "post"] {
        let seen = pod.read(handler);
        for key in ["seccomp", "no_new_privs", "cwd", "env", "cgroup", "mountinfo"] {
            assert!(main[key] != Value::Null, "the probe reports no {key}");
            assert_eq!(seen.get(key), main.get(key), "{key} of the {handler} handler is not the app's");
        }
        // As root whatever the app's user is, with no more privileges than the app may have.
        assert_eq!(seen["ids"], json!({"uid": [0, 0, 0, 0], "gid": [0, 0, 0, 0], "groups": []}), "{handler}");
        assert_eq!(main["ids"]["uid"], json!([1001, 1001, 1001, 1001]));
        for set in ["CapBnd", "CapPrm", "CapEff"] {
            assert_eq!(seen["capabilities"][set], main["capabilities"]["CapBnd"], "{set} of the {handler} handler");
        }
    }
    for seen in ["pre", "main", "post"].map(|name| pod.read(name)) {
        let numbers: Vec<&String> = seen["fds"].as_object().map(|fds| fds.keys().collect()).unwrap_or_default();
        assert_eq!(numbers, ["0", "1", "2"], "{}", seen["fds"]);
    }
    pod.end();
    Ok(())
}

fn a_failed_pre_start_keeps_the_app_from_starting(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for (name, exec, why) in [
        ("fails", json!(["/probe", "exit", "7"]), "exited with 7"),
        ("killed", json!(["/probe", "signal", "SIGKILL"]), "was killed by SIGKILL"),
        ("missing", json!(["/no/such"]), "/no/such"),
    ] {
        let handlers = json!([{"name": "pre-start", "exec": exec}]);
        import(&podctl, name, &json!({"eventHandlers": handlers}), &[]);
        pod.try_add(name, name, &[], &["write", "/out/ran", "x"]).ok();
        let complaint = pod.app("start", name, &[]).complaint();
        assert!(complaint.contains("pre-start") && complaint.contains(why), "{complaint}");
        let status = pod.status(name);
        assert_eq!((status["state"].as_str(), status["exit_code"].as_i64()), (Some("exited"), Some(254)), "{status}");
        let told = status["start_failure"].as_str().unwrap_or_default();
        assert!(told.contains("pre-start") && told.contains(why), "{status}");
        assert_eq!(out(&podctl, "ran"), None, "{name}");
    }
    pod.end();
    Ok(())
}

fn a_failed_post_stop_changes_no_status(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let handlers = json!([
        {"name": "post-stop", "exec": ["/probe", "append", "/out/after", "x", "+", "exit", "9"]},
    ]);
    import(&podctl, "after", &json!({"eventHandlers": handlers}), &[]);
    pod.try_add("after", "after", &[], &["exit", "4"]).ok();
    pod.app("start", "after", &[]).ok();
    assert_eq!(pod.exit_code("after"), 4);
    wait_out(&podctl, "after");
    assert_eq!(pod.status("after").get("start_failure"), None);
    // A handler that hangs is killed, and does not keep the status back.
    let handlers = json!([{"name": "post-stop", "exec": ["/probe", "stubborn"]}]);
    import(&podctl, "hangs", &json!({"eventHandlers": handlers}), &[]);
    pod.try_add("hangs", "hangs", &["--stop-timeout=1"], &["exit", "5"]).ok();
    pod.app("start", "hangs", &[]).ok();
    assert_eq!(pod.exit_code("hangs"), 5);
    pod.app("stop", "hangs", &[]).ok();
    pod.app("rm", "hangs", &[]).ok();
    pod.end();
    Ok(())
}

const NOTIFIES: (&str, &str) = ("appc.io/executor/supports-systemd-notify", "true");

fn an_app_says_when_it_is_ready(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    import(&podctl, "notifies", &json!({"user": "web", "group": "www"}), &[NOTIFIES]);
    let actions = ["write", "/out/up", "x", "+", "wait", "/out/go", "+", "notify", "READY=1", "+", "sleep", "inf"];
    pod.try_add("notifies", "notifies", &["--readonly-rootfs"], &actions).ok();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| pod.app("start", "notifies", &[]).ok());
        wait_out(&podctl, "up");
        // As long as the start of another app takes.
        pod.add("other", &[], &["sleep", "inf"]);
        pod.app("start", "other", &[]).ok();
        assert!(!starting.is_finished(), "the start did not wait for the app");
        fs::write(podctl.out().join("go"), "x").expect("write");
        starting.join().expect("the start");
    });
    assert_eq!(pod.state("notifies"), "running");
    // An app that does not declare readiness notification gets no NOTIFY_SOCKET.
    let seen = pod.report("plain", &[]);
    assert!(!seen.to_string().contains("NOTIFY_SOCKET"), "{seen}");
    pod.end();
    Ok(())
}

fn an_app_that_never_is_ready_has_not_started(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    import(&podctl, "mute", &json!({}), &[NOTIFIES]);
    pod.try_add("mute", "mute", &[], &["exit", "0"]).ok();
    let complaint = pod.app("start", "mute", &[]).complaint();
    assert!(complaint.contains("before it was ready"), "{complaint}");
    assert_eq!(pod.exit_code("mute"), 0);
    pod.end();
    Ok(())
}

/// A port without a listener.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").port()
}

fn ask(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text
}

fn sockets_are_opened_before_the_app_starts(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let port = free_port();
    let ports = json!([
        {"name": "front", "protocol": "tcp", "port": port, "socketActivated": true},
        {"name": "plain", "protocol": "tcp", "port": 1},
    ]);
    import(&podctl, "lazy", &json!({"ports": ports}), &[]);
    pod.try_add("lazy", "web", &[], &["serve", "3", "once", "+", "append", "/out/served", "x"]).ok();
    pod.app("start", "web", &[]).ok();
    assert_eq!((pod.state("web").as_str(), app_pid(&pod, "serve")), ("running", None), "it runs before a connection");
    let answer = ask(port);
    // Descriptors, names, and a PID that is the app's own.
    assert_eq!(answer, "LISTEN_FDS=1 LISTEN_FDNAMES=front mine=true\n");
    // After a successful exit its sockets still listen: that is a running app.
    wait_out(&podctl, "served");
    wait_for("its end", 10, || app_pid(&pod, "serve").is_none().then_some(()));
    assert_eq!((pod.state("web").as_str(), written(&pod, "web")), ("running", None));
    assert!(ask(port).contains("mine=true"));
    pod.app("rm", "web", &[]).ok();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is still open");

    pod.try_add("lazy", "stops", &[], &["serve", "3", "on"]).ok();
    pod.app("start", "stops", &[]).ok();
    ask(port);
    pod.app("stop", "stops", &[]).ok();
    assert_eq!(pod.exit_code("stops"), 143);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is open after the stop");
    // No connection, no run.
    pod.app("start", "stops", &[]).ok();
    pod.app("stop", "stops", &[]).ok();
    assert_eq!((pod.state("stops").as_str(), written(&pod, "stops")), ("created", None));
    pod.app("rm", "stops", &[]).ok();

    // A failure closes the sockets: the app has ended.
    pod.try_add("lazy", "fails", &[], &["exit", "6"]).ok();
    pod.app("start", "fails", &[]).ok();
    TcpStream::connect(("127.0.0.1", port))?;
    assert_eq!(pod.exit_code("fails"), 6);
    wait_for("the port to close", 10, || TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
    pod.app("rm", "fails", &[]).ok();
    pod.end();
    Ok(())
}

fn ports_in_use_are_a_failed_start(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let held = TcpListener::bind("0.0.0.0:0")?;
    let port = held.local_addr()?.port();
    let ports = json!([{"name": "front", "protocol": "tcp", "port": port, "socketActivated": true}]);
    import(&podctl, "late", &json!({"ports": ports}), &[]);
    pod.try_add("late", "late", &[], &["exit", "0"]).ok();
    let complaint = pod.app("start", "late", &[]).complaint();
    assert!(complaint.contains("in use"), "{complaint}");
    assert_eq!(pod.state("late"), "created");
    drop(held);
    pod.app("start", "late", &[]).ok();
    assert_eq!(pod.state("late"), "running");
    pod.end();
    Ok(())
}

fn the_stop_signal_is_the_declared_one(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    import(&podctl, "by-image", &json!({}), &[("podctl.io/stop-signal", "SIGUSR1")]);
    import(&podctl, "by-oci", &json!({}), &[("org.opencontainers.image.stopSignal", "SIGQUIT")]);
    for (image, options, code) in [
        ("probe", &["--stop-signal=SIGINT"][..], 130),
        ("probe", &["--stop-signal=RTMIN+3"], 128 + 37),
        ("probe", &["--stop-signal=9"], 137),
        ("probe", &[], 143),
        ("by-image", &[], 138),
        ("by-oci", &[], 131),
        ("by-image", &["--stop-signal=HUP"], 129),
    ] {
        pod.try_add(image, "one", options, &["sleep", "inf"]).ok();
        pod.app("start", "one", &[]).ok();
        pod.app("stop", "one", &[]).ok();
        assert_eq!(pod.exit_code("one"), code, "{image} {options:?}");
        pod.app("rm", "one", &[]).ok();
    }
    pod.end();
    Ok(())
}

fn a_stop_takes_as_long_as_it_is_told(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    // The declared timeout, and timeouts of the command: shorter, zero, and longer than declared.
    for (declared, given, least, most) in
        [("2", None, 2, 6), ("60", Some("1"), 1, 6), ("60", Some("0"), 0, 4), ("1", Some("4"), 4, 8), ("0", None, 0, 4)]
    {
        let timeout = format!("--stop-timeout={declared}");
        let actions = ["spawn", "stubborn", "+", "write", "/out/up", "x", "+", "stubborn"];
        pod.add("one", &[&timeout], &actions);
        pod.app("start", "one", &[]).ok();
        wait_out(&podctl, "up");
        let began = Instant::now();
        let more = given.map_or(vec![], |seconds| vec!["--timeout", seconds]);
        pod.app("stop", "one", &more).ok();
        let took = began.elapsed();
        let range = Duration::from_secs(least)..Duration::from_secs(most);
        assert!(range.contains(&took), "declared {declared}, told {given:?}: it took {took:?}");
        assert_eq!((pod.exit_code("one"), app_pid(&pod, "stubborn")), (137, None));
        assert_eq!(pod.status("one")["exit_signal"], "SIGKILL");
        pod.app("rm", "one", &[]).ok();
        fs::remove_file(podctl.out().join("up"))?;
    }
    // A longer timeout applies to that stop only, and an app that ends earlier is not waited for.
    pod.add("quick", &["--stop-timeout=1"], &["sleep", "inf"]);
    pod.app("start", "quick", &[]).ok();
    let began = Instant::now();
    pod.app("stop", "quick", &["--timeout", "50"]).ok();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let units = PathBuf::from(format!("/proc/{}/root/run/systemd/system", pod.pid()));
    let left: Vec<_> = fs::read_dir(&units)?.flatten().map(|entry| entry.file_name()).collect();
    assert!(!format!("{left:?}").contains("app-"), "{left:?}");
    pod.end();
    Ok(())
}

fn starts(podctl: &Podctl) -> usize {
    out(podctl, "starts").unwrap_or_default().lines().count()
}

fn a_policy_starts_an_app_again(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("again", &["--restart=on-failure"], &["append", "/out/starts", "x", "+", "exit-from", "/out/code"]);
    fs::write(podctl.out().join("code"), "3")?;
    pod.app("start", "again", &[]).ok();
    let mut seen = BTreeSet::new();
    wait_for("three starts", 20, || {
        seen.insert((pod.state("again"), written(&pod, "again")));
        (starts(&podctl) >= 3).then_some(())
    });
    assert_eq!(seen, BTreeSet::from([("running".to_owned(), None)]), "it counts as ended while it is started again");
    // A successful exit: the app is not restarted.
    fs::write(podctl.out().join("code"), "0")?;
    assert_eq!(pod.exit_code("again"), 0);
    let ended_after = starts(&podctl);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(starts(&podctl), ended_after);

    // Stopped between two runs, it has the status of its last end.
    fs::write(podctl.out().join("code"), "5")?;
    pod.app("start", "again", &[]).ok();
    wait_for("the next start", 10, || (starts(&podctl) > ended_after).then_some(()));
    wait_for("its end", 10, || app_pid(&pod, "/out/starts").is_none().then_some(()));
    assert_eq!(written(&pod, "again"), None);
    pod.app("stop", "again", &[]).ok();
    assert_eq!(pod.exit_code("again"), 5);
    pod.app("rm", "again", &[]).ok();

    // Stopped while it runs; killed without being stopped.
    pod.add("always", &["--restart=always"], &["append", "/out/always", "x", "+", "sleep", "inf"]);
    pod.app("start", "always", &[]).ok();
    let first = wait_for("its process", 10, || app_pid(&pod, "/out/always"));
    run(Command::new("kill").args(["-KILL", &first.to_string()])).ok();
    let second = wait_for("its next process", 10, || app_pid(&pod, "/out/always").filter(|pid| *pid != first));
    assert_eq!((pod.state("always").as_str(), written(&pod, "always")), ("running", None));
    pod.app("stop", "always", &[]).ok();
    assert_eq!(pod.exit_code("always"), 143);
    assert!(!Process::lives(second));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(app_pid(&pod, "/out/always"), None, "it was started again after a stop");
    pod.app("rm", "always", &[]).ok();

    // A command that can't be executed at the first start has failed, and is not tried again.
    pod.try_add("probe", "broken", &["--restart=always", "--exec=/no/such"], &[]).ok();
    pod.app("start", "broken", &[]).complaint();
    assert_eq!(pod.exit_code("broken"), 127);
    // The end of the pod ends such an app, too.
    pod.add("stays", &["--restart=always"], &["write", "/out/stays", "x", "+", "orderly", "8"]);
    pod.app("start", "stays", &[]).ok();
    wait_out(&podctl, "stays");
    podctl.ok(&["stop", &pod.uuid]);
    assert_eq!(pod.status("stays")["exit_code"], 8);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_restart_is_a_stop_and_a_start(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["append", "/out/starts", "x", "+", "sleep", "inf"]);
    for round in 1..=3 {
        pod.app("restart", "one", &[]).ok();
        wait_for("a start", 10, || (starts(&podctl) == round).then_some(()));
        assert_eq!((pod.state("one").as_str(), written(&pod, "one")), ("running", None));
    }
    podctl.fails(&["app", "restart", &pod.uuid, "none"]);
    pod.end();
    Ok(())
}

fn nonsense_is_refused_at_add(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for option in ["--stop-signal=SIGBANANA", "--restart=maybe", "--stop-timeout=-1"] {
        let complaint = pod.try_add("probe", "one", &[option], &["exit", "0"]).complaint();
        assert!(complaint.contains(option.split_once('=').map_or("", |(_, value)| value)), "{complaint}");
    }
    let port = |port: Value| json!({"ports": [port]});
    for (name, app, annotation) in [
        ("signal", json!({}), ("podctl.io/stop-signal", "15\nKillMode=none")),
        ("restart", json!({}), ("podctl.io/restart", "sometimes")),
        ("timeout", json!({}), ("podctl.io/stop-timeout", "1\nExecStartPre=/bin/sh")),
        ("event", json!({"eventHandlers": [{"name": "pre-stop", "exec": ["/x"]}]}), ("a", "b")),
        ("sctp", port(json!({"name": "p", "protocol": "sctp", "port": 80, "socketActivated": true})), ("a", "b")),
        ("none", port(json!({"name": "p", "protocol": "tcp", "port": 0, "socketActivated": true})), ("a", "b")),
    ] {
        let mut manifest = tests::image::manifest(name, &app);
        manifest["annotations"] = json!([{"name": annotation.0, "value": annotation.1}]);
        let file = tests::image::aci(&t.dir, name, &manifest);
        let imported = podctl.run(&["image", "import", &file.display().to_string(), "--name", name]);
        // Refused by podctl or by the entrypoint, with one line.
        if imported.code == Some(0) {
            pod.try_add(name, name, &[], &["exit", "0"]).complaint();
        } else {
            imported.complaint();
        }
    }
    assert!(pod.manifest_apps().is_empty(), "{:?}", pod.manifest_apps());
    if t.layout == Layout::V1 || t.has_controllers() {
        pod.add("one", &["--stop-timeout=3"], &["exit", "0"]);
    }
    pod.end();
    Ok(())
}
