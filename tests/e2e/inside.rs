//! What an app can see and do, reported by the app.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::process::run;

tests::cases! {
    both a_plain_apps_surroundings;
    both users_and_groups;
    native users_of_every_kind;
    native working_directory_and_command;
    native environment;
    both default_confinement;
    native declared_confinement;
    native each_restriction_can_be_switched_off;
    native devices;
    native kernel_paths_are_hidden_or_read_only;
    native the_root_is_the_images;
    native no_network_but_the_loopback;
    native hostnames;
    native the_host_is_out_of_sight;
}

/// The default set of the contract, as a mask.
const DEFAULT_CAPABILITIES: u64 = {
    // AUDIT_WRITE CHOWN DAC_OVERRIDE FSETID FOWNER KILL MKNOD NET_RAW NET_BIND_SERVICE SETUID SETGID SETPCAP SETFCAP SYS_CHROOT
    let numbers = [29, 0, 1, 4, 3, 5, 27, 13, 10, 7, 6, 8, 31, 18];
    let (mut mask, mut n) = (0u64, 0);
    while n < numbers.len() {
        mask |= 1 << numbers[n];
        n += 1;
    }
    mask
};

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|v| v.as_str().unwrap_or_default().to_owned()).collect()
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
}

fn mask(report: &Value, set: &str) -> u64 {
    u64::from_str_radix(report["capabilities"][set].as_str().unwrap_or("?"), 16)
        .unwrap_or_else(|e| panic!("{set}: {e}"))
}

fn a_plain_apps_surroundings(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let report = pod.report("plain", &[]);
    assert_eq!(strings(&report["argv"]), ["/probe", "report", "/out/plain.json"]);
    assert_eq!(report["env"]["AC_APP_NAME"], "plain");
    let fds: BTreeMap<String, String> = serde_json::from_value(report["fds"].clone())?;
    assert_eq!(fds.keys().collect::<Vec<_>>(), ["0", "1", "2"], "descriptors leak into the app: {fds:?}");
    assert!(!fds["0"].contains("/dev/pts"), "{fds:?}");
    assert_eq!(report["umask"], "0022");
    assert_eq!(report["oom_score_adj"], "0");
    for cgroup in strings(&report["cgroup"]) {
        assert!(!cgroup.contains(&pod.uuid) && !cgroup.contains("pods"), "the host's cgroups show: {cgroup}");
    }
    // None of the app's mounts is the pod's or the host's.
    for mount in strings(&report["mountinfo"]) {
        let at = mount.split(' ').nth(4).unwrap_or_default();
        assert!(!at.starts_with("/opt/") && !at.starts_with("/rkt") && !at.starts_with("/run/stage1"), "{mount}");
        assert!(!mount.contains("shared:"), "a mount of the app propagates: {mount}");
    }
    pod.end();
    Ok(())
}

fn users_and_groups(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let table: &[(&str, &[&str], u64, u64)] = &[
        ("root", &[], 0, 0),
        ("by-number", &["--user=1234", "--group=4321"], 1234, 4321),
        ("by-name", &["--user=web", "--group=www"], 1001, 2001),
        ("by-file", &["--user=/data/owned", "--group=/data/owned"], 1234, 2345),
        ("group-root", &["--user=1001", "--group=0"], 1001, 0),
        ("user-root", &["--user=0", "--group=2001"], 0, 2001),
    ];
    for (app, options, uid, gid) in table {
        let report = pod.report(app, options);
        assert_eq!(numbers(&report["ids"]["uid"]), [*uid; 4], "{app}");
        assert_eq!(numbers(&report["ids"]["gid"]), [*gid; 4], "{app}");
        let others: Vec<u64> = numbers(&report["ids"]["groups"]).into_iter().filter(|g| g != gid).collect();
        assert!(others.is_empty(), "{app} is also in {others:?}");
    }
    podctl.import_with("grouped", &json!({"user": "web", "group": "0", "supplementaryGIDs": [3001, 4001]}));
    pod.try_add("grouped", "grouped", &[], &["report", "/out/grouped.json"]).ok();
    pod.app("start", "grouped", &[]).ok();
    let report = pod.read("grouped");
    let mut groups = numbers(&report["ids"]["groups"]);
    groups.retain(|g| *g != 0);
    groups.sort_unstable();
    assert_eq!(groups, [3001, 4001]);
    assert_eq!(numbers(&report["ids"]["gid"]), [0; 4]);
    pod.end();
    Ok(())
}

/// The forms of a user and a group, and the ids that they mean.
fn users_of_every_kind(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let docker = ("appc.io/docker/repository", "library/probe");
    for (name, user, group, converted) in [
        ("converted", "web", "web", true),
        ("plain", "web", "web", false),
        ("converted-other", "web", "webs", true),
        ("converted-number", "4242", "4242", true),
        ("owner", "/data/owned", "/data/owned", false),
        ("nobody", "nosuch", "0", false),
        ("missing-file", "/no/such/file", "0", false),
        ("outside", "/escape/hostname", "0", false),
    ] {
        let mut manifest =
            tests::image::manifest(name, &json!({"user": user, "group": group, "supplementaryGIDs": [7, 8]}));
        if converted {
            manifest["annotations"] = json!([{"name": docker.0, "value": docker.1}]);
        }
        podctl.import_manifest(name, &manifest);
    }
    let pod = podctl.pod(&[]);
    let run = |image: &str, options: &[&str]| {
        let app = format!("{image}-{}", options.len());
        pod.try_add(image, &app, options, &["report", &format!("/out/{app}.json")]).ok();
        pod.app("start", &app, &[]).ok();
        assert_eq!(pod.exit_code(&app), 0, "{image} {options:?}");
        let ids = pod.read(&app)["ids"].clone();
        (numbers(&ids["uid"]), numbers(&ids["gid"]), numbers(&ids["groups"]))
    };
    for (image, options, uid, gid, groups) in [
        // In a converted image a missing group with the user's name means the user's number.
        ("converted", &[][..], 1001, 1001, &[7, 8][..]),
        ("converted-number", &[], 4242, 4242, &[7, 8]),
        ("owner", &[], 1234, 2345, &[7, 8]),
        ("owner", &["--user=0", "--group=0"], 0, 0, &[7, 8]),
        ("owner", &["--group=extra"], 1234, 3001, &[7, 8]),
        ("probe", &["--supplementary-gid=5", "--supplementary-gid=2001", "--user=web"], 1001, 2001, &[5, 3001]),
    ] {
        let (uids, gids, mut others) = run(image, options);
        others.retain(|group| *group != gid);
        assert_eq!((uids, gids, others), (vec![uid; 4], vec![gid; 4], groups.to_vec()), "{image} {options:?}");
    }
    for (image, why) in [
        ("plain", "\"web\""),
        ("converted-other", "webs"),
        ("nobody", "nosuch"),
        ("missing-file", "/no/such/file"),
        ("outside", "/escape/hostname"),
    ] {
        let complaint = pod.try_add(image, image, &[], &["exit", "0"]).complaint();
        assert!(complaint.contains(why), "{image}: {complaint}");
    }
    pod.end();
    Ok(())
}

fn working_directory_and_command(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    assert_eq!(pod.report("default", &[])["cwd"], "/");
    assert_eq!(pod.report("given", &["--working-dir=/home"])["cwd"], "/home");
    // A link in the image does not lead out of it.
    let out = pod.try_add("probe", "linked", &["--working-dir=/escape"], &["report", "/out/linked.json"]);
    if out.code == Some(0) {
        pod.app("start", "linked", &[]).ok();
        assert_eq!(pod.read("linked")["cwd"], "/etc");
    } else {
        out.complaint();
    }
    // Found by the app's PATH, through a link, and relative to the working directory.
    for (nth, (command, options)) in [
        ("probe", &["--env=PATH=/bin"][..]),
        ("probe", &["--env=PATH=/nowhere:/bin"]),
        ("probe", &[]),
        ("./probe", &["--working-dir=/bin"]),
        ("bin/probe", &[]),
    ]
    .iter()
    .enumerate()
    {
        let (app, file) = (format!("found-{nth}"), format!("/out/found-{nth}"));
        let mut args = vec!["app", "add", &pod.uuid, "probe", "--name", &app, "--mount=volume=out,target=/out"];
        args.extend_from_slice(options);
        args.extend(["--exec", command, "--", "write", &file, "ran"]);
        podctl.ok(&args);
        pod.app("start", &app, &[]).ok();
        assert_eq!(pod.exit_code(&app), 0, "{command} {options:?}");
        assert_eq!(std::fs::read_to_string(podctl.out().join(&app))?, "ran");
    }
    pod.end();
    Ok(())
}

fn environment(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_with("env", &json!({"environment": [
        {"name": "FROM_IMAGE", "value": "image"}, {"name": "BOTH", "value": "image"}, {"name": "PERCENT", "value": "%n $HOME \"'\\"},
    ]}));
    let pod = podctl.pod(&[]);
    let options = ["--env=BOTH=given", "--env=EMPTY=", "--env=EQUALS=a=b=c", "--env=SPACES= a  b ", "--env=UMLAUT=ä"];
    pod.try_add("env", "env", &options, &["report", "/out/env.json"]).ok();
    pod.app("start", "env", &[]).ok();
    let env = &pod.read("env")["env"];
    let wanted = [
        ("FROM_IMAGE", "image"),
        ("BOTH", "given"),
        ("PERCENT", "%n $HOME \"'\\"),
        ("EMPTY", ""),
        ("EQUALS", "a=b=c"),
        ("SPACES", " a  b "),
        ("UMLAUT", "ä"),
        ("AC_APP_NAME", "env"),
    ];
    for (name, value) in wanted {
        assert_eq!(env[name], value, "{name} in {env}");
    }
    for foreign in [
        "INVOCATION_ID",
        "container",
        "container_uuid",
        "RKT_LOCK_FD",
        "NOTIFY_SOCKET",
        "CARGO",
        "JOURNAL_STREAM",
        "LISTEN_FDS",
    ] {
        assert!(env.get(foreign).is_none(), "{foreign} leaks into the app");
    }
    pod.end();
    Ok(())
}

fn default_confinement(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let root = pod.report("root", &[]);
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(mask(&root, set), DEFAULT_CAPABILITIES, "{set}: {:016x}", mask(&root, set));
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(mask(&root, set), 0, "{set}");
    }
    assert_eq!(root["seccomp"], "2");
    let user = pod.report("user", &["--user=1001", "--group=2001"]);
    assert_eq!(mask(&user, "CapBnd"), DEFAULT_CAPABILITIES);
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(mask(&user, set), 0, "{set}");
    }
    assert_eq!(user["seccomp"], "2");
    assert_eq!(user["no_new_privs"], "1", "not root, with a filter");

    pod.add("tries", &[], &["sleep", "inf"]);
    pod.app("start", "tries", &[]).ok();
    let table = [
        ("getpid", "ok"),
        ("unix-socket", "ok"),
        ("chown", "ok"),
        ("exec-missing", "ENOENT"),
        ("mknod", "ok"),
        ("raw-socket", "ok"),
        ("chroot", "ok"),
        ("setuid", "ok"),
        ("acct", "EPERM"),
        ("clock_settime", "EPERM"),
        ("delete_module", "EPERM"),
        ("mount", "EPERM"),
        ("pivot_root", "EPERM"),
        ("reboot", "EPERM"),
        ("remount", "EPERM"),
        ("sethostname", "EPERM"),
        ("setns", "EPERM"),
        ("umount", "EPERM"),
        ("unshare-mount", "EPERM"),
        ("unshare-user", "EPERM"),
    ];
    for (call, wanted) in table {
        assert_eq!(pod.enter("tries", &["/probe", "syscall", call]).ok(), wanted, "{call}, entered");
        let (app, file) = (format!("try-{}", call.replace('_', "-")), format!("/out/{call}"));
        pod.add(&app, &[], &["write", &file, "begun", "+", "syscall", call]);
        pod.app("rm", &app, &[]).ok();
    }
    pod.end();
    Ok(())
}

fn declared_confinement(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let isolator = |name: &str, value: Value| json!({"isolators": [{"name": name, "value": value}]});
    let caps = |kind: &str, set: &[&str]| isolator(&format!("os/linux/capabilities-{kind}-set"), json!({"set": set}));
    podctl.import_with("two", &caps("retain", &["CAP_NET_ADMIN", "CAP_CHOWN"]));
    podctl.import_with("fewer", &caps("remove", &["CAP_MKNOD", "CAP_NET_RAW"]));
    podctl.import_with("nnp", &isolator("os/linux/no-new-privileges", json!(true)));
    podctl.import_with("oom", &isolator("os/linux/oom-score-adj", json!(500)));
    let unfiltered = isolator("os/linux/seccomp-retain-set", json!({"set": ["@appc.io/all"]}));
    podctl.import_with("unfiltered", &unfiltered);
    let denied = json!({"set": ["sethostname", "chroot"], "errno": "EACCES"});
    podctl.import_with("denied", &isolator("os/linux/seccomp-remove-set", denied));
    let pod = podctl.pod(&["--pod-caps-retain=CAP_NET_ADMIN"]);
    for image in ["two", "fewer", "nnp", "oom", "unfiltered", "denied"] {
        pod.try_add(image, image, &[], &["report", &format!("/out/{image}.json"), "+", "sleep", "inf"]).ok();
        pod.app("start", image, &[]).ok();
    }
    let two = (1 << 12) | 1;
    assert_eq!(mask(&pod.read("two"), "CapBnd"), two);
    assert_eq!(mask(&pod.read("two"), "CapEff"), two);
    let fewer = DEFAULT_CAPABILITIES & !(1 << 27) & !(1 << 13);
    assert_eq!(mask(&pod.read("fewer"), "CapBnd"), fewer);
    assert_eq!(pod.read("nnp")["no_new_privs"], "1");
    assert_eq!(pod.read("oom")["oom_score_adj"], "500");
    assert_eq!(pod.read("unfiltered")["seccomp"], "0");
    assert_eq!(pod.read("denied")["seccomp"], "2");
    assert_eq!(pod.enter("denied", &["/probe", "syscall", "chroot"]).ok(), "EACCES");
    // An entered command has the app's confinement.
    for image in ["two", "fewer", "nnp", "unfiltered", "denied"] {
        let text = pod.enter(image, &["/probe", "report"]).ok();
        let entered: Value = serde_json::from_str(&text)?;
        let app = pod.read(image);
        for key in ["capabilities", "seccomp", "no_new_privs", "cgroup", "root", "limits"] {
            assert_eq!(entered[key], app[key], "{image}: {key}");
        }
    }
    pod.end();
    Ok(())
}

fn each_restriction_can_be_switched_off(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for (option, capabilities, seccomp, paths) in [
        (None, false, false, false),
        (Some("--disable-capabilities-restriction"), true, false, false),
        (Some("--disable-seccomp"), false, true, false),
        (Some("--disable-paths"), false, false, true),
    ] {
        let options: Vec<&str> = option.into_iter().collect();
        let option = option.unwrap_or("none");
        pod.add("one", &options, &["report", "/out/one.json", "+", "sleep", "inf"]);
        pod.app("start", "one", &[]).ok();
        let report = pod.read("one");
        assert_eq!(mask(&report, "CapBnd") & 1 << 21 != 0, capabilities, "{option}: CAP_SYS_ADMIN");
        assert_eq!(report["seccomp"] == "0", seccomp, "{option}");
        let shown = pod.enter("one", &["/probe", "ls", "/sys/module"]);
        assert_eq!(shown.code == Some(0) && !shown.stdout.trim().is_empty(), paths, "{option}: {shown}");
        let trigger = pod.enter("one", &["/probe", "open", "w", "/proc/sys/vm/panic_on_oom"]).ok();
        assert_eq!(trigger != "EROFS", paths, "{option}: {trigger}");
        let entered: Value = serde_json::from_str(&pod.enter("one", &["/probe", "report"]).ok())?;
        for key in ["capabilities", "seccomp"] {
            assert_eq!(entered[key], report[key], "{option}: {key}, entered");
        }
        pod.app("rm", "one", &[]).ok();
        std::fs::remove_file(podctl.out().join("one.json"))?;
    }
    pod.end();
    Ok(())
}

fn devices(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let listed = pod.enter("one", &["/probe", "ls", "/dev"]).ok();
    let listed: Vec<&str> = listed.lines().collect();
    for name in ["null", "zero", "full", "random", "urandom", "tty", "console", "net", "ptmx", "pts", "shm", "log"] {
        assert!(listed.contains(&name), "/dev/{name} is not there: {listed:?}");
    }
    for foreign in ["kmsg", "mem", "sda", "vda", "kvm", "fuse", "loop0", "port"] {
        assert!(!listed.contains(&foreign), "/dev/{foreign} is there");
    }
    for (name, device) in
        [("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")]
    {
        let path = format!("/dev/{name}");
        let stat: Value = serde_json::from_str(&pod.enter("one", &["/probe", "stat", &path]).ok())?;
        assert_eq!((stat["kind"].as_str(), stat["device"].as_str()), (Some("char"), Some(device)), "{name}: {stat}");
        assert_eq!(stat["mode"], "0666", "{name}");
        if name != "tty" {
            assert_eq!(pod.enter("one", &["/probe", "open", "r", &path]).ok(), "ok", "{name}");
        }
    }
    let stat: Value = serde_json::from_str(&pod.enter("one", &["/probe", "stat", "/dev/net/tun"]).ok())?;
    assert_eq!((stat["kind"].as_str(), stat["device"].as_str()), (Some("char"), Some("10:200")), "{stat}");
    assert_eq!(pod.enter("one", &["/probe", "write", "/dev/shm/x", "y", "+", "cat", "/dev/shm/x"]).ok(), "y");
    // Not even root can use them.
    pod.run_app("user", &["--user=1001", "--group=2001"], &["open", "w", "/dev/null", "+", "write", "/dev/shm/y", "z"]);
    pod.end();
    Ok(())
}

fn kernel_paths_are_hidden_or_read_only(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let is = |kind: &str, path: &str| {
        std::fs::metadata(path).is_ok_and(|m| if kind == "dir" { m.is_dir() } else { !m.is_dir() })
    };
    let hidden = "/proc/config.gz /proc/kallsyms /proc/sched_debug /proc/kcore /proc/kmem /proc/mem /sys/firmware /sys/fs /sys/hypervisor /sys/module /sys/power";
    for path in hidden.split(' ') {
        if is("dir", path) {
            let out = pod.enter("one", &["/probe", "ls", path]);
            assert!(out.code == Some(1) || out.stdout.trim().is_empty(), "{path} shows: {out}");
        } else if is("file", path) {
            let out = pod.enter("one", &["/probe", "cat", path]);
            assert!(out.code == Some(1) || out.stdout.is_empty(), "{path} shows {} bytes", out.stdout.len());
        }
    }
    let read_only =
        "/proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/panic_on_oom /proc/sysrq-trigger";
    for path in read_only.split(' ').filter(|p| is("file", p)) {
        assert_eq!(pod.enter("one", &["/probe", "open", "w", path]).ok(), "EROFS", "{path}");
    }
    let report: Value = serde_json::from_str(&pod.enter("one", &["/probe", "report"]).ok())?;
    let mounts = strings(&report["mountinfo"]);
    let read_only_at = |path: &str| {
        mounts
            .iter()
            .rev()
            .map(|m| m.split(' ').collect::<Vec<_>>())
            .filter(|m| path == m[4] || path.starts_with(&format!("{}/", m[4])) || m[4] == "/")
            .max_by_key(|m| m[4].len())
            .is_some_and(|m| m[5].split(',').any(|o| o == "ro"))
    };
    for path in
        "/proc/bus /sys/block /sys/bus /sys/class /sys/dev /sys/devices /sys/kernel".split(' ').filter(|p| is("dir", p))
    {
        assert!(read_only_at(path), "{path} is writable: {mounts:#?}");
    }
    assert_eq!(pod.enter("one", &["/probe", "open", "r", "/proc/self/status"]).ok(), "ok");
    pod.end();
    Ok(())
}

fn the_root_is_the_images(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["write", "/written", "by one", "+", "sleep", "inf"]);
    pod.add("two", &[], &["sleep", "inf"]);
    for app in ["one", "two"] {
        pod.app("start", app, &[]).ok();
    }
    tests::process::wait_for("one to write", 10, || {
        (pod.enter("one", &["/probe", "cat", "/written"]).stdout == "by one").then_some(())
    });
    assert_eq!(pod.enter("two", &["/probe", "stat", "/written"]).code, Some(1), "apps of one image share a root");
    for path in ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"] {
        assert_eq!(pod.enter("one", &["/probe", "open", "r", path]).ok(), "ok", "{path}");
    }
    let stat: Value = serde_json::from_str(&pod.enter("one", &["/probe", "stat", "/etc/mtab"]).ok())?;
    assert_eq!(stat["link"], "../proc/self/mounts");
    assert_eq!(pod.enter("one", &["/probe", "cat", "/data/kept"]).ok(), "from the image");
    // Links out of the root end inside it.
    let inside = pod.enter("one", &["/probe", "ls", "/up"]).ok();
    assert!(inside.lines().any(|n| n == "probe"), "{inside}");
    for app in ["one", "two"] {
        pod.app("stop", app, &[]).ok();
        pod.app("rm", app, &[]).ok();
    }
    pod.end();
    Ok(())
}

fn no_network_but_the_loopback(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let alone = podctl.pod(&["--net=none"]);
    alone.run_app("loop", &[], &["loopback"]);
    let report = alone.report("alone", &[]);
    let interfaces: Vec<String> = strings(&report["interfaces"])
        .into_iter()
        .filter(|i| !["tunl0", "sit0", "ip6tnl0", "gre0"].contains(&i.as_str()))
        .collect();
    assert_eq!(interfaces, ["lo"]);
    let host = std::fs::read_link("/proc/self/ns/net")?;
    assert_ne!(report["namespaces"]["net"], host.to_str().unwrap_or_default());
    alone.end();
    let shared = podctl.pod(&["--net=host"]);
    let report = shared.report("shared", &[]);
    assert_eq!(report["namespaces"]["net"], host.to_str().unwrap_or_default());
    shared.end();
    Ok(())
}

fn hostnames(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let before = run(&mut std::process::Command::new("hostname")).ok();
    let pod = podctl.pod(&[]);
    let report = pod.report("one", &[]);
    assert_eq!(report["hostname"], format!("rkt-{}", pod.uuid));
    pod.end();
    // As long as the kernel allows.
    let longest = "x".repeat(64);
    for name in ["box", &longest] {
        let pod = podctl.pod(&[&format!("--hostname={name}")]);
        assert_eq!(pod.report("one", &[])["hostname"], name);
        pod.end();
    }
    assert!(podctl.fails(&["sandbox", &format!("--hostname={longest}x")]).contains("is not a host name"));
    let pod = podctl.pod(&["--hostname=box"]);
    pod.run_app("two", &[], &["write", "/etc/x", "x", "+", "cat", "/etc/hostname", "+", "report", "/out/two.json"]);
    pod.end();
    assert_eq!(run(&mut std::process::Command::new("hostname")).ok(), before, "the host's name has changed");
    Ok(())
}

fn the_host_is_out_of_sight(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let report = pod.report("one", &[]);
    for namespace in ["pid", "mnt", "uts", "ipc", "cgroup"] {
        let host = std::fs::read_link(format!("/proc/self/ns/{namespace}"))?;
        assert_ne!(report["namespaces"][namespace], host.to_str().unwrap_or_default(), "{namespace}");
    }
    let text = report.to_string();
    assert!(!text.contains("RKT_LOCK_FD"), "{text}");
    pod.end();
    Ok(())
}
