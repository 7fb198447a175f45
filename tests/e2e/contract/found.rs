//! Section 9 of the contract: facts found by running the image under rkt, one test each.

#![allow(clippy::zombie_processes, reason = "the warden of a failed test reaps what it has left")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::{Context, Layout};
use tests::minihost::{Kind, MiniHost, MiniPod};
use tests::process::{
    Output, Process, cgroups_named_after, descendants, escaped, hierarchies_named_after, mountinfo, pod_cgroups, run,
    wait_for,
};

use super::{exited, no_volumes};

tests::cases! {
    both an_app_removed_behind_the_overlay_can_come_again 120;
    both an_app_that_has_just_ended_is_added_and_removed;
    both names_that_went_stale_can_be_used_again;
    both stop_of_a_pod_whose_pid_1_has_just_ended 120;
    both the_pods_cgroup_has_its_name_until_gc;
    both a_recorded_cgroup_path_of_one_component;
    both pid_1_as_an_app_sees_it 120;
    both devices_are_a_closed_list_unless_paths_are_disabled 120;
    both mount_targets_are_resolved_in_the_root 120;
    both no_sysfs_with_a_mount_at_or_below_sys 120;
    both a_host_volume_that_is_missing_is_1_from_run;
    both handlers_run_as_root;
    both root_is_0_without_an_entry;
    both unknown_users_that_are_paths;
    both commands_and_interpreters_that_are_missing 120;
    both apps_that_the_shutdown_ends_have_status_0 120;
    both hosts_and_host_name;
    both no_resolv_conf_of_ours_on_the_hosts_network;
    both the_image_is_found_by_its_name;
    both the_console_is_always_read_with_debug 120;
}

const COPIES: Kind = Kind { overlay: false, mutable: true, debug: false, shift: None };
const DECLARED: Kind = Kind { overlay: true, mutable: false, debug: false, shift: None };
const DECLARED_COPIES: Kind = Kind { overlay: false, ..DECLARED };

/// The parts of a pod with one declared app.
struct One<'a> {
    kind: Kind,
    flags: &'a [&'a str],
    volumes: Value,
    mounts: Value,
    more: Value,
}

impl Default for One<'_> {
    fn default() -> Self {
        Self { kind: DECLARED, flags: &["--net=none"], volumes: json!([]), mounts: json!([]), more: json!({}) }
    }
}

impl One<'_> {
    /// Adds a mount of this host directory at `target`.
    fn lent(source: &Path, target: &str) -> Self {
        let volumes = json!([{"name": "lent", "kind": "host", "source": source.display().to_string()}]);
        Self { volumes, mounts: json!([{"volume": "lent", "path": target}]), ..Self::default() }
    }

    #[track_caller]
    fn prepare<'h>(&self, host: &'h MiniHost, exec: &[&str]) -> MiniPod<'h> {
        let mut pod = host.prepare_as(self.kind, &self.volumes);
        pod.declare("one", exec, &self.mounts, &self.more);
        pod
    }

    /// The results of these commands in the running app.
    #[track_caller]
    fn each<const N: usize>(&self, host: &MiniHost, commands: [&[&str]; N]) -> [Output; N] {
        let pod = self.prepare(host, &["/probe", "sleep", "inf"]);
        let monitor = pod.start(self.flags);
        wait_for("the app", 20, || descendants(pod.pid()).iter().any(|p| p.words == "/probe sleep inf").then_some(()));
        let outcome = commands.map(|words| run(&mut pod.enter(Some("one"), &[&["/probe"], words].concat())));
        pod.stop(true, monitor);
        pod.collect(1);
        outcome
    }
}

fn retain(names: &[&str]) -> Value {
    json!({"isolators": [{"name": "os/linux/capabilities-retain-set", "value": {"set": names}}]})
}

fn an_app_removed_behind_the_overlay_can_come_again(t: &Context) -> Verdict {
    for (nth, kind) in [Kind::default(), Kind { debug: true, ..Kind::default() }, COPIES].into_iter().enumerate() {
        let host = t.minihost_in(&format!("mini{nth}"));
        let (mut pod, monitor) = host.boot_as(kind, &no_volumes(), &["--net=none"]);
        for code in [3, 4, 5] {
            pod.add("one", &["/probe", "exit", &code.to_string()], &json!([]));
            pod.start_app("one").ok();
            assert_eq!(exited(&pod, "one"), code);
            pod.cross("app/rm", &["--app=one"]).ok();
            for root in [pod.upper(), pod.dir().join("stage1/rootfs")] {
                for name in ["status/one", "status/one-created", "status/one-started", "env/one"] {
                    let path = root.join("rkt").join(name);
                    assert!(path.symlink_metadata().is_err(), "{} is left by app-rm", path.display());
                }
            }
            // Whatever else there is of the app, that manager deletes where the overlay does not see it.
            pod.rm_in_upper("one");
            assert_eq!(pod.state("one"), ("unknown", None));
        }
        // The same while the app runs until it is removed, with nothing between app-rm and the deletion.
        for _ in 0..3 {
            pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
            pod.start_app("one").ok();
            assert_eq!(pod.state("one"), ("running", None));
            pod.rm_in_upper("one");
        }
        pod.stop(false, monitor);
        pod.collect(1);
    }
    Ok(())
}

/// A manager removes files in the upper directory while the overlay has cached their names: the mount can then neither
/// remove nor replace them, and writes to them are seen nowhere else.
fn names_that_went_stale_can_be_used_again(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    let mount = pod.dir().join("stage1/rootfs/rkt");
    let make_stale = |pod: &MiniPod<'_>, names: &[&str]| {
        for name in names {
            let path = mount.join(name);
            fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            fs::remove_file(pod.upper().join("rkt").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            let error = fs::remove_file(&path).expect_err("it is not stale");
            assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ESTALE as i32), "{name}: {error}");
        }
    };
    pod.add("one", &["/probe", "exit", "3"], &json!([]));
    pod.start_app("one").ok();
    assert_eq!(exited(&pod, "one"), 3);
    // An app that has ended is started again.
    make_stale(&pod, &["status/one", "status/one-started"]);
    pod.cross("app/start", &["--app=one"]).ok();
    wait_for("the second end", 10, || pod.upper().join("rkt/status/one").exists().then_some(()));
    assert_eq!(pod.state("one"), ("exited", Some(3)));
    // An app is added again under the same name.
    make_stale(&pod, &["status/one", "env/one"]);
    pod.cross("app/add", &["--app=one", &format!("--uuid={}", pod.uuid)]).ok();
    assert!(pod.upper().join("rkt/env/one").exists(), "app-add wrote where nobody sees it");
    pod.start_app("one").ok();
    assert_eq!(exited(&pod, "one"), 3);
    // An app is removed; its name can be used again.
    make_stale(&pod, &["status/one", "status/one-created", "env/one"]);
    pod.rm("one");
    pod.add("one", &["/probe", "exit", "4"], &json!([]));
    assert_eq!(pod.state("one"), ("created", None));
    pod.start_app("one").ok();
    assert_eq!(exited(&pod, "one"), 4);
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

/// The exit status of an app can be read while its post-stop handler runs. A host manager that has read it can add the
/// app again, or remove it.
fn an_app_that_has_just_ended_is_added_and_removed(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    let handlers = json!([{"name": "post-stop", "exec": ["/probe", "sleep", "1"]}]);
    pod.add_with("one", &["/probe", "exit", "3"], &json!([]), &json!({"eventHandlers": handlers})).ok();
    pod.start_app("one").ok();
    assert_eq!(exited(&pod, "one"), 3);
    let env = pod.dir().join("stage1/rootfs/rkt/env/one");
    fs::remove_file(&env)?;
    pod.cross("app/add", &["--app=one", &format!("--uuid={}", pod.uuid)]).ok();
    assert!(env.exists(), "app-add took the app for one that runs");
    pod.start_app("one").ok();
    assert_eq!(exited(&pod, "one"), 3);
    pod.cross("app/rm", &["--app=one"]).ok();
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

fn stop_of_a_pod_whose_pid_1_has_just_ended(t: &Context) -> Verdict {
    let host = t.minihost();
    for force in [false, true] {
        for _ in 0..3 {
            let (pod, mut monitor) = host.boot(&no_volumes(), &["--net=none"]);
            let pid = pod.pid();
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            let at_once = pod.ask_to_stop(force);
            assert_eq!(at_once.code, Some(0), "{at_once}");
            wait_for("the end of run", 20, || monitor.try_wait().expect("wait for run"));
            assert!(!Process::lives(pid));
            let later = pod.ask_to_stop(force);
            assert_eq!(later.code, Some(0), "{later}");
            pod.collect(1);
        }
    }
    Ok(())
}

/// The name of the pod's cgroup, without the path above it.
fn scope(uuid: &str) -> String {
    format!("machine-rkt\\x2d{}.scope", escaped(uuid))
}

fn the_pods_cgroup_has_its_name_until_gc(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
    pod.start_app("one").ok();
    let (uuid, name) = (pod.uuid.clone(), scope(&pod.uuid));
    let recorded = fs::read_to_string(pod.dir().join("subcgroup"))?;
    assert_eq!(recorded.trim_end().rsplit('/').next(), Some(name.as_str()), "{recorded:?}");
    assert!(!recorded.starts_with('/'), "{recorded:?}");
    let mounted = mountinfo("self").iter().filter(|m| m.iter().any(|f| f == "cgroup" || f == "cgroup2")).count();
    let hierarchies = if t.layout == Layout::V1 { mounted } else { 1 };
    assert_eq!(pod_cgroups(&uuid).len(), hierarchies);
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", pod.pid()))?;
    // In the layout with only cgroup v2, the machine's other hierarchies are not the pod's.
    for line in cgroups.lines().filter(|line| t.layout == Layout::V1 || line.starts_with("0::")) {
        assert!(line.contains(&format!(":/{}", recorded.trim_end())), "{line}");
    }
    pod.stop(false, monitor);
    assert_eq!(hierarchies_named_after(&uuid).len(), hierarchies, "until gc");
    pod.collect(2);
    assert_eq!(cgroups_named_after(&uuid), Vec::<PathBuf>::new());
    // The same if podctl's rm removes the pod.
    let (pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    let uuid = pod.uuid.clone();
    pod.stop(true, monitor);
    assert_eq!(hierarchies_named_after(&uuid).len(), hierarchies, "until rm");
    let podctl = tests::podctl::Podctl::new(&tests::dist().join("podctl"), &t.dir.join("mini"), &t.dir);
    podctl.ok(&["rm", &uuid]);
    assert_eq!(cgroups_named_after(&uuid), Vec::<PathBuf>::new());
    Ok(())
}

/// Host managers write the path in `subcgroup` with or without a leading `/`, with or without a line end. A path of one
/// component may name the pod's own cgroup, or one in which other processes run: the entrypoints leave that one alone,
/// and find the pod's own cgroups by its name.
fn a_recorded_cgroup_path_of_one_component(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    let file = pod.dir().join("subcgroup");
    let recorded = fs::read_to_string(&file)?.trim_end().to_owned();
    for text in [format!("{recorded}\n"), recorded.clone(), format!("/{recorded}\n"), format!("/{recorded}")] {
        fs::write(&file, text)?;
        pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
        pod.start_app("one").ok();
        assert_eq!(run(&mut pod.enter(Some("one"), &["/probe", "print", "x"])).ok(), "x");
        pod.rm("one");
    }
    let uuid = pod.uuid.clone();
    let pids: Vec<i32> = descendants(pod.pid()).iter().map(|p| p.pid).chain([pod.pid()]).collect();
    pod.stop(true, monitor);
    assert!(!pids.iter().any(|p| Process::lives(*p)), "something of the pod lives on");
    pod.collect(1);
    assert_eq!(cgroups_named_after(&uuid), Vec::<PathBuf>::new());
    // The recorded path is a cgroup in which a process runs that is not the pod's.
    let (pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    let (uuid, others) = (pod.uuid.clone(), format!("machine-of-others-{}", std::process::id()));
    let shared = pod_cgroups(&uuid)[0].with_file_name(&others);
    fs::create_dir(&shared)?;
    let mut sleeper = std::process::Command::new("sleep").arg("inf").spawn()?;
    fs::write(shared.join("cgroup.procs"), sleeper.id().to_string())?;
    fs::write(pod.dir().join("subcgroup"), format!("{others}\n"))?;
    pod.stop(true, monitor);
    pod.collect(2);
    assert!(shared.is_dir() && sleeper.try_wait()?.is_none(), "a cgroup that is not the pod's was changed");
    assert_eq!(cgroups_named_after(&uuid), Vec::<PathBuf>::new());
    sleeper.kill()?;
    sleeper.wait()?;
    wait_for("the cgroup to be empty", 10, || fs::remove_dir(&shared).ok());
    Ok(())
}

/// Whether a bounding set, in the text of a /proc/PID/status, has CAP_NET_ADMIN.
#[track_caller]
fn has_net_admin(status: &str) -> bool {
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect(status);
    u64::from_str_radix(set.trim(), 16).unwrap_or_else(|e| panic!("{set}: {e}")) & (1 << 12) != 0
}

fn pid_1_as_an_app_sees_it(t: &Context) -> Verdict {
    let host = t.minihost();
    let net_admin = |kind: Kind, names: &[&str]| {
        let one = One { kind, more: retain(names), ..One::default() };
        let [out] = one.each(&host, [&["cat", "/proc/1/status"]]);
        has_net_admin(&out.ok())
    };
    for kind in [DECLARED, DECLARED_COPIES, Kind { debug: true, ..DECLARED }] {
        assert!(!net_admin(kind, &["CAP_SYS_PTRACE"]), "{kind:?}");
    }
    assert!(net_admin(DECLARED, &["CAP_SYS_PTRACE", "CAP_NET_ADMIN"]), "an app retains it");
    // Later apps don't have it either: asking for it is refused with a hint.
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    let asks = retain(&["CAP_SYS_PTRACE", "CAP_NET_ADMIN"]);
    let refused = pod.add_with("asks", &["/probe", "sleep", "inf"], &json!([]), &asks);
    assert!(refused.code == Some(254) && refused.stderr.contains("--pod-caps-retain=CAP_NET_ADMIN "), "{refused}");
    pod.rm("asks");
    pod.add_with("one", &["/probe", "sleep", "inf"], &json!([]), &retain(&["CAP_SYS_PTRACE"])).ok();
    pod.start_app("one").ok();
    let status = run(&mut pod.enter(Some("one"), &["/probe", "cat", "/proc/1/status"])).ok();
    assert!(!has_net_admin(&status), "{status}");
    pod.stop(true, monitor);
    pod.collect(1);
    let places = if t.layout == Layout::V1 { ["memory/x", "cpu/x"] } else { ["x", "system.slice/../x"] };
    let places = places.map(|place| format!("/proc/1/root/sys/fs/cgroup/{place}"));
    let one = One { more: retain(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]), ..One::default() };
    for out in one.each(&host, [&["mkdir", places[0].as_str()], &["mkdir", &places[1]]]) {
        assert!(out.stderr.contains("Read-only file system") && out.code != Some(0), "{out}");
    }
    Ok(())
}

fn devices_are_a_closed_list_unless_paths_are_disabled(t: &Context) -> Verdict {
    let host = t.minihost();
    for (kind, flags, outcome) in [
        (DECLARED, &["--net=none"][..], "EPERM"),
        (DECLARED_COPIES, &["--net=none"], "EPERM"),
        (DECLARED, &["--net=none", "--disable-paths"], "ok"),
    ] {
        let [out] = One { kind, flags, ..One::default() }.each(&host, [&["mknod", "c5:2", "/node"]]);
        assert_eq!(out.stdout.trim(), outcome, "{flags:?}: {out}");
    }
    // A later app has an option of its own.
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    let uuid = format!("--uuid={}", pod.uuid);
    for (app, option, outcome) in [("closed", "--disable-paths=false", "EPERM"), ("open", "--disable-paths", "ok")] {
        pod.stage(app, &["/probe", "sleep", "inf"], &json!([]), &json!({}));
        pod.cross("app/add", &[&format!("--app={app}"), &uuid, option]).ok();
        pod.start_app(app).ok();
        assert_eq!(run(&mut pod.enter(Some(app), &["/probe", "mknod", "c5:2", "/node"])).ok(), outcome, "{app}");
    }
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}

fn mount_targets_are_resolved_in_the_root(t: &Context) -> Verdict {
    let (host, source) = (t.minihost(), t.dir.join("source"));
    fs::create_dir(&source)?;
    fs::write(source.join("word"), "lent")?;
    for kind in [DECLARED, DECLARED_COPIES] {
        for (target, path) in [("dir1", "/dir1/word"), ("../../foo", "/foo/word"), ("/home/../bar", "/bar/word")] {
            let [out] = One { kind, ..One::lent(&source, target) }.each(&host, [&["cat", path]]);
            assert_eq!(out.ok(), "lent", "{target}");
        }
    }
    Ok(())
}

fn no_sysfs_with_a_mount_at_or_below_sys(t: &Context) -> Verdict {
    let (host, source) = (t.minihost(), t.dir.join("source"));
    fs::create_dir(&source)?;
    fs::write(source.join("word"), "lent")?;
    for (target, has_sysfs) in [("/sys", false), ("/sys/below", false), ("/home", true)] {
        let word = format!("{target}/word");
        let one = One::lent(&source, target);
        let [out, mounts] = one.each(&host, [&["cat", &word], &["cat", "/proc/self/mountinfo"]]);
        assert_eq!(out.ok(), "lent", "{target}");
        assert_eq!(mounts.stdout.contains(" - sysfs "), has_sysfs, "{target}: {mounts}");
    }
    Ok(())
}

fn a_host_volume_that_is_missing_is_1_from_run(t: &Context) -> Verdict {
    let (host, missing) = (t.minihost(), t.dir.join("not/there"));
    for kind in [DECLARED, DECLARED_COPIES] {
        let one = One { kind, ..One::lent(&missing, "/lent") };
        let pod = one.prepare(&host, &["/probe", "exit", "0"]);
        let out = pod.run_to_end(one.flags);
        pod.collect(1);
        assert_eq!(out.code, Some(1), "{out}");
        let words = format!("Failed to stat {}: No such file or directory", missing.display());
        assert!(out.stderr.contains(&words), "{out}");
    }
    Ok(())
}

fn handlers_run_as_root(t: &Context) -> Verdict {
    let host = t.minihost();
    let handlers = json!([
        {"name": "pre-start", "exec": ["/probe", "report", "/shared/pre"]},
        {"name": "post-stop", "exec": ["/probe", "report", "/shared/post"]},
    ]);
    let more = json!({"user": "web", "group": "www", "eventHandlers": handlers});
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    pod.add_with("one", &["/probe", "report", "/shared/main"], &json!([]), &more).ok();
    pod.start_app("one").ok();
    assert_eq!(exited(&pod, "one"), 0);
    let shared = pod.dir().join("stage1/rootfs/opt/stage2/one/rootfs/shared");
    for (name, uid) in [("pre", 0), ("main", 1001), ("post", 0)] {
        let text = wait_for(name, 10, || fs::read_to_string(shared.join(name)).ok());
        let report: Value = serde_json::from_str(&text)?;
        assert_eq!(report["ids"]["uid"], json!([uid, uid, uid, uid]), "{name}");
    }
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}

fn root_is_0_without_an_entry(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    for (app, emptied) in [("gone", false), ("empty", true)] {
        let exec = ["/probe", "report", "/shared/report"];
        pod.stage(app, &exec, &json!([]), &json!({"user": "root", "group": "root"}));
        let root = pod.dir().join("stage1/rootfs/opt/stage2").join(app).join("rootfs");
        for file in ["etc/passwd", "etc/group"] {
            if emptied { fs::write(root.join(file), "")? } else { fs::remove_file(root.join(file))? }
        }
        pod.cross("app/add", &[&format!("--app={app}"), &format!("--uuid={}", pod.uuid)]).ok();
        pod.start_app(app).ok();
        assert_eq!(exited(&pod, app), 0);
        let report: Value = serde_json::from_str(&fs::read_to_string(root.join("shared/report"))?)?;
        for id in ["uid", "gid"] {
            assert_eq!(report["ids"][id], json!([0, 0, 0, 0]), "{app}");
        }
    }
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}

fn unknown_users_that_are_paths(t: &Context) -> Verdict {
    let host = t.minihost();
    for more in [json!({"user": "/no/such/file"}), json!({"group": "/no/such/file"})] {
        let one = One { more, ..One::default() };
        let pod = one.prepare(&host, &["/probe", "exit", "0"]);
        let out = pod.run_to_end(one.flags);
        pod.collect(1);
        assert!(out.stderr.contains("no such file or directory") && out.code != Some(0), "{out}");
    }
    Ok(())
}

fn commands_and_interpreters_that_are_missing(t: &Context) -> Verdict {
    let host = t.minihost();
    let mut program = fs::read("/bin/true")?;
    let name = b"/lib64/ld-linux";
    let at = program.windows(name.len()).position(|window| window == name).ok_or("/bin/true is not dynamic")?;
    program[at + 1..at + 4].copy_from_slice(b"not");
    // The pod's output while it runs.
    let pod = host.prepare(&no_volumes());
    let (mut command, lock) = pod.run_command(&["--net=none"]);
    let shown = t.dir.join("shown");
    let (out, err) = (File::create(&shown)?, File::options().append(true).open(&shown)?);
    let monitor = command.stdout(out).stderr(err).spawn().expect("run");
    drop(lock);
    let mut pod = pod;
    pod.wait_ready();
    for (app, command, missing) in [
        ("file", "/no/such/file", "/no/such/file"),
        ("name", "no-such-command", "no-such-command"),
        ("dynamic", "/dynamic", "/not64/ld-linux-x86-64.so.2"),
    ] {
        pod.stage(app, &[command], &json!([]), &json!({}));
        let file = pod.dir().join("stage1/rootfs/opt/stage2").join(app).join("rootfs/dynamic");
        fs::write(&file, &program).expect("write");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("chmod");
        pod.cross("app/add", &[&format!("--app={app}"), &format!("--uuid={}", pod.uuid)]).ok();
        let started = pod.start_app(app);
        assert!(started.code != Some(0) || exited(&pod, app) != 0, "{started}");
        let words = format!("Error: Unable to open \"{missing}\": No such file or directory");
        wait_for(&words, 10, || fs::read_to_string(&shown).ok()?.contains(&words).then_some(()));
    }
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}

fn apps_that_the_shutdown_ends_have_status_0(t: &Context) -> Verdict {
    let host = t.minihost();
    for kind in [Kind::default(), COPIES, DECLARED] {
        let mut pod = host.prepare_as(kind, &no_volumes());
        if !kind.mutable {
            pod.declare("one", &["/probe", "sleep", "inf"], &json!([]), &json!({}));
        }
        let mut monitor = pod.start(&["--net=none"]);
        pod.wait_ready();
        if kind.mutable {
            pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
            pod.start_app("one").ok();
        }
        wait_for("the app", 10, || descendants(pod.pid()).iter().any(|p| p.words == "/probe sleep inf").then_some(()));
        // By the entrypoint, and by a signal to `run`.
        if kind.mutable {
            pod.stop(false, monitor);
        } else {
            kill(Pid::from_raw(monitor.id() as i32), Signal::SIGTERM).expect("kill run");
            wait_for("the end of run", 20, || monitor.try_wait().expect("wait for run"));
        }
        let status = fs::read_to_string(pod.upper().join("rkt/status/one")).unwrap_or_default();
        assert_eq!(status, "0\n", "{kind:?}");
        pod.collect(1);
    }
    Ok(())
}

fn hosts_and_host_name(t: &Context) -> Verdict {
    const NAME: &str = "custom_hostname_setting";
    let host = t.minihost();
    let flags = ["--net=none", "--hostname=custom_hostname_setting"];
    for kind in [DECLARED, DECLARED_COPIES] {
        let one = One { kind, flags: &flags, ..One::default() };
        let [hosts, kernel, file] =
            one.each(&host, [&["cat", "/etc/hosts"], &["cat", "/proc/sys/kernel/hostname"], &["cat", "/etc/hostname"]]);
        let fallback = format!("127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4 {NAME}");
        assert_eq!(hosts.stdout.lines().next(), Some(fallback.as_str()), "{hosts}");
        assert!(hosts.stdout.lines().any(|line| line.starts_with("::1 localhost")), "{hosts}");
        assert_eq!((kernel.ok(), file.ok()), (NAME.to_owned(), NAME.to_owned()));
    }
    // The pod's name is added once to the files that stage0 provides.
    let stage0 = [&flags[..], &["--dns-conf-mode=resolv=none,hosts=stage0"]].concat();
    let pod = One::default().prepare(&host, &["/probe", "sleep", "inf"]);
    let (mut command, lock) = pod.run_command(&stage0);
    let hosts = pod.dir().join("stage1/rootfs/etc/rkt-hosts");
    fs::write(&hosts, "1.2.3.4 four\n")?;
    let monitor = command.spawn().expect("run");
    drop(lock);
    wait_for("the app", 20, || descendants(pod.pid()).iter().any(|p| p.words == "/probe sleep inf").then_some(()));
    let given = fs::read_to_string(&hosts).expect("rkt-hosts");
    assert_eq!(given, format!("1.2.3.4 four\n127.0.0.1 {NAME}\n"));
    let seen = run(&mut pod.enter(Some("one"), &["/probe", "cat", "/etc/hosts"])).ok();
    assert!(seen.starts_with(given.trim_end()), "{seen}");
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}

fn no_resolv_conf_of_ours_on_the_hosts_network(t: &Context) -> Verdict {
    let host = t.minihost();
    for (flags, is_there) in [
        (&["--net=host"][..], false),
        (&["--net=host", "--dns-conf-mode=resolv=default,hosts=default"], false),
        // The host's file, if that is asked for.
        (&["--net=host", "--dns-conf-mode=resolv=host,hosts=default"], true),
    ] {
        let [out] = One { flags, ..One::default() }.each(&host, [&["ls", "/etc"]]);
        assert!(out.stdout.contains("passwd"), "{out}");
        assert_eq!(out.stdout.contains("resolv.conf"), is_there, "{flags:?}: {out}");
    }
    Ok(())
}

fn the_image_is_found_by_its_name(t: &Context) -> Verdict {
    assert_eq!(t.minihost().stage1_manifest()["name"], "coreos.com/rkt/stage1-crossing");
    Ok(())
}

/// With `--debug`, PID 1's log and the apps write to one console. `run` must read it all the time: otherwise they
/// block.
fn the_console_is_always_read_with_debug(t: &Context) -> Verdict {
    let host = t.minihost();
    let exec = ["/probe", "lines", "20000", "of the app", "+", "exit", "3"];
    let one = One { kind: Kind { debug: true, ..DECLARED }, ..One::default() };
    let pod = one.prepare(&host, &exec);
    let out = pod.run_to_end(one.flags);
    pod.collect(1);
    assert_eq!(out.code, Some(3), "{}", out.stderr);
    let all = format!("{}{}", out.stdout, out.stderr);
    assert!(all.lines().any(|line| line.contains("systemd[1]") || line.contains("systemd 2")), "no debug log");
    // It also works if the process that started the pod no longer reads.
    let debug = Kind { debug: true, ..Kind::default() };
    let pod = host.prepare_as(debug, &no_volumes());
    let (mut command, lock) = pod.run_command(&["--net=none"]);
    let (reader, writer) = std::io::pipe()?;
    let monitor = command.stdout(writer.try_clone()?).stderr(writer).spawn().expect("run");
    drop(lock);
    BufReader::new(reader).read_line(&mut String::new()).expect("the first line");
    let mut pod: MiniPod<'_> = pod;
    pod.wait_ready();
    pod.add("one", &exec, &json!([]));
    pod.start_app("one").ok();
    assert_eq!(exited(&pod, "one"), 3);
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}
