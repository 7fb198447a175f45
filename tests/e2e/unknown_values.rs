//! Images with unknown or unsupported values: they are imported, with a warning that names what was left out.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::harness::Context;
use tests::oci::OciImage;
use tests::process::run;
use tests::{Verdict, image};

tests::cases! {
    native what_is_harmless_is_left_out_with_a_warning;
    native what_a_debootstrap_leaves_behind_is_taken;
    native sources_as_skopeo_writes_them;
    native images_are_listed_inspected_and_pruned;
}

/// An image configuration with only unsupported values.
fn odd(config: &mut Value) {
    config["os"] = json!("");
    config["architecture"] = json!("x86_64");
    config["config"]["ExposedPorts"] = json!({
        "443/TCP": {}, "8080,/tcp": {}, "0/tcp": {}, "/tcp": {}, "${PORT}/tcp": {}, "53/udp": {},
    });
    config["config"]["Env"] = json!(["", "=x", "GREETING=hello", "EMPTY="]);
    config["config"]["WorkingDir"] = json!("/home/../data");
    config["config"]["StopSignal"] = json!("SIGBANANA");
    config["config"]["User"] = json!("odd");
    config["config"]["Healthcheck"] = json!({ "Test": ["SOMETHING", "new"], "Interval": 5 });
    config["config"]["OnBuild"] = json!(["RUN x"]);
}

fn what_is_harmless_is_left_out_with_a_warning(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let image = OciImage::changed(&t.dir.join("image"), &[1000], &["SCHILY.xattr.com.apple.provenance:=x"], |root| {
        let passwd = fs::read_to_string(root.join("etc/passwd")).expect("a passwd file");
        fs::write(root.join("etc/passwd"), passwd + "odd:x:0::a man:/:/bin/sh\n").expect("a passwd file");
    })
    .configured(odd);
    image.layout(&t.dir.join("layout"), "1");
    let out = podctl.run(&["image", "import", &t.dir.join("layout").display().to_string(), "--name", "odd"]);
    let said = out.stderr.clone();
    out.ok();
    for word in [
        "\"8080,/tcp\"",
        "\"0/tcp\"",
        "\"/tcp\"",
        "${PORT}",
        "\"\" has no name",
        "\"=x\" has no name",
        "\"x86_64\"",
        "operating system \"\"",
        "/home/../data",
        "SIGBANANA",
        "com.apple.provenance",
        "group \"\"",
    ] {
        assert_eq!(said.matches(word).count(), 1, "{word} in {said}");
    }
    assert!(said.lines().all(|line| line.starts_with("podctl: warning: ")), "{said}");

    let pod = podctl.pod(&[]);
    pod.try_add("odd", "odd", &[], &["report", "/out/odd.json"]).ok();
    pod.app("start", "odd", &[]).ok();
    assert_eq!(pod.exit_code("odd"), 0);
    let report = pod.read("odd");
    assert_eq!(report["cwd"], "/data", "{report}");
    assert_eq!(report["ids"]["gid"][0], 0, "{report}");
    let has = |variable: &str| report["env"].to_string().contains(variable);
    assert!(has("GREETING") && has("hello") && has("EMPTY"), "{}", report["env"]);
    let shown = podctl.json(&["image", "cat-manifest", "odd"]);
    let ports: Vec<&str> =
        shown["app"]["ports"].as_array().into_iter().flatten().flat_map(|p| p["name"].as_str()).collect();
    assert_eq!(ports, ["443-tcp", "53-udp"]);
    pod.end();

    // a wrong platform is refused
    let foreign = OciImage::new(&t.dir.join("foreign"), &[]).configured(|config| config["os"] = json!("windows"));
    foreign.layout(&t.dir.join("layout2"), "1");
    let line = podctl.fails(&["image", "import", &t.dir.join("layout2").display().to_string(), "--name", "x"]);
    assert!(line.contains("the image is for windows/amd64"), "{line}");
    Ok(())
}

fn mknod(path: &Path, number: (u64, u64)) -> Verdict {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(number.0, number.1))?;
    Ok(())
}

fn what_a_debootstrap_leaves_behind_is_taken(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let root = t.dir.join("tree");
    image::rootfs(&root);
    for (name, number) in [("console", (5, 1)), ("null", (1, 3)), ("kmsg", (1, 11))] {
        mknod(&root.join("dev").join(name), number)?;
    }
    let tar = t.dir.join("tree.tar");
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&root).arg(".")).ok();
    let mut ids = Vec::new();
    for source in [root.display().to_string(), tar.display().to_string()] {
        let out = podctl.run(&["image", "import", &source, "--name", "tree", "--exec", "/probe"]);
        assert_eq!(out.stderr.matches("device nodes below /dev").count(), 1, "{out}");
        ids.push(out.ok());
    }
    assert_eq!(ids[0], ids[1], "a tar and a directory of the same files");
    podctl.ok(&["run", "--rm", "--net=none", "tree", "--", "exit", "0"]);
    podctl.ok(&["image", "verify"]);
    let taken = podctl.ok(&["image", "import", &root.display().to_string(), "--name", "taken", "--devices"]);
    assert_ne!(taken, ids[0]);
    // elsewhere in the image an app would see them
    mknod(&root.join("srv/console"), (5, 1))?;
    let out = podctl.run(&["image", "import", &root.display().to_string(), "--name", "x"]);
    assert!(out.code == Some(254) && out.stderr.contains("5:1") && out.stderr.contains("--devices"), "{out}");
    Ok(())
}

fn skopeo(from: &str, to: &str) {
    run(Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", from, to])).ok();
}

fn sources_as_skopeo_writes_them(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let image = OciImage::new(&t.dir.join("image"), &[1000, 2000]);
    let layout = image.layout(&t.dir.join("layout"), "1");
    let at = |name: &str| t.dir.join(name).display().to_string();
    let archive = format!("oci-archive:{}", at("oci.tar"));
    let saved = format!("docker-archive:{}", at("saved.tar"));
    let dir = format!("dir:{}", at("dir"));
    skopeo(&layout, &format!("{archive}:1"));
    skopeo(&layout, &format!("{saved}:example.com/app:1"));
    skopeo(&layout, &dir);
    let tagged = format!("{saved}:example.com/app:1");
    for source in [&layout, &archive, &format!("{archive}:1"), &saved, &tagged, &dir] {
        podctl.ok(&["image", "import", source, "--name", "app"]);
        let out = podctl.run(&["run", "--rm", "--net=none", "app"]);
        assert!(out.code == Some(0) && out.stdout.contains("pulled"), "{source}: {out}");
    }
    let program = tests::dist().join("podctl").display().to_string();
    let script =
        format!("exec {program} --dir={} image import - --name piped <{}", podctl.data.display(), at("saved.tar"));
    run(Command::new("sh").args(["-c", &script])).ok();
    podctl.ok(&["run", "--rm", "--net=none", "piped"]);

    let missing = podctl.fails(&["image", "import", &format!("{layout}x"), "--name", "x"]);
    assert!(missing.contains("no image \"1x\""), "{missing}");
    let other = podctl.fails(&["image", "import", "docker-daemon:app:1"]);
    assert!(other.contains("skopeo"), "{other}");
    // blobs that a manifest refers to are verified here, too
    let layer = t.dir.join("dir").join(&image.layers[1]["sha256:".len()..]);
    let mut bytes = fs::read(&layer)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, &bytes)?;
    // existing blobs are not read again
    let other = tests::podctl::Podctl::new(&tests::dist().join("podctl"), &t.dir.join("other"), &t.dir);
    other.fails(&["image", "import", &dir, "--name", "damaged"]);
    assert!(other.fails(&["image", "show", "damaged"]).contains("there is no image"));
    Ok(())
}

fn images_are_listed_inspected_and_pruned(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let image = OciImage::new(&t.dir.join("image"), &[1000]).configured(|config| {
        let runs = &mut config["config"];
        runs["Labels"] = json!({ "org.example.team": "blue" });
        runs["Volumes"] = json!({ "/data": {} });
        runs["ExposedPorts"] = json!({ "80/tcp": {} });
        runs["User"] = json!("web:2001");
        runs["StopSignal"] = json!("SIGQUIT");
        runs["Healthcheck"] = json!({ "Test": ["CMD", "/probe"] });
    });
    let layout = image.layout(&t.dir.join("layout"), "1");
    let id = podctl.ok(&["image", "import", &layout, "--name", "web"]);
    podctl.ok(&["image", "tag", "web", "registry.example/team/web:1"]);
    podctl.import_probe();
    let other = podctl.json(&["image", "show", "probe", "--format=json"])["id"].as_str().unwrap_or_default().to_owned();

    let seen = podctl.json(&["image", "inspect", "registry.example/team/web:1", "probe"]);
    assert_eq!(seen[0]["id"], json!(id));
    assert_eq!(seen[0]["entrypoint"], json!(["/probe"]));
    assert_eq!(seen[0]["cmd"], json!(["print", "pulled"]));
    assert_eq!((&seen[0]["user"], &seen[0]["stop_signal"]), (&json!("web:2001"), &json!("SIGQUIT")));
    assert_eq!((&seen[0]["ports"], &seen[0]["volumes"]), (&json!(["80/tcp"]), &json!(["/data"])));
    assert_eq!(seen[0]["labels"], json!({ "org.example.team": "blue" }));
    assert_eq!(seen[0]["healthcheck"]["Test"], json!(["CMD", "/probe"]));
    assert_eq!(seen[0]["env"], json!(["GREETING=hello"]));
    assert_eq!(seen[0]["layers"].as_array().map(Vec::len), Some(2));
    assert_eq!((&seen[1]["id"], &seen[1]["entrypoint"]), (&json!(other), &json!(["/probe"])));
    assert!(podctl.ok(&["image", "inspect", "web", "--format=text"]).contains("org.example.team=blue"));

    let listed = |filters: &[&str]| -> Vec<String> {
        let mut words = vec!["image", "list", "--quiet"];
        filters.iter().for_each(|filter| words.extend(["--filter", filter]));
        podctl.ok(&words).lines().map(str::to_owned).collect()
    };
    let both = listed(&[]);
    assert!(both.len() == 2 && both.contains(&id) && both.contains(&other), "{both:?}");
    for filter in ["reference=team/web", "reference=*/web:1", "label=org.example.team", "label=org.example.team=blue"] {
        assert_eq!(listed(&[filter]), [id.as_str()], "{filter}");
    }
    assert_eq!(listed(&["before=probe"]), [id.as_str()]);
    assert_eq!(listed(&["since=web", "dangling=false"]), [other.as_str()]);
    assert!(listed(&["dangling=true"]).is_empty() && listed(&["label=org.example.team=red"]).is_empty());
    assert!(podctl.fails(&["image", "list", "--filter", "colour=blue"]).contains("reference, label, dangling"));

    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    podctl.ok(&["image", "untag", "web", "registry.example/team/web:1"]);
    assert!(podctl.ok(&["image", "prune"]).contains(&id));
    podctl.ok(&["image", "prune", "--all"]);
    assert!(listed(&[]).contains(&other), "an app runs from it");
    pod.end();
    podctl.ok(&["image", "prune", "--all"]);
    assert!(listed(&[]).is_empty());
    Ok(())
}
