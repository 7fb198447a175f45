//! Layers of images: unpacked once, shared, and stacked in the view of apps.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use tests::harness::Context;
use tests::oci::OciImage;
use tests::podctl::Podctl;
use tests::process::{Output, run};
use tests::tracer::{self, Points};
use tests::{Verdict, dist};

tests::cases! {
    native apps_see_layers_as_they_lie 180;
    native layers_are_kept_once_and_go_with_the_last_image;
    native damage_of_a_layer_is_found_and_mended_by_an_import;
    native many_layers 120;
    native an_app_costs_the_same_on_many_layers;
    native layers_that_need_those_below;
}

/// A layer with these files: name and content; a name that ends with `/` is a directory.
fn tree(t: &Context, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let tree = t.dir.join("trees").join(name);
    fs::create_dir_all(&tree).expect("mkdir");
    for (file, content) in files {
        let path = tree.join(file);
        if file.ends_with('/') {
            fs::create_dir_all(&path).expect("mkdir");
            continue;
        }
        fs::create_dir_all(path.parent().expect("a directory")).expect("mkdir");
        fs::write(&path, content).expect("write");
    }
    tree
}

/// Writes the image as a layout and imports it; returns its id.
#[track_caller]
fn import(t: &Context, podctl: &Podctl, name: &str, image: &OciImage) -> String {
    let dir = t.dir.join(format!("layout-{name}"));
    let layout = image.layout(&dir, "1");
    let id = podctl.ok(&["image", "import", &layout, "--name", name]);
    fs::remove_dir_all(&dir).expect("remove the layout");
    id
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = dir.read_dir() else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn layered(t: &Context) -> OciImage {
    let middle = tree(
        t,
        "middle",
        &[
            ("dir/a", "a"),
            ("dir/b", "b"),
            ("opaque/old", "old"),
            ("opaque/deep/old", "old"),
            ("file", "file"),
            ("was-dir/f", "f"),
            ("was-file", "f"),
            ("gone/f", "f"),
            ("again/old", "old"),
            ("data/kept", "middle\n"),
        ],
    );
    let upper = tree(
        t,
        "upper",
        &[
            ("dir/.wh.a", ""),
            ("dir/c", "c"),
            ("opaque/.wh..wh..opq", ""),
            ("opaque/new", "new"),
            ("was-dir", "a file"),
            ("was-file/f", "f"),
            (".wh.gone", ""),
            (".wh.again", ""),
            ("again/new", "new"),
            ("etc/.wh.never", ""),
            ("srv/", ""),
        ],
    );
    for (name, mode) in [("dir", 0o1777), ("again", 0o700), ("srv", 0o751)] {
        fs::set_permissions(upper.join(name), fs::Permissions::from_mode(mode)).expect("chmod");
    }
    // an owner that a user namespace maps as well
    std::os::unix::fs::chown(upper.join("dir/c"), Some(33), Some(34)).expect("chown");
    OciImage::stack(&t.dir.join("image"), &[middle, upper])
        .configured(|config| config["config"]["WorkingDir"] = json!("/srv/work/here"))
}

fn apps_see_layers_as_they_lie(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let image = layered(t);
    let id = import(t, &podctl, "web", &image);
    assert_eq!(id, image.config, "the digest of the configuration");
    assert_eq!(names(&podctl.data.join("layers")).len(), 3);
    assert!(!podctl.data.join("images").join(id.replace(':', "-")).join("archive").exists());
    for making in [&[][..], &["--private-users"], &["--no-overlay"], &["--no-overlay", "--private-users"]] {
        let pod = podctl.pod(making);
        pod.try_add("web", "web", &[], &["sleep", "inf"]).ok();
        pod.app("start", "web", &[]).ok();
        let enter = |words: &[&str]| pod.enter("web", &[&["/probe"], words].concat()).ok();
        let listed = |path: &str| {
            let mut names: Vec<String> = enter(&["ls", path]).split_whitespace().map(str::to_owned).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(listed("/dir"), "b c", "{making:?}");
        assert_eq!(
            (listed("/opaque"), listed("/again"), listed("/was-file")),
            ("new".into(), "new".into(), "f".into())
        );
        assert_eq!((enter(&["cat", "/was-dir"]), enter(&["cat", "/data/kept"])), ("a file".into(), "middle".into()));
        assert!(!listed("/").split(' ').any(|name| name == "gone" || name.starts_with(".wh.")), "{}", listed("/"));
        let stat = |path: &str| -> Value { serde_json::from_str(&enter(&["stat", path])).expect("JSON") };
        let owner = stat("/dir/c");
        assert_eq!((&owner["uid"], &owner["gid"]), (&json!(33), &json!(34)), "{making:?}");
        let owner = stat("/data/owned");
        assert_eq!((&owner["uid"], &owner["gid"]), (&json!(1234), &json!(2345)), "{making:?}");
        for (path, mode) in
            [("/dir", 0o1777), ("/again", 0o700), ("/srv", 0o751), ("/tmp", 0o777), ("/srv/work", 0o755)]
        {
            assert_eq!(stat(path)["mode"], format!("{mode:04o}"), "{path} {making:?}");
        }
        enter(&["write", "/dir/b", "changed"]);
        // other managers read this form of the id only
        let manifest: Value = serde_json::from_slice(&fs::read(pod.dir().join("pod"))?)?;
        let digits: String = Sha512::digest(&image.blobs[&image.config]).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(manifest["apps"][0]["image"]["id"], json!(format!("sha512-{digits}")));
        assert_eq!(podctl.json(&["image", "show", &format!("sha512-{digits}"), "--format=json"])["id"], json!(id));
        assert!(podctl.fails(&["image", "rm", "web"]).contains(&pod.uuid));
        pod.app("stop", "web", &[]).ok();
        pod.end();
        podctl.ok(&["image", "verify"]);
    }
    // copied out; exported as an application container image and imported again
    let out = t.dir.join("rendered");
    podctl.ok(&["image", "render", "web", &out.display().to_string()]);
    assert_eq!(
        (names(&out.join("dir")), names(&out.join("opaque"))),
        (vec!["b".into(), "c".into()], vec!["new".to_owned()])
    );
    assert_eq!(out.join("dir/c").metadata()?.uid(), 33);
    let aci = t.dir.join("web.aci").display().to_string();
    podctl.ok(&["image", "export", "web", &aci]);
    podctl.ok(&["image", "import", &aci, "--name", "copy"]);
    let ran = podctl.run(&["run", "--rm", "--net=none", "copy", "--", "cat", "/data/kept"]);
    assert!(ran.code == Some(0) && ran.stdout.contains("middle"), "{ran}");
    assert_eq!(names(&podctl.data.join("tmp")), Vec::<String>::new());
    Ok(())
}

fn layers_are_kept_once_and_go_with_the_last_image(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let tree = |name: &str| tree(t, name, &[(&format!("only/{name}"), name)]);
    let (a, b) = (tree("a"), tree("b"));
    let scratch = t.dir.join("image");
    let first = import(t, &podctl, "first", &OciImage::stack(&scratch, std::slice::from_ref(&a)));
    let layers = podctl.data.join("layers");
    let inode = |name: &str| layers.join(name).join("rootfs").metadata().map(|stat| stat.ino()).ok();
    let before: Vec<(String, Option<u64>)> =
        names(&layers).into_iter().map(|name| (name.clone(), inode(&name))).collect();
    assert_eq!(before.len(), 2);
    let second = import(t, &podctl, "second", &OciImage::stack(&scratch, &[a.clone(), b.clone()]));
    // the same layer twice, and the same image under another name
    let twice = import(t, &podctl, "twice", &OciImage::stack(&scratch, &[b.clone(), a.clone(), b]));
    assert_eq!(import(t, &podctl, "again", &OciImage::stack(&scratch, &[a])), first);
    assert_eq!(names(&layers).len(), 3);
    assert!(before.iter().all(|(name, was)| inode(name) == *was), "a layer was unpacked again");
    let pod = podctl.pod(&[]);
    for name in ["first", "second", "twice"] {
        pod.try_add(name, name, &[], &["sleep", "inf"]).ok();
        pod.app("start", name, &[]).ok();
    }
    assert_eq!(pod.enter("twice", &["/probe", "cat", "/only/b"]).ok(), "b");
    assert_eq!(pod.enter("first", &["/probe", "cat", "/only/a"]).ok(), "a");
    pod.enter("first", &["/probe", "cat", "/only/b"]).complaint();
    podctl.ok(&["image", "gc"]);
    assert_eq!(names(&layers).len(), 3);
    pod.end();

    podctl.ok(&["image", "rm", &first]);
    assert_eq!(names(&layers).len(), 3, "others have them");
    podctl.ok(&["image", "rm", &second, &twice]);
    assert_eq!((names(&layers), names(&podctl.data.join("tmp"))), (Vec::new(), Vec::new()));
    Ok(())
}

fn damage_of_a_layer_is_found_and_mended_by_an_import(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let layer = tree(t, "a", &[("only/a", "a")]);
    let image = OciImage::stack(&t.dir.join("image"), &[layer])
        .configured(|config| config["config"]["WorkingDir"] = json!("/made"));
    let id = import(t, &podctl, "web", &image);
    let layers = podctl.data.join("layers");
    let file = |path: &str| {
        let dirs = names(&layers).into_iter().map(|name| layers.join(name).join("rootfs").join(path));
        dirs.into_iter().find(|path| path.exists()).expect("the file")
    };
    let runs = || podctl.run(&["run", "--rm", "--net=none", "web", "--", "cat", "/only/a"]);
    // the lists have the format of mtree(5), which other tools read
    let mtree = || -> Vec<Output> {
        let of = |layer: &String| {
            let layer = layers.join(layer);
            run(Command::new("mtree").arg("-p").arg(layer.join("rootfs")).arg("-f").arg(layer.join("sums")))
        };
        names(&layers).iter().map(of).collect()
    };
    assert!(mtree().iter().all(|out| out.code == Some(0) && out.stdout.is_empty()), "{:?}", mtree());
    // the quick check finds the damage before an app uses the layer; only a new import repairs it
    fs::write(file("only/a"), "X")?;
    assert!(mtree().iter().any(|out| out.code == Some(2) && out.stdout.contains("sha256")), "{:?}", mtree());
    let line = runs();
    assert!(line.code != Some(0) && line.stderr.contains("layer sha256:") && line.stderr.contains("again"), "{line}");
    let health = podctl.run(&["image", "verify", "--format=json"]);
    assert!(health.code != Some(0) && health.stdout.contains("/only/a"), "{health}");
    assert_eq!(import(t, &podctl, "web", &image), id);
    assert_eq!(runs().ok(), "a");
    podctl.ok(&["image", "verify"]);
    // the image's own tree is made again
    let own = podctl.data.join("trees").join(id.replace(':', "-"));
    fs::remove_dir(own.join("rootfs/made"))?;
    assert!(podctl.ok(&["image", "verify"]).contains("mended"));
    assert!(own.join("rootfs/made").is_dir());
    fs::set_permissions(own.join("rootfs/made"), fs::Permissions::from_mode(0o777))?;
    let warned = runs();
    assert!(warned.code == Some(0) && warned.stderr.contains("rendered again"), "{warned}");
    // a configuration that does not have its digest is never used
    let config = podctl.data.join("images").join(id.replace(':', "-")).join("config");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replace("/probe", "/other"))?;
    assert!(podctl.run(&["image", "verify"]).code != Some(0));
    assert!(podctl.fails(&["image", "inspect", "web"]).contains("damaged"));
    import(t, &podctl, "web", &image);
    podctl.ok(&["image", "verify"]);
    podctl.ok(&["image", "gc"]);
    assert_eq!(names(&podctl.data.join("tmp")), Vec::<String>::new());
    Ok(())
}

fn many_layers(t: &Context) -> Verdict {
    let podctl = t.podctl();
    // more layers than fit one page of mount options by their names; and more than fit by descriptors, which become one
    // tree
    for (count, makings) in [(45, &[&[][..], &["--private-users"]][..]), (129, &[&[][..]])] {
        let trees: Vec<PathBuf> = (0..count)
            .map(|number| {
                tree(
                    t,
                    &format!("{count}-{number}"),
                    &[(&format!("many/{number}"), "x"), ("many/last", &number.to_string())],
                )
            })
            .collect();
        import(t, &podctl, "many", &OciImage::stack(&t.dir.join("image"), &trees));
        for making in makings {
            let pod = podctl.pod(making);
            pod.try_add("many", "many", &[], &["sleep", "inf"]).ok();
            pod.app("start", "many", &[]).ok();
            let seen = pod.enter("many", &["/probe", "ls", "/many"]).ok();
            assert_eq!(seen.split_whitespace().count(), count + 1, "{making:?}");
            assert_eq!(pod.enter("many", &["/probe", "cat", "/many/last"]).ok(), (count - 1).to_string());
            pod.end();
        }
        podctl.ok(&["image", "verify"]);
        podctl.ok(&["image", "rm", "many"]);
    }
    assert_eq!(names(&podctl.data.join("layers")), Vec::<String>::new());
    Ok(())
}

/// Counts its system calls, which do not depend on the speed of the machine.
fn an_app_costs_the_same_on_many_layers(t: &Context) -> Verdict {
    let (mut all, mut some) = (Vec::new(), Vec::new());
    for number in 0..400 {
        all.push((format!("many/{number}"), "x"));
        some.push((format!("many/{number}"), "x"));
        if some.len() == 20 {
            let files: Vec<(&str, &str)> = some.iter().map(|(name, text)| (name.as_str(), *text)).collect();
            tree(t, &format!("deep-{}", number / 20), &files);
            some.clear();
        }
    }
    let files: Vec<(&str, &str)> = all.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let flat = [tree(t, "flat", &files)];
    let deep: Vec<PathBuf> = (0..20).map(|number| t.dir.join(format!("trees/deep-{number}"))).collect();
    let scratch = t.dir.join("image");
    // In the second data directory, the names of twenty layers do not fit the options of one mount.
    for data in ["data".to_owned(), "a-long-name-".repeat(20)] {
        let podctl = Podctl::new(&dist().join("podctl"), &t.dir.join(data), &t.dir);
        import(t, &podctl, "flat", &OciImage::stack(&scratch, &flat));
        import(t, &podctl, "deep", &OciImage::stack(&scratch, &deep));
        assert_eq!(names(&podctl.data.join("layers")).len(), 22);
        for making in [&[][..], &["--private-users"]] {
            let pod = podctl.pod(making);
            // The smallest count of several runs: the choice of checked files differs from run to run.
            let cost = |image: &str| {
                let count = |_| {
                    let cost = tracer::count(&podctl.command(&["app", "add", &pod.uuid, image]), true, Points::Every);
                    pod.app("rm", image, &[]).ok();
                    cost
                };
                (0..4).map(count).min().unwrap_or_default()
            };
            let (flat, deep) = (cost("flat"), cost("deep"));
            assert!(deep * 100 < flat * 125, "{making:?}: {deep} system calls for twenty layers, {flat} for one");
            pod.end();
        }
    }
    Ok(())
}

/// Archives of a builder that does not describe directories.
fn layers_that_need_those_below(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let scratch = t.dir.join("image");
    fs::create_dir_all(&scratch)?;
    let layer = tree(t, "bare", &[("tmp/deep/file", "x"), ("data/more", "y")]);
    let mut image = OciImage::stack(&scratch, &[]);
    image.add_files(&scratch, &layer, &["tmp/deep/file", "data/more"]);
    import(t, &podctl, "bare", &image);
    let pod = podctl.pod(&[]);
    pod.try_add("bare", "bare", &[], &["sleep", "inf"]).ok();
    pod.app("start", "bare", &[]).ok();
    let stat: Value = serde_json::from_str(&pod.enter("bare", &["/probe", "stat", "/tmp"]).ok())?;
    assert_eq!(stat["mode"], "0777", "the lower layer says it: {stat}");
    assert_eq!(pod.enter("bare", &["/probe", "cat", "/data/kept"]).ok(), "from the image");
    assert_eq!(pod.enter("bare", &["/probe", "cat", "/data/more"]).ok(), "y");
    pod.end();
    podctl.ok(&["image", "verify"]);
    Ok(())
}
