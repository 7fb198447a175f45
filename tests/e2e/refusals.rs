//! Impossible requests are refused in one line, and change nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::{Output, mountinfo, picture};

tests::cases! {
    native bad_words_change_nothing;
    native unknown_and_ambiguous_pods;
    native bad_images;
    native bad_volumes;
    native a_failed_add_leaves_no_app;
    native a_full_disk_leaves_no_app 90;
    native apps_that_cant_be_executed;
    native immutable_pods_take_no_apps;
}

/// The state of a pod that an add could have changed.
fn state(pod: &Pod<'_>) -> String {
    let dir = pod.dir();
    let mut parts: Vec<String> = ["pod", "appsinfo", "sharedVolumes"].iter().map(|p| picture(&dir.join(p))).collect();
    for p in ["opt/stage2", "rkt/env", "rkt/status", "etc/systemd", "opt/stage1"] {
        parts.push(names(&dir.join("stage1/rootfs").join(p)));
    }
    // Without stage1's own directory that the test opened for writing, which stays, empty.
    let stage1 = fs::read_to_string(dir.join("stage1TreeStoreID")).unwrap_or_default();
    for tree in fs::read_dir(dir.join("overlay")).into_iter().flatten().flatten() {
        if tree.file_name().to_str() != Some(stage1.trim()) {
            parts.push(names(&tree.path()));
        }
    }
    parts.push(podctl_list(pod));
    let mounted = |pid: &str| mountinfo(pid).iter().filter(|m| m[4].contains(&pod.uuid) || pid != "self").count();
    parts.push(format!("mounts {} {}", mounted("self"), mounted(&pod.pid().to_string())));
    parts.join("\n")
}

fn podctl_list(pod: &Pod<'_>) -> String {
    pod.podctl.ok(&["app", "list", &pod.uuid, "--format", "json"])
}

/// The names below a directory, down to a depth that leaves out the content of root file systems.
fn names(dir: &Path) -> String {
    fn walk(dir: &Path, depth: usize, into: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            into.push(path.display().to_string());
            if depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(&path, depth - 1, into);
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, 2, &mut found);
    found.sort();
    found.join("\n")
}

/// Checks that the command fails with one line and leaves the pod unchanged; returns the line.
#[track_caller]
fn refused(pod: &Pod<'_>, attempt: impl FnOnce() -> Output) -> String {
    let before = state(pod);
    let complaint = attempt().complaint();
    let after = state(pod);
    if before != after {
        let new: Vec<&str> = after.lines().filter(|l| !before.contains(*l)).collect();
        let gone: Vec<&str> = before.lines().filter(|l| !after.contains(*l)).collect();
        panic!("the pod has changed, although: {complaint}\nnew: {new:#?}\ngone: {gone:#?}");
    }
    complaint
}

fn bad_words_change_nothing(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("there", &[], &["sleep", "inf"]);
    pod.app("start", "there", &[]).ok();
    let long = "x".repeat(300);
    for name in
        ["../x", "a\nb", "", ".", "..", "a/b", "A", "a-", "a--b.c", "a b", "ä", "%n", "a.service", long.as_str()]
    {
        refused(&pod, || pod.try_add("probe", name, &[], &["exit", "0"]));
        for verb in ["start", "stop", "rm", "status"] {
            let before = state(&pod);
            let out = pod.app(verb, name, &[]);
            // An invalid app name may be unknown to stop and rm, but is never a success for the others.
            assert!(out.code.is_some_and(|c| c != 0), "{verb} {name:?}: {out}");
            out.complaint();
            assert_eq!(before, state(&pod));
        }
        pod.enter(name, &["/probe", "help"]).complaint();
    }
    for bad in [
        ["--memory", "banana"],
        ["--memory", "-1"],
        ["--memory", ""],
        ["--memory", "1e99Gi"],
        ["--cpu", "banana"],
        ["--cpu", "-1"],
        ["--user", "nobody-knows"],
        ["--group", "nobody-knows"],
        ["--user", "-1"],
        ["--user", "4294967296"],
        ["--user", "/no/such/file"],
        ["--env-file", "/no/such/file"],
        ["--env", "=x"],
        ["--env", "A\nC=d"],
        ["--mount", "banana"],
        ["--mount", "volume=nope,target=/x"],
        ["--mount", "volume=out,target="],
        ["--mount", "volume=out,target=/a/../.."],
        ["--working-dir", "relative"],
    ] {
        let complaint = refused(&pod, || pod.try_add("probe", "bad", &bad, &["exit", "0"]));
        assert!(!complaint.contains("panic"), "{complaint}");
    }
    let complaint = refused(&pod, || pod.try_add("probe", "bad", &["--memory", "banana"], &["exit", "0"]));
    assert!(complaint.contains("banana"), "{complaint}");
    let complaint = refused(&pod, || pod.try_add("probe", "there", &[], &["exit", "0"]));
    assert!(complaint.contains("there"), "a second app of the same name: {complaint}");
    let complaint = refused(&pod, || pod.try_add("no-such-image", "bad", &[], &["exit", "0"]));
    assert!(complaint.contains("no-such-image"), "{complaint}");
    for verb in ["start", "stop", "status"] {
        let complaint = refused(&pod, || pod.app(verb, "absent", &[]));
        assert!(complaint.contains("absent"), "{verb}: {complaint}");
    }
    assert_eq!(pod.state("there"), "running");
    pod.end();
    Ok(())
}

fn unknown_and_ambiguous_pods(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    // A second pod whose UUID differs in the last digit only.
    let digit = if pod.uuid.ends_with('0') { "1" } else { "0" };
    let twin = format!("{}{digit}", &pod.uuid[..35]);
    let twin_dir = podctl.data.join("pods/run").join(&twin);
    fs::create_dir(&twin_dir)?;
    fs::copy(pod.dir().join("pod"), twin_dir.join("pod"))?;
    let ambiguous = &pod.uuid[..8];
    for uuid in [ambiguous, "", "ffffffff-0000-4000-8000-000000000000", "zzz", "../run", "../../pods/run", "*", "a\nb"]
    {
        refused(&pod, || podctl.run(&["app", "add", uuid, "probe", "--name", "x", "--", "exit", "0"]));
        for verb in ["list", "status"] {
            refused(&pod, || podctl.run(&["app", verb, uuid]));
        }
        for args in [
            vec!["app", "start", uuid, "--app", "x"],
            vec!["status", uuid],
            vec!["stop", uuid],
            vec!["rm", uuid],
            vec!["enter", uuid, "--", "true"],
        ] {
            refused(&pod, || podctl.run(&args));
        }
    }
    let complaint = podctl.fails(&["status", ambiguous]);
    assert!(
        complaint.contains("ambiguous") || complaint.contains("more than one") || complaint.contains("several"),
        "{complaint}"
    );
    podctl.ok(&["status", &pod.uuid]);
    fs::remove_dir_all(twin_dir)?;
    let complaint = podctl.fails(&["rm", &pod.uuid]);
    assert!(complaint.contains("running"), "a running pod can't be removed: {complaint}");
    pod.end();
    Ok(())
}

fn bad_images(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let path = |name: &str| t.dir.join(name).display().to_string();
    fs::write(path("text"), "not an archive")?;
    fs::write(path("empty"), "")?;
    let good = tests::image::aci(&t.dir, "good", &tests::image::manifest("good", &json!({})));
    let bytes = fs::read(&good)?;
    fs::write(path("cut"), &bytes[..bytes.len() / 2])?;
    fs::create_dir_all(t.dir.join("bare"))?;
    fs::write(t.dir.join("bare/manifest"), tests::image::manifest("good", &json!({})).to_string())?;
    tests::process::run(std::process::Command::new("tar").args([
        "-czf",
        &path("bare.aci"),
        "-C",
        &path("bare"),
        "manifest",
    ]))
    .ok();
    fs::create_dir_all(t.dir.join("wrong/rootfs"))?;
    fs::write(t.dir.join("wrong/manifest"), "{\"acKind\": \"PodManifest\"}")?;
    tests::process::run(std::process::Command::new("tar").args([
        "-czf",
        &path("wrong.aci"),
        "-C",
        &path("wrong"),
        "manifest",
        "rootfs",
    ]))
    .ok();
    for name in ["text", "empty", "cut", "bare.aci", "wrong.aci", "no-such-file"] {
        let complaint = podctl.fails(&["image", "import", &path(name), "--name", "bad"]);
        assert!(complaint.contains(name), "{complaint}");
        assert!(!podctl.ok(&["image", "list"]).contains("bad"), "{name} was imported");
    }
    // An image without an app section needs a command.
    let mut bare = tests::image::manifest("headless", &json!({}));
    bare.as_object_mut().expect("an object").remove("app");
    podctl.import_manifest("headless", &bare);
    let pod = podctl.pod(&[]);
    refused(&pod, || podctl.run(&["app", "add", &pod.uuid, "headless", "--name", "x"]));
    pod.try_add("headless", "x", &[], &["exit", "0"]).ok();
    pod.end();
    Ok(())
}

fn bad_volumes(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let existing = t.dir.display().to_string();
    let good = format!("data,kind=host,source={existing}");
    for volume in [
        "data,kind=host,source=/no/such/directory",
        "data,kind=host,source=relative",
        "data,kind=host",
        "data,kind=banana",
        "data",
        "../x,kind=empty",
        "a\nb,kind=empty",
        ",kind=empty",
        "data,kind=empty,mode=banana",
        "data,kind=empty,readOnly=perhaps",
    ] {
        podctl.fails(&["sandbox", &format!("--volume={volume}")]);
        podctl.fails(&["sandbox", &format!("--volume={good}"), &format!("--volume={volume}")]);
    }
    let listed = podctl.json(&["list", "--format", "json"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(0), "a refused sandbox is left: {listed}");
    for options in [["--hostname", "a b"], ["--hostname", ""], ["--net", "banana"]] {
        let out = podctl.run(&[&["sandbox"], options.as_slice()].concat());
        assert!(out.code.is_some_and(|c| c != 0), "{out}");
    }
    assert_eq!(podctl.json(&["list", "--format", "json"]).as_array().map(Vec::len), Some(0));
    Ok(())
}

/// An error that only occurs in the pod is undone on the host as well.
fn a_failed_add_leaves_no_app(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let gone = t.dir.join("gone");
    fs::create_dir(&gone)?;
    let pod = podctl.pod(&[&format!("--volume=gone,kind=host,source={}", gone.display())]);
    fs::remove_dir(&gone)?;
    let complaint = refused(&pod, || pod.try_add("probe", "x", &["--mount=volume=gone,target=/gone"], &["exit", "0"]));
    assert!(complaint.contains("gone"), "{complaint}");
    // /probe is a file: nothing can be mounted below it.
    refused(&pod, || pod.try_add("probe", "x", &["--mount=volume=out,target=/probe/below"], &["exit", "0"]));
    pod.run_app("x", &[], &["write", "/out/x", "well"]);
    pod.end();
    Ok(())
}

fn a_full_disk_leaves_no_app(t: &Context) -> Verdict {
    let data = t.dir.join("data");
    fs::create_dir(&data)?;
    mount(Some("none"), &data, Some("tmpfs"), MsFlags::empty(), Some("size=160m,mode=0755"))?;
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("before", &[], &["sleep", "inf"]);
    let filler = data.join("filler");
    fill(&filler);
    refused(&pod, || pod.try_add("probe", "x", &[], &["exit", "0"]));
    podctl.fails(&[
        "image",
        "import",
        &t.dir.join("probe-root").display().to_string(),
        "--name",
        "second",
        "--exec",
        "/probe",
    ]);
    fs::remove_file(&filler)?;
    assert!(!podctl.ok(&["image", "list"]).contains("second"), "half an image is listed");
    // A little space, so that it fails later, at any step.
    for room in [4096, 8192, 16384, 32768, 65536, 131_072] {
        fill(&filler);
        let size = fs::metadata(&filler)?.len();
        fs::OpenOptions::new().write(true).open(&filler)?.set_len(size.saturating_sub(room))?;
        let before = state(&pod);
        let out = pod.try_add("probe", "x", &[], &["exit", "0"]);
        if out.code == Some(0) {
            fs::remove_file(&filler)?;
            pod.app("rm", "x", &[]).ok();
        } else {
            out.complaint();
            assert_eq!(before, state(&pod), "with {room} bytes of room");
            fs::remove_file(&filler)?;
        }
    }
    pod.run_app("x", &[], &["write", "/out/x", "well"]);
    assert_eq!(pod.state("before"), "created");
    pod.end();
    umount2(&data, MntFlags::empty())?;
    Ok(())
}

/// Writes a file until the disk is full.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(path).expect("the filler");
    let block = vec![0u8; 1 << 20];
    let mut size = block.len();
    while size > 0 {
        match file.write(&block[..size]) {
            Ok(n) if n > 0 => {}
            _ => size /= 2,
        }
    }
}

/// The start reports the fault of the command, and the app counts as exited, not as running.
fn apps_that_cant_be_executed(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let root = t.dir.join("broken-root");
    tests::image::rootfs(&root);
    fs::write(root.join("text"), "not a program")?;
    fs::set_permissions(root.join("text"), fs::Permissions::from_mode(0o644))?;
    fs::write(root.join("script"), "#!/no/such/interpreter\n")?;
    fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o755))?;
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "broken", "--exec", "/probe"]);
    let pod = podctl.pod(&[]);
    for (nth, command) in
        ["/no/such/file", "no-such-command", "/text", "/script", "/data", "/escape/passwd"].iter().enumerate()
    {
        let app = format!("broken-{nth}");
        let added = podctl.run(&["app", "add", &pod.uuid, "broken", "--name", &app, "--exec", command]);
        if added.code != Some(0) {
            // Found already when it is added.
            added.complaint();
            assert!(!pod.manifest_apps().contains(&app));
            continue;
        }
        let started = pod.app("start", &app, &[]);
        if started.code == Some(0) {
            assert_ne!(pod.exit_code(&app), 0, "{command}");
        } else {
            let complaint = started.complaint();
            assert!(!complaint.is_empty());
            assert_ne!(pod.state(&app), "running", "{command}");
        }
        pod.app("stop", &app, &[]).ok();
        pod.app("rm", &app, &[]).ok();
    }
    pod.run_app("well", &[], &["exit", "0"]);
    pod.end();
    Ok(())
}

fn immutable_pods_take_no_apps(t: &Context) -> Verdict {
    let podctl: Podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let path = pod.dir().join("pod");
    let manifest: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    let mut immutable = manifest.clone();
    immutable["annotations"] = json!([]);
    fs::write(&path, immutable.to_string())?;
    let complaint = refused(&pod, || pod.try_add("probe", "x", &[], &["exit", "0"]));
    assert!(complaint.contains("mutable"), "{complaint}");
    fs::write(&path, manifest.to_string())?;
    pod.run_app("x", &[], &["exit", "0"]);
    pod.end();
    Ok(())
}
