//! The same app gives the same result from every format of image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tests::harness::Context;
use tests::podctl::Podctl;
use tests::process::{picture, run};
use tests::screen::Screen;
use tests::{Verdict, image};

tests::cases! {
    native one_app_from_every_format 180;
    native images_are_shown_checked_and_removed 180;
    native eight_imports_at_once;
    native a_bar_where_somebody_looks;
    native rendered_files_are_the_images;
}

/// The command and user of the app, as an application container image has them.
fn manifest() -> Value {
    let app = json!({
        "exec": ["/probe", "report", "/out/report.json"], "user": "web", "group": "2001", "supplementaryGIDs": [3001],
        "workingDirectory": "/home", "environment": [{"name": "GREETING", "value": "hello"}],
    });
    image::manifest("probe", &app)
}

/// The same in Docker's format: an archive of `docker save`, made from a root file system.
fn docker_archive(scratch: &Path, root: &Path) -> PathBuf {
    let tree = scratch.join("saved");
    fs::create_dir_all(tree.join("layer")).unwrap_or_else(|e| panic!("{}: {e}", tree.display()));
    let layer = tree.join("layer/layer.tar");
    run(Command::new("tar").arg("-cf").arg(&layer).arg("--numeric-owner").arg("-C").arg(root).arg(".")).ok();
    let sha256 = |file: &Path| -> String {
        let text = run(Command::new("sha256sum").arg(file)).ok();
        text.split(' ').next().unwrap_or_default().to_owned()
    };
    let config = json!({
        "os": "linux", "architecture": "amd64",
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))] },
        "config": {
            "Entrypoint": ["/probe"], "Cmd": ["report", "/out/report.json"], "User": "web", "WorkingDir": "/home",
            "Env": ["GREETING=hello"], "Labels": {"org.example.made-by": "a test"},
        },
        "history": [{ "created": "2024-01-01T00:00:00Z", "created_by": "a test" }],
    });
    let write = |name: &str, value: &Value| {
        let path = tree.join(name);
        fs::write(&path, value.to_string()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    };
    write("config", &config);
    let name = format!("{}.json", sha256(&tree.join("config")));
    fs::rename(tree.join("config"), tree.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    write(
        "manifest.json",
        &json!([{ "Config": name, "RepoTags": ["example.com/probe:1"], "Layers": ["layer/layer.tar"] }]),
    );
    let archive = scratch.join("saved.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&tree).args(["manifest.json", &name, "layer"])).ok();
    archive
}

fn skopeo(from: &str, to: &str) {
    run(Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", from, to])).ok();
}

/// The part of the app's report that is the same in each run.
fn report(podctl: &Podctl, image: &str) -> Value {
    let pod = podctl.pod(&[]);
    pod.try_add(image, "one", &[], &[]).ok();
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.exit_code("one"), 0, "{image}");
    let report = pod.read("report");
    pod.end();
    let path = podctl.out().join("report.json");
    fs::remove_file(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let names = ["argv", "env", "cwd", "umask", "ids", "capabilities", "seccomp", "no_new_privs", "limits", "root"];
    names.iter().map(|name| ((*name).to_owned(), report[*name].clone())).collect::<serde_json::Map<_, _>>().into()
}

fn one_app_from_every_format(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let aci = image::aci(&t.dir, "probe", &manifest());
    let saved = docker_archive(&t.dir, &t.dir.join("probe.tree/rootfs"));
    let at = |name: &str| t.dir.join(name).display().to_string();
    skopeo(&format!("docker-archive:{}", saved.display()), &format!("oci:{}:example.com/probe:1", at("layout")));
    skopeo(&format!("oci:{}:example.com/probe:1", at("layout")), &format!("oci-archive:{}:1", at("layout.tar")));
    skopeo(
        &format!("oci:{}:example.com/probe:1", at("layout")),
        &format!("docker-archive:{}:example.com/probe:1", at("docker.tar")),
    );
    run(Command::new("xz").args(["-k", "-0"]).arg(&saved)).ok();

    let sources = [
        ("aci", aci.display().to_string()),
        ("saved", saved.display().to_string()),
        ("saved-xz", at("saved.tar.xz")),
        ("oci-directory", at("layout")),
        ("oci-archive", at("layout.tar")),
        ("docker-archive", at("docker.tar")),
    ];
    // a writable directory for the report
    fs::create_dir_all(podctl.out())?;
    let mut expected = None;
    for (name, source) in &sources {
        podctl.ok(&["image", "import", source, "--name", name]);
        let found = report(&podctl, name);
        assert_eq!(found["ids"]["groups"], json!([3001]), "{name}: {found}");
        assert_eq!(found["cwd"], "/home", "{name}: {found}");
        assert_eq!(&found, expected.get_or_insert(found.clone()), "{name} differs from {}", sources[0].0);
    }
    Ok(())
}

fn images_are_shown_checked_and_removed(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    let id = podctl.json(&["image", "show", "probe", "--format", "json"])["id"].as_str().unwrap_or_default().to_owned();
    let shown = podctl.json(&["image", "show", &id[..20], "--format", "json"]);
    assert_eq!((shown["names"][0].as_str(), shown["pods"][0].as_str()), (Some("probe"), Some(pod.uuid.as_str())));
    assert_eq!(podctl.json(&["image", "cat-manifest", "probe"])["app"]["exec"][0], "/probe");
    let line = podctl.fails(&["image", "rm", "probe"]);
    assert!(line.contains(&pod.uuid), "{line}");
    pod.end();

    // a byte of the tree changes: the tree is rendered again, with a warning, before the next app uses it
    let file = podctl.data.join("trees").join(&id).join("rootfs/home/readme");
    fs::write(&file, "HOME\n")?;
    let verified = podctl.json(&["image", "verify", "probe", "--format", "json"]);
    assert_eq!(verified[0]["health"], "mended", "{verified}");
    assert!(verified[0]["fault"].as_str().is_some_and(|fault| fault.contains("/home/readme")), "{verified}");
    assert_eq!(fs::read_to_string(&file)?, "home\n");
    fs::remove_file(&file)?;
    let pod = podctl.pod(&[]);
    let added = pod.try_add("probe", "one", &[], &["sleep", "inf"]);
    assert!(added.stderr.contains("damaged") && added.stderr.lines().count() == 1, "{added}");
    added.ok();
    assert_eq!(fs::read_to_string(&file)?, "home\n");
    pod.end();

    // a byte of the archive changes: it is refused until it is imported again
    let archive = podctl.data.join("images").join(&id).join("archive");
    let mut bytes = fs::read(&archive)?;
    bytes[700] ^= 1;
    fs::write(&archive, &bytes)?;
    let verified = podctl.run(&["image", "verify"]);
    assert!(verified.code == Some(254) && verified.stdout.contains("damaged"), "{verified}");
    let exported = t.dir.join("exported.aci").display().to_string();
    podctl.fails(&["image", "export", "probe", &exported]);
    let root = t.dir.join("probe-root").display().to_string();
    assert_eq!(podctl.ok(&["image", "import", &root, "--name", "probe", "--exec", "/probe"]), id);
    podctl.ok(&["image", "verify"]);
    podctl.ok(&["image", "export", "probe", &exported, "--gzip"]);
    // one of several names is only taken away
    podctl.ok(&["image", "tag", "probe", "other:1"]);
    let said = podctl.ok(&["image", "rm", "other:1"]);
    assert!(said.contains("untagged localhost/other:1") && said.contains("probe"), "{said}");
    podctl.fails(&["image", "show", "other:1"]);
    podctl.ok(&["image", "tag", "probe", "other:1"]);
    podctl.ok(&["image", "rm", "probe"]);
    assert_eq!(podctl.ok(&["image", "rm", "other:1"]), id);
    assert_eq!(podctl.ok(&["image", "import", &exported]), id);
    let line = podctl.fails(&["image", "show", "no-such-image"]);
    assert!(line.contains("no-such-image"), "{line}");
    Ok(())
}

fn eight_imports_at_once(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let same = image::aci(&t.dir, "same", &image::manifest("same", &json!({}))).display().to_string();
    let others: Vec<String> = (0..8)
        .map(|n| image::aci(&t.dir, &format!("other-{n}"), &image::manifest(&format!("other-{n}"), &json!({}))))
        .map(|path| path.display().to_string())
        .collect();
    let start = |file: &str| {
        let mut command = podctl.command(&["image", "import", file]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("podctl")
    };
    let all: Vec<_> = others.iter().flat_map(|other| [start(&same), start(other)]).collect();
    let mut ids = std::collections::BTreeSet::new();
    for import in all {
        let out = import.wait_with_output()?;
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        ids.insert(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    assert_eq!(ids.len(), 9);
    let count = |name: &str| fs::read_dir(podctl.data.join(name)).map_or(0, Iterator::count);
    assert_eq!((count("images"), count("trees"), count("names"), count("tmp")), (9, 9, 9, 0));
    let verified = podctl.json(&["image", "verify", "--format=json"]);
    assert!(verified.as_array().is_some_and(|all| all.iter().all(|one| one["health"] == "whole")), "{verified}");
    Ok(())
}

fn a_bar_where_somebody_looks(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let root = t.dir.join("large");
    fs::create_dir(&root)?;
    fs::write(root.join("f"), vec![7; 20 << 20])?;
    let tar = t.dir.join("large.tar").display().to_string();
    run(Command::new("tar").args(["-cf", &tar, "-C"]).arg(&root).arg(".")).ok();
    for source in [tar, root.display().to_string()] {
        let quiet = podctl.run(&["image", "import", &source, "--name=large"]);
        assert!(quiet.code == Some(0) && quiet.stderr.is_empty(), "{quiet}");
        let mut screen = Screen::new();
        let mut import =
            screen.start(&podctl.command(&["image", "import", &source, "--name=large"]), [None, None, None]);
        screen.shows("importing");
        assert_eq!(screen.end_of(&mut import), 0);
        // the bar has gone, and the id is there as tables have it
        screen.shows(&quiet.stdout[..quiet.stdout.find('-').map_or(12, |at| at + 13)]);
    }
    Ok(())
}

fn rendered_files_are_the_images(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let out = t.dir.join("rendered");
    podctl.ok(&["image", "render", "probe", &out.display().to_string()]);
    let plain = |dir: &Path| picture(dir).replace(&dir.display().to_string(), "");
    assert!(plain(&out) == plain(&t.dir.join("probe-root")), "the files differ");
    let line = podctl.fails(&["image", "render", "probe", &out.display().to_string()]);
    assert!(line.contains("already exists"), "{line}");
    Ok(())
}
