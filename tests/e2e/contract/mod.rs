//! The stage1 image under a host manager that knows only docs/contract.md.

pub mod entry;
pub mod found;
pub mod kinds;
pub mod networks;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::minihost::MiniPod;
use tests::process::{Process, descendants, mountinfo, run, wait_for};

tests::cases! {
    both an_app_from_add_to_rm;
    both volumes_reach_the_app;
    both runs_own_files;
    both the_lock_is_the_monitors_alone;
    both every_form_of_a_flag;
    both by_hand_without_any_variable;
    both operations_can_be_repeated;
    both a_recycled_pid_is_refused;
    both enter_by_the_contract;
    both ends_in_order_or_at_once;
    both insecure_options_do_what_they_say;
    both hostile_manifests;
    both two_pods_at_once;
    both podctl_can_take_over_a_pod;
    both run_without_its_lock_is_refused;
}

fn no_volumes() -> Value {
    json!([])
}

#[track_caller]
fn exited(pod: &MiniPod<'_>, app: &str) -> i32 {
    wait_for(&format!("the end of {app}"), 15, || match pod.state(app) {
        ("exited", code) => code,
        _ => None,
    })
}

fn an_app_from_add_to_rm(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    assert_eq!(pod.list(), Vec::<String>::new());
    assert_eq!(pod.state("one"), ("unknown", None));
    pod.add("one", &["/probe", "orderly", "7"], &json!([]));
    assert_eq!(pod.list(), ["one"]);
    assert_eq!(pod.state("one"), ("created", None));
    pod.start_app("one").ok();
    assert_eq!(pod.state("one"), ("running", None));
    let report = run(&mut pod.enter(Some("one"), &["/probe", "report"])).ok();
    let report: Value = serde_json::from_str(&report)?;
    assert_eq!(report["env"]["AC_APP_NAME"], "one");
    assert_eq!(report["seccomp"], "2");
    pod.cross("app/stop", &["--app=one", "--debug=false"]).ok();
    assert_eq!(pod.state("one"), ("exited", Some(7)));
    // The app is started again, then removed.
    pod.start_app("one").ok();
    assert_eq!(pod.state("one"), ("running", None));
    pod.rm("one");
    assert_eq!(pod.state("one"), ("unknown", None));
    assert!(!descendants(pod.pid()).iter().any(|p| p.words.contains("/probe")));
    let left = mountinfo(&pod.pid().to_string()).into_iter().filter(|m| m[4].contains("one")).count();
    assert_eq!(left, 0, "mounts of the removed app");
    // A unit that does not exist has its own exit code.
    assert_eq!(pod.cross("app/stop", &["--app=one"]).code, Some(5));
    assert_eq!(pod.cross("app/stop", &["--app=never-was"]).code, Some(5));
    pod.stop(false, monitor);
    pod.collect(2);
    Ok(())
}

fn volumes_reach_the_app(t: &Context) -> Verdict {
    let host = t.minihost();
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    let volumes = json!([
        {"name": "lent", "kind": "host", "source": source.display().to_string(), "readOnly": false},
        {"name": "own", "kind": "empty", "mode": "0755", "uid": 0, "gid": 0},
    ]);
    let (mut pod, monitor) = host.boot(&volumes, &["--net=none"]);
    let mounts = json!([{"volume": "lent", "path": "/lent"}, {"volume": "own", "path": "/own"}]);
    pod.add("writer", &["/probe", "write", "/lent/a", "by the app", "+", "write", "/own/b", "to the other"], &mounts);
    pod.add("reader", &["/probe", "wait", "/own/b", "+", "loopback"], &mounts);
    for app in ["reader", "writer"] {
        pod.start_app(app).ok();
        if app == "writer" {
            assert_eq!(exited(&pod, "writer"), 0);
            assert_eq!(exited(&pod, "reader"), 0);
        }
    }
    assert_eq!(fs::read_to_string(source.join("a"))?, "by the app");
    assert_eq!(fs::read_to_string(pod.dir().join("sharedVolumes/own/b"))?, "to the other");
    for app in ["reader", "writer"] {
        pod.rm(app);
    }
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

fn runs_own_files(t: &Context) -> Verdict {
    let host = t.minihost();
    let (pod, monitor) = host.boot(
        &no_volumes(),
        &["--net=none", "--hostname=box", "--ipc=private", "--dns-conf-mode=resolv=none,hosts=default"],
    );
    let config: Value = serde_json::from_str(&fs::read_to_string(pod.dir().join("runtime-config"))?)?;
    let wanted = [
        ("Hostname", json!("box")),
        ("Debug", json!(false)),
        ("Mutable", json!(true)),
        ("ResolvConfMode", json!("none")),
        ("EtcHostsMode", json!("default")),
        ("Interactive", json!(false)),
        ("IPCMode", json!("private")),
    ];
    for (key, value) in wanted {
        assert_eq!(config[key], value, "{key} in {config}");
    }
    for key in ["MetadataServiceURL", "PrivateUsers", "MDSToken", "NetList", "InsecureOptions"] {
        assert!(config.get(key).is_some(), "{key} is not in {config}");
    }
    for key in ["DisablePaths", "DisableCapabilities", "DisableSeccomp"] {
        assert_eq!(config["InsecureOptions"][key], false, "{key} in {config}");
    }
    let sub = fs::read_to_string(pod.dir().join("subcgroup"))?;
    let name = format!("machine-rkt\\x2d{}.scope", pod.uuid.replace('-', "\\x2d"));
    assert!(sub.trim() == name || sub.trim() == format!("machine.slice/{name}"), "{sub:?}");
    let pid = pod.pid();
    let process = Process::look_up(pid).expect("PID 1");
    assert!(process.words.contains("systemd"), "{process}");
    // Written through the root file system itself.
    assert_eq!(fs::read_link(pod.upper().join("rkt/supervisor-status"))?, Path::new("ready"));
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

fn the_lock_is_the_monitors_alone(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
    pod.start_app("one").ok();
    assert!(pod.is_locked());
    let pid = pod.pid();
    for p in descendants(pid).into_iter().map(|p| p.pid).chain([pid]) {
        for fd in fs::read_dir(format!("/proc/{p}/fd"))?.flatten() {
            let to = fs::read_link(fd.path()).unwrap_or_default();
            assert!(to != pod.dir(), "{} of the pod has the pod directory open as {}", p, fd.path().display());
        }
        let environment = fs::read(format!("/proc/{p}/environ")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&environment).contains("RKT_LOCK_FD"), "{p} has RKT_LOCK_FD");
    }
    pod.stop(false, monitor);
    assert!(!pod.is_locked());
    pod.collect(1);
    Ok(())
}

fn every_form_of_a_flag(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["-net=host", "-debug=f"]);
    let uuid = pod.uuid.clone();
    let forms: [(&[&str], &str); 6] = [
        (&["--app=one"], "--debug"),
        (&["--app", "one"], "--debug=true"),
        (&["-app=one"], "-debug=false"),
        (&["-app", "one"], "-debug"),
        (&["--app=one"], "--debug=1"),
        (&["--app=one"], "--debug=t"),
    ];
    let uuids: [&[&str]; 3] = [&[&format!("--uuid={uuid}")], &["--uuid", &uuid], &[&format!("-uuid={uuid}")]];
    for (nth, (app, debug)) in forms.into_iter().enumerate() {
        let words = [app, &[debug]].concat();
        pod.stage("one", &["/probe", "sleep", "inf"], &json!([]), &json!({}));
        pod.cross("app/add", &[&words, uuids[nth % 3]].concat()).ok();
        pod.cross("app/start", &words).ok();
        wait_for("the app", 5, || descendants(pod.pid()).iter().any(|p| p.words == "/probe sleep inf").then_some(()));
        pod.cross("app/stop", &words).ok();
        assert_eq!(exited(&pod, "one"), 143);
        pod.cross("app/rm", &words).ok();
        pod.rm("one");
    }
    // `help` as a value, and arguments after the dashes, unchanged.
    pod.add("help", &["/probe", "sleep", "inf"], &json!([]));
    let (pid, enter) = (pod.pid().to_string(), pod.dir().join(pod.entrypoint("enter")));
    for flags in [
        vec!["--pid", &pid, "--appname", "help"],
        vec!["-pid", &pid, "-appname", "help"],
        vec![&format!("-pid={pid}"), "-appname=help"],
    ] {
        let mut command = Command::new(&enter);
        command.args(flags).args(["--", "/probe", "print", "--pid=1"]).current_dir(pod.dir());
        assert_eq!(run(&mut command).ok(), "--pid=1");
    }
    pod.rm("help");
    let stop = pod.dir().join(pod.entrypoint("stop"));
    run(Command::new(&stop).args(["-force=false", &uuid]).current_dir(pod.dir())).ok();
    drop(monitor);
    wait_for("the pod to end", 20, || (!pod.is_locked()).then_some(()));
    pod.collect(1);
    Ok(())
}

fn by_hand_without_any_variable(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
    let by_hand = |verb: &str| {
        let mut command = Command::new(pod.dir().join(pod.entrypoint(verb)));
        run(command.arg("--app=one").env_clear().current_dir(pod.dir()))
    };
    by_hand("app/start").ok();
    wait_for("the app", 5, || descendants(pod.pid()).iter().any(|p| p.words.contains("/probe")).then_some(()));
    assert!(by_hand("app/rm").code.is_some_and(|c| c != 0), "a running app was removed");
    by_hand("app/stop").ok();
    assert_eq!(pod.state("one"), ("exited", Some(143)));
    by_hand("app/rm").ok();
    assert_eq!(by_hand("app/stop").code, Some(5));
    pod.rm("one");
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

fn operations_can_be_repeated(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    let uuid = format!("--uuid={}", pod.uuid);
    pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
    pod.cross("app/add", &["--app=one", &uuid]).ok();
    pod.start_app("one").ok();
    pod.cross("app/start", &["--app=one"]).ok();
    let running = |pod: &MiniPod<'_>| descendants(pod.pid()).iter().filter(|p| p.words == "/probe sleep inf").count();
    wait_for("one app", 5, || (running(&pod) == 1).then_some(()));
    let refused = pod.cross("app/rm", &["--app=one"]);
    assert!(refused.code.is_some_and(|c| c != 0), "a running app was removed: {refused}");
    assert_eq!(running(&pod), 1);
    pod.cross("app/stop", &["--app=one"]).ok();
    let again = pod.cross("app/stop", &["--app=one"]);
    assert!(matches!(again.code, Some(0 | 5)), "{again}");
    pod.cross("app/rm", &["--app=one"]).ok();
    pod.cross("app/rm", &["--app=one"]).ok();
    // The app is added again without the host having removed anything.
    pod.cross("app/add", &["--app=one", &uuid]).ok();
    pod.start_app("one").ok();
    wait_for("one app", 5, || (running(&pod) == 1).then_some(()));
    pod.rm("one");
    // A failed start can be repeated, and so can the add.
    pod.add("two", &["/no/such/file"], &json!([]));
    let failed = pod.start_app("two");
    assert!(failed.code != Some(0) || exited(&pod, "two") != 0, "{failed}");
    let failed = pod.start_app("two");
    assert!(failed.code != Some(0) || exited(&pod, "two") != 0, "{failed}");
    pod.rm("two");
    pod.stop(false, monitor);
    pod.collect(3);
    Ok(())
}

fn a_recycled_pid_is_refused(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
    let mut other = Command::new("sleep").arg("60").spawn()?;
    let uuid = format!("--uuid={}", pod.uuid);
    for pid in [
        other.id().to_string(),
        "1".into(),
        "999999999".into(),
        "0".into(),
        "-1".into(),
        "banana".into(),
        String::new(),
    ] {
        let verbs: [(&str, &[&str]); 4] = [
            ("app/add", &["--app=one", &uuid]),
            ("app/start", &["--app=one"]),
            ("app/stop", &["--app=one"]),
            ("app/rm", &["--app=one"]),
        ];
        for (verb, args) in verbs {
            let out = run(pod.crossing(verb, args).env("RKT_STAGE1_ENTERPID", &pid));
            assert!(out.code.is_some_and(|c| c != 0 && c != 5), "{verb} with PID {pid:?}: {out}");
        }
        let mut enter = Command::new(pod.dir().join(pod.entrypoint("enter")));
        enter
            .args([&format!("--pid={pid}"), "--appname=one", "--", "/probe", "print", "entered"])
            .current_dir(pod.dir());
        let out = run(&mut enter);
        assert!(out.code.is_some_and(|c| c != 0) && !out.stdout.contains("entered"), "PID {pid:?}: {out}");
    }
    other.kill()?;
    other.wait()?;
    pod.start_app("one").ok();
    pod.rm("one");
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

fn enter_by_the_contract(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    pod.stage(
        "one",
        &["/probe", "sleep", "inf"],
        &json!([]),
        &json!({"user": "1001", "group": "2001", "workingDirectory": "/home"}),
    );
    pod.cross("app/add", &["--app=one", &format!("--uuid={}", pod.uuid)]).ok();
    pod.start_app("one").ok();
    let report: Value = serde_json::from_str(&run(&mut pod.enter(Some("one"), &["/probe", "report"])).ok())?;
    assert_eq!(report["ids"]["uid"], json!([0, 0, 0, 0]), "as uid 0 unless told otherwise");
    assert_eq!(report["env"]["AC_APP_NAME"], "one");
    for (code, words) in [(9, ["/probe", "exit", "9"]), (0, ["/probe", "exit", "0"])] {
        assert_eq!(run(&mut pod.enter(Some("one"), &words)).code, Some(code));
    }
    let out = run(&mut pod.enter(Some("one"), &["/probe", "signal", "SIGUSR2"]));
    assert_eq!(out.signal, Some(12), "{out}");
    let out = run(&mut pod.enter(None, &["/opt/stage1/bin/reaper", "--help"]));
    assert_eq!(out.code, Some(0), "{out}");
    assert!(run(&mut pod.enter(Some("absent"), &["/probe"])).code.is_some_and(|c| c != 0));
    pod.rm("one");
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

fn ends_in_order_or_at_once(t: &Context) -> Verdict {
    let host = t.minihost();
    for force in [false, true] {
        let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
        pod.add("one", &["/probe", "orderly", "5"], &json!([]));
        pod.add("two", &["/probe", "spawn", "stubborn", "+", "sleep", "inf"], &json!([]));
        for app in ["one", "two"] {
            pod.start_app(app).ok();
        }
        let orderly =
            wait_for("the app", 10, || descendants(pod.pid()).into_iter().find(|p| p.words.contains("orderly")));
        Process::holds_sigterm(orderly.pid);
        let pids: Vec<i32> = descendants(pod.pid()).iter().map(|p| p.pid).chain([pod.pid()]).collect();
        pod.stop(force, monitor);
        assert!(!pids.iter().any(|p| Process::lives(*p)), "something of the pod lives on");
        if !force {
            assert_eq!(pod.state("one"), ("exited", Some(5)), "not stopped in order");
        }
        pod.collect(2);
    }
    Ok(())
}

fn insecure_options_do_what_they_say(t: &Context) -> Verdict {
    let host = t.minihost();
    let insecure = ["--disable-capabilities-restriction", "--disable-paths=true", "--disable-seccomp=1"];
    let (mut pod, monitor) = host.boot(&no_volumes(), &[&["--net=host"], insecure.as_slice()].concat());
    pod.stage("open", &["/probe", "sleep", "inf"], &json!([]), &json!({}));
    let uuid = format!("--uuid={}", pod.uuid);
    pod.cross("app/add", &[&["--app=open", uuid.as_str()], insecure.as_slice()].concat()).ok();
    pod.start_app("open").ok();
    let report: Value = serde_json::from_str(&run(&mut pod.enter(Some("open"), &["/probe", "report"])).ok())?;
    assert_eq!(report["seccomp"], "0");
    let bounding = u64::from_str_radix(report["capabilities"]["CapBnd"].as_str().unwrap_or("0"), 16)?;
    assert_ne!(bounding & (1 << 21), 0, "CAP_SYS_ADMIN is not there: {bounding:x}");
    let shown = run(&mut pod.enter(Some("open"), &["/probe", "ls", "/sys/module"])).ok();
    assert!(!shown.is_empty(), "/sys/module is hidden");
    pod.rm("open");
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}

/// Images and manifests are hostile input.
fn hostile_manifests(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    let uuid = format!("--uuid={}", pod.uuid);
    let add = |pod: &MiniPod<'_>, app: &str| pod.cross("app/add", &[&format!("--app={app}"), &uuid]);
    for name in ["../x", "a/b", "a\nb", "", ".", "A", "%n", "a.service"] {
        for verb in ["app/add", "app/start", "app/stop", "app/rm"] {
            let words = [format!("--app={name}"), uuid.clone()];
            let words = [words[0].as_str(), words[1].as_str()];
            let out = pod.cross(verb, if verb == "app/add" { &words } else { &words[..1] });
            assert!(out.code.is_some_and(|c| c != 0), "{verb} {name:?}: {out}");
        }
    }
    assert!(add(&pod, "unlisted").code.is_some_and(|c| c != 0), "an app that the manifest does not list");
    // Words that would be directives or specifiers in a unit.
    let nasty = "%n\nExecStartPost=/probe\n[Install]\\x41 ${HOME} $$ ; \"'";
    pod.stage(
        "nasty",
        &["/probe", "print", nasty, "+", "exit", "0"],
        &json!([]),
        &json!({"environment": [{"name": "NASTY", "value": "a b %n"}]}),
    );
    add(&pod, "nasty").ok();
    let units = pod.dir().join("stage1/rootfs/etc/systemd/system");
    let unit = fs::read_to_string(units.join("app-nasty.service"))?;
    for word in ["%n", "Install", "x41", "HOME", "NASTY", "/probe"] {
        assert!(!unit.contains(word), "the unit has the manifest's {word:?}: {unit}");
    }
    pod.start_app("nasty").ok();
    assert_eq!(exited(&pod, "nasty"), 0);
    pod.rm("nasty");
    let bad: [(&str, Value); 5] = [
        ("no-user", json!({"user": "nobody-knows"})),
        (
            "both-sets",
            json!({"isolators": [
            {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_CHOWN"]}},
            {"name": "os/linux/capabilities-remove-set", "value": {"set": ["CAP_KILL"]}}]}),
        ),
        ("bad-memory", json!({"isolators": [{"name": "resource/memory", "value": {"limit": "banana"}}]})),
        ("no-exec", json!({"exec": []})),
        ("relative-dir", json!({"workingDirectory": "../.."})),
    ];
    for (app, more) in bad {
        pod.stage(app, &["/probe", "exit", "0"], &json!([]), &more);
        let out = add(&pod, app);
        assert!(out.code.is_some_and(|c| c != 0), "{app}: {out}");
        assert!(!units.join(format!("app-{app}.service")).exists(), "{app} has a unit");
        assert!(!out.stderr.contains("panicked"), "{out}");
        pod.rm(app);
    }
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

/// Pods share no global state.
fn two_pods_at_once(t: &Context) -> Verdict {
    let host = t.minihost();
    let (first, one) = host.boot(&no_volumes(), &["--net=host"]);
    let (second, two) = host.boot(&no_volumes(), &["--net=none"]);
    first.stop(true, one);
    assert!(second.is_locked() && Process::lives(second.pid()));
    first.collect(1);
    assert!(second.is_locked() && Process::lives(second.pid()), "gc of one pod ended another");
    second.stop(false, two);
    second.collect(1);
    Ok(())
}

/// podctl can read and drive the pods of other managers.
fn podctl_can_take_over_a_pod(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    pod.add("one", &["/probe", "orderly", "7"], &json!([]));
    let podctl = tests::podctl::Podctl::new(&tests::dist().join("podctl"), &t.dir.join("mini"), &t.dir);
    let listed = podctl.json(&["list", "--format", "json"]);
    assert!(listed.to_string().contains(&pod.uuid), "{listed}");
    let theirs = tests::podctl::Pod { podctl: &podctl, uuid: pod.uuid.clone() };
    assert_eq!(theirs.state("one"), "created");
    theirs.app("start", "one", &[]).ok();
    assert_eq!(pod.state("one"), ("running", None));
    assert_eq!(theirs.enter("one", &["/probe", "print", "x"]).ok(), "x");
    descendants(pod.pid()).iter().filter(|p| p.words.contains("orderly")).for_each(|p| Process::holds_sigterm(p.pid));
    theirs.app("stop", "one", &[]).ok();
    assert_eq!(pod.state("one"), ("exited", Some(7)));
    assert_eq!(theirs.status("one")["exit_code"], 7);
    theirs.app("rm", "one", &[]).ok();
    assert_eq!(pod.list(), Vec::<String>::new());
    podctl.ok(&["stop", &pod.uuid]);
    drop(monitor);
    podctl.ok(&["rm", &pod.uuid]);
    assert!(!pod.dir().exists());
    Ok(())
}

fn run_without_its_lock_is_refused(t: &Context) -> Verdict {
    let host = t.minihost();
    let pod = host.prepare(&no_volumes());
    let dir = pod.in_phase("prepared");
    let entrypoint = tests::dist().join("entrypoints/run");
    let attempt = |fd: Option<&str>| {
        let mut command = Command::new(&entrypoint);
        command.args(["--mutable", &pod.uuid]).current_dir(&dir).env_remove("RKT_LOCK_FD");
        if let Some(fd) = fd {
            command.env("RKT_LOCK_FD", fd);
        }
        run(&mut command)
    };
    for fd in [None, Some(""), Some("banana"), Some("-1"), Some("99"), Some("0")] {
        let out = attempt(fd);
        assert!(out.code == Some(254), "RKT_LOCK_FD {fd:?}: {out}");
        assert_eq!(out.stderr.lines().count(), 1, "{out}");
    }
    assert!(!dir.join("pid").exists() && !dir.join("ppid").exists());
    Ok(())
}
