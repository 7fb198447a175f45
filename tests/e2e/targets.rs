//! Where volumes are mounted in an app: their order, all forms of targets, and what is there before.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::image;
use tests::process::{mountinfo, wait_for};

tests::cases! {
    native outer_before_inner_whatever_the_order;
    native an_implicit_volume_hides_nothing_that_was_asked_for;
    native relative_targets_and_those_with_dots_are_in_the_root;
    native a_working_directory_with_dots_is_in_the_root;
    native a_file_on_a_directory_is_named;
    native a_missing_source_ends_run_with_1;
}

fn outer_before_inner_whatever_the_order(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--volume=a,kind=empty", "--volume=b,kind=empty", "--volume=c,kind=empty"]);
    let orders = [["/m/x/y", "/m/x", "/m"], ["/m/x", "/m", "/m/x/y"], ["/m", "/m/x", "/m/x/y"]];
    for (nth, order) in orders.iter().enumerate() {
        let app = format!("app{nth}");
        let mounts: Vec<String> =
            order.iter().zip(["a", "b", "c"]).map(|(at, v)| format!("--mount=volume={v},target={at}")).collect();
        pod.add(&app, &mounts.iter().map(String::as_str).collect::<Vec<_>>(), &["sleep", "inf"]);
        for (at, volume) in order.iter().zip(["a", "b", "c"]) {
            pod.enter(&app, &["/probe", "write", &format!("{at}/is-{volume}-{nth}"), "x"]).ok();
            let kept = pod.dir().join(format!("sharedVolumes/{volume}/is-{volume}-{nth}"));
            assert!(kept.exists(), "{order:?}: {at} is not volume {volume}");
        }
    }
    // The same if a link of the image puts one target below the other.
    let root = t.dir.join("linked-root");
    image::rootfs(&root);
    fs::create_dir_all(root.join("var"))?;
    fs::create_dir_all(root.join("run"))?;
    symlink("../run", root.join("var/run"))?;
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "linked", "--exec", "/probe"]);
    let mounts = ["--mount=volume=a,target=/run/x", "--mount=volume=b,target=/var/run"];
    pod.try_add("linked", "linked", &mounts, &["sleep", "inf"]).ok();
    pod.enter("linked", &["/probe", "write", "/run/x/inner", "x", "+", "write", "/run/outer", "x"]).ok();
    assert!(pod.dir().join("sharedVolumes/a/inner").exists() && pod.dir().join("sharedVolumes/b/outer").exists());
    pod.end();
    Ok(())
}

fn an_implicit_volume_hides_nothing_that_was_asked_for(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let source = t.dir.join("source");
    fs::create_dir_all(source.join("deep"))?;
    fs::write(source.join("word"), "lent")?;
    fs::write(source.join("deep/word"), "below")?;
    let root = t.dir.join("points-root");
    image::rootfs(&root);
    fs::create_dir_all(root.join("var"))?;
    symlink("/run", root.join("var/run"))?;
    let volume = format!("--volume=lent,kind=host,source={}", source.display());
    let file = format!("--volume=file,kind=host,source={}", source.join("word").display());
    let pod = podctl.pod(&[&volume, &file]);
    for (nth, (point, volume, target)) in [
        ("/data", "lent", "/data/sub"),
        ("/data", "file", "/data/app.conf"),
        ("/data", "lent", "/data"),
        ("/var/run", "lent", "/run"),
        ("/run", "lent", "/var/run/x"),
        ("/m/deep", "lent", "/m"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("points{nth}");
        let manifest = image::manifest(&name, &json!({"mountPoints": [{"name": "point", "path": point}]}));
        import(t, &podctl, &root, &name, &manifest);
        pod.try_add(&name, &name, &[&format!("--mount=volume={volume},target={target}")], &["sleep", "inf"]).ok();
        let path = if volume == "file" { target.to_owned() } else { format!("{target}/word") };
        assert_eq!(pod.enter(&name, &["/probe", "cat", &path]).ok(), "lent", "{volume} on {target}, VOLUME {point}");
        if point == "/m/deep" {
            assert_eq!(pod.enter(&name, &["/probe", "cat", "/m/deep/word"]).ok(), "below");
        }
    }
    pod.end();
    Ok(())
}

/// Imports an image with this root and manifest.
#[track_caller]
fn import(t: &Context, podctl: &tests::podctl::Podctl, root: &std::path::Path, name: &str, manifest: &Value) {
    let tree = t.dir.join(format!("{name}.tree"));
    fs::create_dir_all(&tree).expect("mkdir");
    tests::process::run(std::process::Command::new("cp").arg("-a").arg(root).arg(tree.join("rootfs"))).ok();
    fs::write(tree.join("manifest"), manifest.to_string()).expect("write the manifest");
    let file = t.dir.join(format!("{name}.aci"));
    let mut tar = std::process::Command::new("tar");
    tests::process::run(tar.arg("-czf").arg(&file).arg("-C").arg(&tree).args([
        "--numeric-owner",
        "manifest",
        "rootfs",
    ]))
    .ok();
    podctl.ok(&["image", "import", &file.display().to_string(), "--name", name]);
}

/// As the contract requires: another host manager passes on the targets unchanged.
fn relative_targets_and_those_with_dots_are_in_the_root(t: &Context) -> Verdict {
    let host = t.minihost();
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    let volumes = json!([{"name": "lent", "kind": "host", "source": source.display().to_string()}]);
    let (mut pod, monitor) = host.boot(&volumes, &["--net=none"]);
    for (nth, (target, path)) in [
        ("dir1", "/dir1"),
        ("../../foo", "/foo"),
        ("/../../../foo/../bar", "/bar"),
        ("data/../dir2/./x", "/dir2/x"),
        ("up/../etc/lent", "/etc/lent"),
    ]
    .into_iter()
    .enumerate()
    {
        let app = format!("app{nth}");
        let file = format!("{path}/{app}");
        pod.add(&app, &["/probe", "write", &file, target], &json!([{"volume": "lent", "path": target}]));
        pod.start_app(&app).ok();
        let written = wait_for(target, 10, || fs::read_to_string(source.join(&app)).ok());
        assert_eq!(written, target);
        pod.rm(&app);
    }
    let led_out = |mount: &[String]| ["/dir", "/foo", "/bar", "/etc/lent"].iter().any(|at| mount[4].starts_with(at));
    assert!(!mountinfo("self").iter().any(|mount| led_out(mount)), "a target led out of the app");
    pod.stop(true, monitor);
    pod.collect(1);
    // The same with podctl.
    let podctl = t.podctl();
    let pod = podctl.pod(&[&format!("--volume=lent,kind=host,source={}", source.display())]);
    pod.run_app("dots", &["--mount=volume=lent,target=../../foo"], &["write", "/foo/dots", "x"]);
    assert!(source.join("dots").exists());
    pod.end();
    Ok(())
}

fn a_working_directory_with_dots_is_in_the_root(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for (nth, (directory, seen)) in
        [("/data/../home", "/home"), ("/../../home", "/home"), ("/up/home", "/home"), ("/home/..", "/")]
            .iter()
            .enumerate()
    {
        let app = format!("app{nth}");
        assert_eq!(pod.report(&app, &[&format!("--working-dir={directory}")])["cwd"], *seen, "{directory}");
    }
    pod.end();
    Ok(())
}

fn a_file_on_a_directory_is_named(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let (file, dir) = (t.dir.join("conf"), t.dir.join("dir"));
    fs::write(&file, "x")?;
    fs::create_dir(&dir)?;
    let pod = podctl.pod(&[
        &format!("--volume=conf,kind=host,source={}", file.display()),
        &format!("--volume=dir,kind=host,source={}", dir.display()),
    ]);
    for (volume, target, words) in [
        ("conf", "/etc", "volume conf is a file, its target /etc is a directory"),
        ("conf", "/escape", "volume conf is a file, its target /etc is a directory"),
        ("dir", "/etc/passwd", "volume dir is a directory, its target /etc/passwd is a file"),
        ("dir", "/dev/null", "volume dir is a directory, its target /dev/null is a file"),
    ] {
        let complaint = pod
            .try_add("probe", "x", &[&format!("--mount=volume={volume},target={target}")], &["sleep", "inf"])
            .complaint();
        assert!(complaint.contains(words), "{complaint}");
        assert!(pod.manifest_apps().is_empty());
    }
    pod.end();
    Ok(())
}

fn a_missing_source_ends_run_with_1(t: &Context) -> Verdict {
    let host = t.minihost();
    let missing = t.dir.join("not/there");
    let volumes = json!([{"name": "lent", "kind": "host", "source": missing.display().to_string()}]);
    let pod = host.prepare(&volumes);
    let out = pod.run_to_end(&["--net=none"]);
    assert_eq!(out.code, Some(1), "{out}");
    let words = format!("Failed to stat {}: No such file or directory", missing.display());
    assert!(out.stderr.contains(&words) && out.stderr.lines().count() == 1, "{out}");
    pod.collect(1);
    Ok(())
}
