//! Pods with their own user namespace: owners of files and processes, inside and on the host.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Pod;
use tests::process::{descendants, mountinfo, run, wait_for};

tests::cases! {
    both root_of_the_pod_is_nobody_on_the_host;
    both limits_hold_for_shifted_ids;
    native volumes_have_the_owners_that_the_host_sees;
    native copies_have_shifted_ids;
    native file_capabilities_are_the_pods;
    native immutable_pods_with_ids_of_their_own;
    both another_host_manager_gives_ids;
}

/// The first host id of a pod, and the number of its ids.
#[track_caller]
fn ids(pod: &Pod<'_>) -> (u32, u32) {
    let path = pod.dir().join("private-users-prepared");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (shift, count) = text.split_once(':').unwrap_or_else(|| panic!("{text:?}"));
    (shift.parse().expect("shift"), count.parse().expect("count"))
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = path.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (stat.uid(), stat.gid())
}

/// Owner and group as an app sees them.
#[track_caller]
fn owner_inside(pod: &Pod<'_>, app: &str, path: &str) -> (u64, u64) {
    let stat: Value = serde_json::from_str(&pod.enter(app, &["/probe", "stat", path]).ok()).expect("stat");
    (stat["uid"].as_u64().expect("uid"), stat["gid"].as_u64().expect("gid"))
}

/// The host's real user id of a process.
fn uid(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

fn root_of_the_pod_is_nobody_on_the_host(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--private-users", "--net=none"]);
    let (shift, count) = ids(&pod);
    assert!(count == 65536 && shift >= 524_288 && shift.is_multiple_of(65536), "{shift}:{count}");
    let config: Value = serde_json::from_str(&fs::read_to_string(pod.dir().join("runtime-config"))?)?;
    assert_eq!(config["PrivateUsers"], format!("{shift}:{count}"));
    let words = ["write", "/own", "x", "+", "report", "/out/one.json", "+", "sleep", "inf"];
    pod.add("one", &[], &words);
    pod.app("start", "one", &[]).ok();
    let report = pod.read("one");
    assert_eq!(report["ids"]["uid"], json!([0, 0, 0, 0]));
    let map = pod.enter("one", &["/probe", "cat", "/proc/self/uid_map"]).ok();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0".into(), shift.to_string(), count.to_string()]);
    let entered: Value = serde_json::from_str(&pod.enter("one", &["/probe", "report"]).ok())?;
    for same in ["ids", "capabilities", "seccomp", "namespaces"] {
        assert_eq!(entered[same], report[same], "{same} of what enters");
    }
    // no process of the pod has an id of the host's users
    let family: Vec<i32> = descendants(pod.pid()).iter().map(|p| p.pid).chain([pod.pid()]).collect();
    assert!(family.len() >= 2);
    for pid in family {
        assert!(uid(pid).is_none_or(|uid| (shift..shift + count).contains(&uid)), "{pid} is {:?}", uid(pid));
    }

    // the image's owners inside, shifted ones outside, and the shared tree unchanged
    let root = pod.dir().join("stage1/rootfs/opt/stage2/one/rootfs");
    assert_eq!(owner(&root.join("own")), (shift, shift));
    assert_eq!(owner(&root.join("data/owned")), (shift + 1234, shift + 2345));
    assert_eq!(owner_inside(&pod, "one", "/data/owned"), (1234, 2345));
    assert_eq!(owner_inside(&pod, "one", "/"), (0, 0));
    pod.enter("one", &["/probe", "chown", "/data/owned", "5", "6"]).ok();
    assert_eq!(owner(&root.join("data/owned")), (shift + 5, shift + 6));
    let refused = pod.enter("one", &["/probe", "chown", "/own", "65536", "0"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("Invalid argument"), "{refused}");
    let tree = fs::read_to_string(pod.dir().join("appsinfo/one/treeStoreID"))?;
    assert_eq!(owner(&podctl.data.join("trees").join(tree).join("rootfs/data/owned")), (1234, 2345));
    let by_web = ["enter", &pod.uuid, "--app=one", "--user=web", "--", "/probe", "write", "/tmp/by-web", "x"];
    podctl.ok(&by_web);
    assert_eq!(owner(&root.join("tmp/by-web")), (shift + 1001, shift + 2001));

    // the pod's root, with all its capabilities, can't change files of the host
    let secret = t.dir.join("secret");
    fs::write(&secret, "of the host")?;
    let pid = pod.pid().to_string();
    let as_pods_root = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        // in the test's directory, which not every user can reach
        command.args(["--target", &pid, "--user", "--setuid", "0", "--setgid", "0"]).args(words).current_dir(&t.dir);
        run(&mut command)
    };
    as_pods_root(&["cat", "secret"]).ok();
    for script in ["echo x >\"$0\"", "chown 0:0 \"$0\"", "rm \"$0\"", "kill -0 \"$1\"", "mknod \"$0.d\" c 1 3"] {
        let me = std::process::id().to_string();
        let out = as_pods_root(&["/bin/sh", "-c", script, "secret", &me]);
        assert!(out.code != Some(0), "{script}: {out}");
    }
    assert_eq!(fs::read_to_string(&secret)?, "of the host");

    let beyond = ["app", "add", &pod.uuid, "probe", "--name=beyond", "--user=65536"];
    assert!(podctl.fails(&beyond).contains("user 65536 is beyond the 65536 ids"));
    let other = podctl.sandbox(&["--private-users=auto", "--net=none"]);
    assert_ne!(ids(&other).0, shift, "two pods have the same ids");
    other.end();
    pod.app("stop", "one", &[]).ok();
    assert_eq!(pod.status("one")["exit_signal"], "SIGTERM");
    pod.app("rm", "one", &[]).ok();
    assert!(!root.exists());
    pod.end();
    Ok(())
}

fn limits_hold_for_shifted_ids(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--private-users", "--net=host"]);
    pod.add("large", &["--memory=32Mi"], &["alloc", "100000000", "+", "exit", "0"]);
    pod.app("start", "large", &[]).ok();
    // without controllers no limit can be enforced in any pod
    assert_eq!(pod.exit_code("large"), if t.has_controllers() { 137 } else { 0 });
    for _ in 0..3 {
        pod.app("start", "large", &[]).ok();
        pod.exit_code("large");
    }
    pod.end();
    Ok(())
}

fn volumes_have_the_owners_that_the_host_sees(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let source = t.dir.join("source");
    let below = source.join("below");
    fs::create_dir_all(&below)?;
    mount(Some("none"), &below, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    for (path, id) in [(source.join("roots"), 0), (source.join("webs"), 1001), (below.join("webs"), 1001)] {
        fs::write(&path, "x")?;
        chown(&path, Some(id), Some(id))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    }
    let at = source.display();
    let pod = podctl.pod(&[
        "--private-users",
        "--net=none",
        &format!("--volume=rw,kind=host,source={at},recursive=true"),
        &format!("--volume=ro,kind=host,source={at},readOnly=true,recursive=true"),
        "--volume=empty,kind=empty,mode=0750,uid=1001,gid=2001",
        "--volume=sys,kind=host,source=/sys/class",
        "--volume=null,kind=host,source=/dev/null",
    ]);
    let (shift, _) = ids(&pod);
    let mounts = ["--mount=volume=rw,target=/rw", "--mount=volume=ro,target=/ro", "--mount=volume=empty,target=/empty"];
    let added = pod.try_add("probe", "one", &mounts, &["sleep", "inf"]);
    assert_eq!(added.stderr, "", "{added}");
    added.ok();
    pod.app("start", "one", &[]).ok();
    for (path, id) in [("/rw/roots", 0), ("/rw/webs", 1001), ("/rw/below/webs", 1001), ("/ro/below/webs", 1001)] {
        assert_eq!(owner_inside(&pod, "one", path), (id, id), "{path}");
        assert_eq!(pod.enter("one", &["/probe", "open", "r", path]).ok(), "ok", "{path}");
    }
    pod.enter("one", &["/probe", "write", "/rw/new", "x"]).ok();
    pod.enter("one", &["/probe", "chown", "/rw/new", "7", "8"]).ok();
    assert_eq!(owner(&source.join("new")), (7, 8));
    assert_eq!(pod.enter("one", &["/probe", "open", "w", "/ro/roots"]).ok(), "EROFS");
    assert_eq!(owner_inside(&pod, "one", "/empty"), (1001, 2001));
    assert_eq!(owner(&pod.dir().join("sharedVolumes/empty")), (shift + 1001, shift + 2001));
    let web = ["enter", &pod.uuid, "--app=one", "--user=web", "--", "/probe"];
    podctl.ok(&[&web[..], &["write", "/empty/by-web", "x"]].concat());
    assert_eq!(podctl.ok(&[&web[..], &["open", "r", "/rw/roots"]].concat()), "EACCES");

    // files whose owner can't be mapped are there nevertheless, with a warning
    let mounts = ["--mount=volume=sys,target=/class", "--mount=volume=null,target=/null"];
    let added = pod.try_add("probe", "two", &mounts, &["sleep", "inf"]);
    let warned = |what: &str| added.stderr.lines().any(|line| line.contains(what) && line.contains("host's owners"));
    assert!(warned("/sys/class") && warned("/dev/null"), "{added}");
    added.ok();
    pod.app("start", "two", &[]).ok();
    assert_eq!(owner_inside(&pod, "two", "/class"), (65534, 65534));
    assert_eq!(pod.enter("two", &["/probe", "open", "w", "/null"]).ok(), "ok");

    // a volume that starts as a copy of the image's directory
    let points = json!({"mountPoints": [{"name": "data", "path": "/data"}]});
    let mut converted = tests::image::manifest("converted", &points);
    converted["annotations"] = json!([{"name": "appc.io/docker/repository", "value": "library/probe"}]);
    podctl.import_manifest("converted", &converted);
    pod.try_add("converted", "three", &[], &["sleep", "inf"]).ok();
    pod.app("start", "three", &[]).ok();
    assert_eq!(owner_inside(&pod, "three", "/data/owned"), (1234, 2345));
    assert_eq!(owner_inside(&pod, "three", "/data"), (0, 0));
    let copy = fs::read_dir(pod.dir().join("sharedVolumes"))?.find_map(|entry| {
        let owned = entry.ok()?.path().join("owned");
        owned.exists().then_some(owned)
    });
    assert_eq!(copy.as_deref().map(owner), Some((shift + 1234, shift + 2345)));
    pod.end();
    umount2(&below, MntFlags::empty()).map_err(|e| format!("the host's own mount is busy: {e}"))?;
    Ok(())
}

fn copies_have_shifted_ids(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--private-users=1507328:65536", "--no-overlay", "--net=none"]);
    assert_eq!(ids(&pod), (1_507_328, 65536));
    pod.add("one", &[], &["write", "/own", "x", "+", "report", "/out/one.json", "+", "sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.read("one")["ids"]["uid"], json!([0, 0, 0, 0]));
    let root = pod.dir().join("stage1/rootfs/opt/stage2/one/rootfs");
    assert_eq!(owner(&root), (1_507_328, 1_507_328));
    assert_eq!(owner(&root.join("data/owned")), (1_507_328 + 1234, 1_507_328 + 2345));
    assert_eq!(owner(&root.join("own")), (1_507_328, 1_507_328));
    assert_eq!(owner_inside(&pod, "one", "/data/owned"), (1234, 2345));
    pod.enter("one", &["/probe", "chown", "/data/owned", "5", "6"]).ok();
    assert_eq!(owner(&root.join("data/owned")), (1_507_333, 1_507_334));
    let data = podctl.data.display().to_string();
    assert!(!mountinfo("self").iter().any(|m| m[4].starts_with(&data)), "a pod of copies has mounts");
    pod.app("rm", "one", &[]).ok();
    assert!(!root.exists());
    pod.end();
    Ok(())
}

/// A program with file capabilities, owned by the pod's root, in an overlay or a copy.
fn file_capabilities_are_the_pods(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let root = t.dir.join("capable-root");
    tests::image::rootfs(&root);
    fs::copy(root.join("probe"), root.join("capable"))?;
    // cap_net_raw, permitted and effective: capabilities(7)
    let set = "import os,sys; os.setxattr(sys.argv[1], 'security.capability', bytes([1,0,0,2,0,0x20]) + bytes(14))";
    run(Command::new("python3").args(["-c", set]).arg(root.join("capable"))).ok();
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "capable", "--exec", "/capable"]);
    for making in [&["--private-users"][..], &["--private-users", "--no-overlay"], &[]] {
        let pod = podctl.pod(&[making, &["--net=none"]].concat());
        podctl.ok(&[
            "app",
            "add",
            &pod.uuid,
            "capable",
            "--name=one",
            "--user=web",
            "--group=www",
            "--disable-seccomp",
            "--mount=volume=out,target=/out",
            "--exec=/capable",
            "--",
            "report",
            "/out/one.json",
        ]);
        pod.app("start", "one", &[]).ok();
        assert_eq!(pod.exit_code("one"), 0);
        assert_eq!(pod.read("one")["capabilities"]["CapEff"], "0000000000002000", "{making:?}");
        fs::remove_file(podctl.out().join("one.json"))?;
        pod.end();
    }
    Ok(())
}

fn immutable_pods_with_ids_of_their_own(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let words = ["--", "print", "said", "+", "cat", "/proc/self/uid_map", "+", "exit", "7"];
    let out =
        podctl.run(&[&["run", "--rm", "--net=none", "--private-users=2000000:1000", "probe"], &words[..]].concat());
    let map = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(out.code == Some(7) && out.stdout.contains("said"), "{out}");
    assert!(map(&out.stdout).contains("0 2000000 1000"), "{out}");
    let uuid = podctl.ok(&[&["prepare", "--private-users", "--no-overlay", "probe"], &words[..]].concat());
    let prepared = podctl.data.join("pods/prepared").join(&uuid);
    let range = fs::read_to_string(prepared.join("private-users-prepared"))?.replace(':', " ");
    assert!(prepared.join("stage1/rootfs/opt/stage2/probe/rootfs/probe").exists(), "the copying is part of preparing");
    let out = podctl.run(&["run-prepared", "--net=none", &uuid]);
    assert!(out.code == Some(7) && map(&out.stdout).contains(&range), "{out}");
    assert_eq!(podctl.json(&["status", &uuid, "--format=json"])["apps"][0]["exit_code"], 7);
    podctl.ok(&["rm", &uuid]);
    for bad in ["x", "1:0", "4294967295:2", "1"] {
        let out = podctl.run(&["run", &format!("--private-users={bad}"), "probe"]);
        assert!(out.code == Some(125) && out.stderr.lines().count() == 1, "{bad}: {out}");
    }
    Ok(())
}

fn another_host_manager_gives_ids(t: &Context) -> Verdict {
    let host = t.minihost();
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    let volumes = json!([{"name": "lent", "kind": "host", "source": source.display().to_string()}]);
    let mut pod = host.prepare(&volumes).with_ids(700_000);
    let monitor = pod.start(&["--net=none", "--private-users=700000:65536"]);
    pod.wait_ready();
    let words = ["/probe", "write", "/lent/a", "x", "+", "orderly", "7"];
    pod.add("one", &words, &json!([{"volume": "lent", "path": "/lent"}]));
    pod.start_app("one").ok();
    wait_for("the app's file", 10, || source.join("a").exists().then_some(()));
    assert_eq!(owner(&source.join("a")), (0, 0));
    let map = run(&mut pod.enter(Some("one"), &["/probe", "cat", "/proc/self/uid_map"])).ok();
    assert_eq!(map.split_whitespace().nth(1), Some("700000"));
    assert_eq!(uid(pod.pid()), Some(700_000));
    pod.cross("app/stop", &["--app=one"]).ok();
    assert_eq!(pod.state("one"), ("exited", Some(7)));
    pod.rm("one");
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}
