//! Further options of an app (shared memory, devices, secrets, process limits, variables from files, labels), and a
//! pod's kernel parameters.

use std::fs;

use serde_json::json;
use tests::Verdict;
use tests::harness::Context;

tests::cases! {
    native small_options_of_an_app;
    native kernel_parameters_are_the_pods_own;
}

fn small_options_of_an_app(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--name=shop", "--label=team=blue", "--annotation=note=mine"]);
    let file = |name: &str, text: &str| {
        let path = t.dir.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{name}: {e}"));
        path.display().to_string()
    };
    let (env, key) = (file("env", "# of a file\nA=1\nB=2\n"), file("key", "geheim"));
    let (env, key) = (format!("--env-file={env}"), format!("--secret=db={key}"));
    let options = [
        "--tmpfs=/scratch:size=1m,mode=0700",
        "--shm-size=2m",
        "--device=/dev/null:/dev/nothing:r",
        "--ulimit=nofile=123:456",
        "--ulimit=core=0",
        "--label=tier=web",
        "--annotation=why=so",
        "-e=B=3",
        "-e=PATH",
        &env,
        &key,
    ];
    pod.add("one", &options, &["report", "/out/one.json", "+", "sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let report = pod.read("one");
    assert_eq!((&report["env"]["A"], &report["env"]["B"]), (&json!("1"), &json!("3")), "{report}");
    assert_eq!(report["env"]["PATH"], std::env::var("PATH")?, "the caller's");
    let limits = pod.enter("one", &["/probe", "cat", "/proc/self/limits"]).ok();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["123", "456"], "{files}");
    assert_eq!(pod.enter("one", &["/probe", "cat", "/run/secrets/db"]).ok(), "geheim");
    assert_eq!(pod.enter("one", &["/probe", "open", "w", "/run/secrets/db"]).ok(), "EROFS");
    let found = podctl.json(&["inspect", "shop", "one"]);
    let mount = |at: &str| {
        let mounts = found["mounts"].as_array().expect("mounts");
        mounts.iter().find(|mount| mount["target"] == at).cloned().unwrap_or_default()
    };
    assert_eq!(mount("/scratch")["type"], "tmpfs");
    assert_eq!(mount("/dev/shm")["type"], "tmpfs");
    assert_ne!(mount("/dev/nothing"), serde_json::Value::Null);
    let statfs = pod.enter("one", &["/probe", "cat", "/proc/self/mountinfo"]).ok();
    let of = |at: &str| statfs.lines().rfind(|line| line.contains(&format!(" {at} "))).unwrap_or_default();
    assert!(of("/scratch").contains("size=1024k"), "{statfs}");
    assert!(of("/dev/shm").contains("size=2048k"), "{statfs}");
    assert_eq!(found["user_labels"], json!({"tier": "web"}), "{found}");
    assert_eq!(found["user_annotations"], json!({"why": "so"}));
    // another app has none of it
    pod.add("two", &[], &["sleep", "inf"]);
    pod.app("start", "two", &[]).ok();
    assert_eq!(pod.enter("two", &["/probe", "open", "r", "/run/secrets/db"]).ok(), "ENOENT");
    // a secret is removed with its app
    let secrets = || fs::read_dir(pod.dir().join("sharedVolumes")).map_or(0, Iterator::count);
    assert_eq!(secrets(), 1);
    pod.app("rm", "one", &[]).ok();
    assert_eq!(secrets(), 0);

    // lists
    let other = podctl.sandbox(&["--name=other"]);
    let list = |filter: &str| podctl.ok(&["list", "-q", "--filter", filter]);
    for filter in ["label=team", "label=team=blue", "name=sho", "app=two", &format!("id={}", &pod.uuid[..8])] {
        assert_eq!(list(filter), pod.uuid, "{filter}");
    }
    assert_eq!(list("state=running").lines().count(), 2);
    assert_eq!(list("label=team=red"), "");
    assert!(podctl.fails(&["list", "--filter=banana=1"]).contains("expected name, id, state, app or label"));
    for (option, why) in [
        ("--tmpfs=scratch", "absolute path"),
        ("--device=/etc/passwd", "is not a device"),
        ("--ulimit=banana=1", "unknown limit \"banana\""),
        ("--secret=db=/no/such", "/no/such"),
        ("--env-file=/no/such", "/no/such"),
        ("--label==x", "NAME[=VALUE]"),
    ] {
        let line = podctl.fails(&["app", "add", "other", "probe", option]);
        assert!(line.contains(why), "{option}: {line}");
    }
    other.end();
    pod.end();
    Ok(())
}

fn kernel_parameters_are_the_pods_own(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let host = fs::read_to_string("/proc/sys/kernel/shmmni")?;
    for users in [&[][..], &["--private-users"]] {
        let options = ["--net=none", "--sysctl=net.ipv4.ip_unprivileged_port_start=77", "--sysctl=kernel.shmmni=123"];
        let pod = podctl.pod(&[&options[..], users].concat());
        pod.add("one", &[], &["sleep", "inf"]);
        pod.app("start", "one", &[]).ok();
        let cat = |name: &str| pod.enter("one", &["/probe", "cat", &format!("/proc/sys/{name}")]).ok();
        assert_eq!(cat("net/ipv4/ip_unprivileged_port_start"), "77");
        assert_eq!(cat("kernel/shmmni"), "123");
        assert_eq!(fs::read_to_string("/proc/sys/kernel/shmmni")?, host);
        pod.end();
    }
    for (option, why) in [
        ("--sysctl=kernel.panic=1", "is the host's"),
        ("--sysctl=net.core.somaxconn=5", "host's network"),
        ("--sysctl=kernel.sem", "NAME=VALUE"),
    ] {
        let line = podctl.fails(&["sandbox", "--net=host", option]);
        assert!(line.contains(why), "{option}: {line}");
    }
    // a value that the kernel refuses leaves no pod
    let line = podctl.fails(&["sandbox", "--net=none", "--sysctl=kernel.shmmni=banana"]);
    assert!(line.contains("set the kernel parameter kernel.shmmni to \"banana\""), "{line}");
    assert_eq!(podctl.ok(&["list", "-q"]), "");
    Ok(())
}
