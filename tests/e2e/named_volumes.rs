//! Named volumes: they outlive pods, start with the image's content, and are not removed while a pod uses them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};

tests::cases! {
    native a_named_volume_outlives_its_pods_and_is_kept_from_removal;
    native with_ids_of_its_own_a_pod_shares_a_volume_with_others;
    native what_only_an_image_asks_for_goes_with_the_app;
}

fn path_of(podctl: &Podctl, volume: &str) -> String {
    let described = podctl.json(&["volume", "inspect", volume]);
    described[0]["path"].as_str().expect("path").to_owned()
}

/// `uid:gid` of a path of the host.
fn owner(path: impl AsRef<Path>) -> String {
    let stat = fs::metadata(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()));
    format!("{}:{}", stat.uid(), stat.gid())
}

#[track_caller]
fn run(pod: &Pod, app: &str, options: &[&str], actions: &[&str]) {
    pod.run_app(app, options, actions);
}

fn a_named_volume_outlives_its_pods_and_is_kept_from_removal(t: &Context) -> Verdict {
    let podctl = t.podctl();
    assert_eq!(podctl.ok(&["volume", "create", "made", "--label", "team=shop"]), "made");
    assert!(podctl.fails(&["volume", "create", "made"]).contains("there is a volume made already"));
    podctl.ok(&["volume", "create", "made", "--ignore"]);
    assert_eq!(podctl.json(&["volume", "inspect", "made"])[0]["labels"], json!({ "team": "shop" }));

    // the first content, with its owners, is the image's
    let pod = podctl.pod(&["--name=shop"]);
    run(&pod, "first", &["-v", "data:/data"], &["write", "/data/new", "of the app"]);
    let data = path_of(&podctl, "data");
    assert_eq!(fs::read_to_string(Path::new(&data).join("kept"))?, "from the image\n");
    assert_eq!(owner(Path::new(&data).join("owned")), "1234:2345");
    assert_eq!(fs::read_to_string(Path::new(&data).join("new"))?, "of the app");
    // later apps see the existing content, and a read-only mount can't be written
    pod.add("second", &["-v", "data:/home:ro"], &["sleep", "inf"]);
    podctl.ok(&["app", "start", "shop", "second"]);
    assert_eq!(pod.enter("second", &["/probe", "cat", "/home/new"]).ok(), "of the app");
    assert_eq!(pod.enter("second", &["/probe", "ls", "/home"]).ok().lines().count(), 3, "nothing of the image's /home");
    assert_eq!(pod.enter("second", &["/probe", "open", "w", "/home/new"]).ok(), "EROFS");

    // the users of a volume
    let line = podctl.fails(&["volume", "rm", "data"]);
    assert!(line.contains("volume data is in use by pod shop (app second)"), "{line}");
    assert_eq!(podctl.ok(&["volume", "prune"]), "made");
    let listed = podctl.ok(&["volume", "list"]);
    assert!(listed.lines().any(|line| line.starts_with("data") && line.ends_with("shop")), "{listed}");
    assert_eq!(podctl.ok(&["volume", "ls", "-q"]), "data");
    podctl.ok(&["stop", "shop"]);
    assert!(podctl.fails(&["volume", "rm", "data"]).contains("in use by pod shop"), "it has ended, but is there");
    podctl.ok(&["rm", "shop"]);

    // of another pod, made with its apps
    let out = format!("{}:/out", podctl.out().display());
    let words = ["run", "--rm", "--net=none", "-v", "data:/data", "-v", &out, "probe", "--exec=/probe", "--"];
    podctl.ok(&[&words[..], &["write", "/data/again", "of the next"]].concat());
    assert_eq!(fs::read_to_string(Path::new(&data).join("again"))?, "of the next");
    assert_eq!(fs::read_to_string(Path::new(&data).join("new"))?, "of the app");
    podctl.ok(&["volume", "rm", "data"]);
    assert!(!Path::new(&data).exists());
    assert!(podctl.fails(&["volume", "rm", "data"]).contains("there is no volume data"));
    assert_eq!(fs::read_dir(podctl.data.join("volumes"))?.count(), 0);
    Ok(())
}

fn with_ids_of_its_own_a_pod_shares_a_volume_with_others(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--private-users=auto", "--net=none"]);
    run(&pod, "mapped", &["-v", "data:/data"], &["write", "/data/new", "x"]);
    let data = path_of(&podctl, "data");
    // with ids that the pod sees: the content of others is the same
    assert_eq!(owner(Path::new(&data).join("owned")), "1234:2345");
    assert_eq!(owner(Path::new(&data).join("new")), "0:0");
    assert_eq!(owner(&data), "0:0");
    pod.add("reads", &["-v", "data:/data"], &["sleep", "inf"]);
    podctl.ok(&["app", "start", &pod.uuid, "reads"]);
    let stat: Value = serde_json::from_str(&pod.enter("reads", &["/probe", "stat", "/data/owned"]).ok())?;
    assert_eq!((stat["uid"].as_u64(), stat["gid"].as_u64()), (Some(1234), Some(2345)), "{stat}");
    let plain = podctl.pod(&["--net=none"]);
    plain.add("reads", &["-v", "data:/data"], &["sleep", "inf"]);
    podctl.ok(&["app", "start", &plain.uuid, "reads"]);
    let stat: Value = serde_json::from_str(&plain.enter("reads", &["/probe", "stat", "/data/owned"]).ok())?;
    assert_eq!((stat["uid"].as_u64(), stat["gid"].as_u64()), (Some(1234), Some(2345)), "{stat}");
    assert_eq!(podctl.json(&["volume", "inspect", "data"])[0]["used_by"].as_array().map(Vec::len), Some(2));
    plain.end();
    pod.end();
    Ok(())
}

fn what_only_an_image_asks_for_goes_with_the_app(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_with("asks", &json!({ "mountPoints": [{ "name": "state", "path": "/home" }] }));
    let pod = podctl.pod(&["--name=shop"]);
    let add = |actions: &[&str]| pod.try_add("asks", "db", &[], actions).ok();
    let own = pod.dir().join("sharedVolumes/db-implicit-0");
    let rm = |more: &[&str]| podctl.ok(&[&["app", "rm", "shop", "db"], more].concat());

    add(&["write", "/home/word", "kept"]);
    podctl.ok(&["app", "start", "shop", "db"]);
    assert_eq!(pod.exit_code("db"), 0);
    let listed = podctl.ok(&["volume", "list"]);
    assert!(listed.contains("db-implicit-0") && listed.contains("shop/db"), "{listed}");
    rm(&["--keep-volumes"]);
    assert_eq!(fs::read_to_string(own.join("word"))?, "kept");
    add(&["cat", "/home/word"]);
    podctl.ok(&["app", "start", "shop", "db"]);
    assert_eq!(pod.exit_code("db"), 0, "the next app of the name has it");
    rm(&[]);
    assert!(!own.exists(), "it went with the app");
    add(&["cat", "/home/word"]);
    podctl.ok(&["app", "start", "shop", "db"]);
    assert_ne!(pod.exit_code("db"), 0, "it is new");
    rm(&[]);
    pod.end();
    Ok(())
}
