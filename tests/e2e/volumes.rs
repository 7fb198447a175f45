//! Volumes: shared and private ones, read-only ones.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::process::{mountinfo, wait_for};

tests::cases! {
    both an_empty_volume_is_shared_by_apps;
    native an_empty_volume_has_the_mode_and_owner_asked_for;
    native a_host_volume_can_be_read_only;
    native mounts_below_a_host_volume;
    native files_and_targets_of_every_kind;
    native mount_points_of_the_image;
    native nothing_propagates_from_a_shared_root;
}

fn an_empty_volume_is_shared_by_apps(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--volume=shared,kind=empty"]);
    let shared = ["--mount=volume=shared,target=/shared"];
    pod.add("writer", &shared, &["write", "/shared/word", "spoken", "+", "sleep", "inf"]);
    pod.add("reader", &shared, &["wait", "/shared/word", "+", "report", "/out/reader.json", "+", "sleep", "inf"]);
    pod.app("start", "reader", &[]).ok();
    pod.app("start", "writer", &[]).ok();
    pod.read("reader");
    assert_eq!(pod.enter("reader", &["/probe", "cat", "/shared/word"]).ok(), "spoken");
    let kept = pod.dir().join("sharedVolumes/shared/word");
    assert_eq!(fs::read_to_string(&kept).map_err(|e| format!("{}: {e}", kept.display()))?, "spoken");
    // It outlives the app that filled it.
    pod.app("stop", "writer", &[]).ok();
    pod.app("rm", "writer", &[]).ok();
    assert_eq!(pod.enter("reader", &["/probe", "cat", "/shared/word"]).ok(), "spoken");
    pod.end();
    Ok(())
}

fn an_empty_volume_has_the_mode_and_owner_asked_for(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--volume=own,kind=empty,mode=0750,uid=1001,gid=2001", "--volume=plain,kind=empty"]);
    let options = ["--mount=volume=own,target=/own", "--mount=volume=plain,target=/plain"];
    pod.add("one", &options, &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let stat = |path: &str| -> Value {
        serde_json::from_str(&pod.enter("one", &["/probe", "stat", path]).ok()).expect("stat")
    };
    let own = stat("/own");
    assert_eq!(
        (own["mode"].as_str(), own["uid"].as_u64(), own["gid"].as_u64()),
        (Some("0750"), Some(1001), Some(2001)),
        "{own}"
    );
    let plain = stat("/plain");
    assert_eq!(
        (plain["mode"].as_str(), plain["uid"].as_u64(), plain["gid"].as_u64()),
        (Some("0755"), Some(0), Some(0)),
        "{plain}"
    );
    pod.end();
    Ok(())
}

fn a_host_volume_can_be_read_only(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("file"), "of the host")?;
    let pod = podctl.pod(&[
        &format!("--volume=ro,kind=host,source={},readOnly=true", source.display()),
        &format!("--volume=rw,kind=host,source={}", source.display()),
    ]);
    pod.add("one", &["--mount=volume=ro,target=/ro", "--mount=volume=rw,target=/rw"], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.enter("one", &["/probe", "cat", "/ro/file"]).ok(), "of the host");
    assert_eq!(pod.enter("one", &["/probe", "open", "w", "/ro/file"]).ok(), "EROFS");
    assert_eq!(pod.enter("one", &["/probe", "open", "w", "/rw/file"]).ok(), "ok");
    pod.enter("one", &["/probe", "write", "/rw/new", "of the app"]).ok();
    assert_eq!(fs::read_to_string(source.join("new"))?, "of the app");
    assert_eq!(pod.enter("one", &["/probe", "cat", "/ro/new"]).ok(), "of the app");
    pod.end();
    assert_eq!(fs::read_to_string(source.join("file"))?, "of the host", "removing the pod removed what it was lent");
    Ok(())
}

fn mounts_below_a_host_volume(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let source = t.dir.join("source");
    let inner = source.join("inner");
    fs::create_dir_all(&inner)?;
    mount(Some("none"), &inner, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(inner.join("file"), "below")?;
    let at = source.display();
    let pod = podctl.pod(&[
        &format!("--volume=deep,kind=host,source={at},recursive=true"),
        &format!("--volume=flat,kind=host,source={at},recursive=false"),
        &format!("--volume=deepro,kind=host,source={at},recursive=true,readOnly=true"),
    ]);
    let options = [
        "--mount=volume=deep,target=/deep",
        "--mount=volume=flat,target=/flat",
        "--mount=volume=deepro,target=/deepro",
    ];
    pod.add("one", &options, &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.enter("one", &["/probe", "cat", "/deep/inner/file"]).ok(), "below");
    assert_eq!(pod.enter("one", &["/probe", "open", "w", "/deep/inner/file"]).ok(), "ok");
    assert_eq!(pod.enter("one", &["/probe", "ls", "/flat/inner"]).ok(), "");
    assert_eq!(pod.enter("one", &["/probe", "cat", "/deepro/inner/file"]).ok(), "below");
    assert_eq!(
        pod.enter("one", &["/probe", "open", "w", "/deepro/inner/file"]).ok(),
        "EROFS",
        "read-only all the way down"
    );
    pod.end();
    umount2(&inner, MntFlags::empty()).map_err(|e| format!("the host's own mount is busy: {e}"))?;
    Ok(())
}

fn files_and_targets_of_every_kind(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let (file, dir) = (t.dir.join("file"), t.dir.join("dir"));
    fs::write(&file, "a file of the host")?;
    fs::create_dir(&dir)?;
    fs::write(dir.join("in"), "in a directory of the host")?;
    let socket = t.dir.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket)?;
    let pod = podctl.pod(&[
        &format!("--volume=file,kind=host,source={}", file.display()),
        &format!("--volume=dir,kind=host,source={}", dir.display()),
        &format!("--volume=socket,kind=host,source={}", socket.display()),
    ]);
    let options = [
        "--mount=volume=file,target=/over/this",       // an existing file
        "--mount=volume=file,target=/new/parent/file", // nothing there yet
        "--mount=volume=dir,target=/data",             // an existing directory with contents
        "--mount=volume=dir,target=/escape/below",     // through a link that points out of the image
        "--mount=volume=socket,target=/run/its.sock",
    ];
    let host = fs::metadata("/etc")?.mtime();
    pod.add("one", &options, &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let cat = |path: &str| pod.enter("one", &["/probe", "cat", path]).ok();
    assert_eq!(cat("/over/this"), "a file of the host");
    assert_eq!(cat("/new/parent/file"), "a file of the host");
    assert_eq!(cat("/data/in"), "in a directory of the host");
    assert_eq!(cat("/etc/below/in"), "in a directory of the host");
    let stat: Value = serde_json::from_str(&pod.enter("one", &["/probe", "stat", "/run/its.sock"]).ok())?;
    assert_eq!(stat["kind"], "socket");
    assert!(!std::path::Path::new("/etc/below").exists(), "the link led to the host");
    assert_eq!(fs::metadata("/etc")?.mtime(), host, "the host's /etc was touched");
    pod.app("stop", "one", &[]).ok();
    pod.app("rm", "one", &[]).ok();
    assert_eq!(fs::read_to_string(&file)?, "a file of the host");
    pod.end();
    Ok(())
}

fn mount_points_of_the_image(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let points = json!([{"name": "out", "path": "/out"}, {"name": "data", "path": "/data"}, {"name": "fixed", "path": "/fixed", "readOnly": true}]);
    podctl.import_with("points", &json!({"mountPoints": points}));
    let mut converted =
        tests::image::manifest("converted", &json!({"mountPoints": [{"name": "data", "path": "/data"}]}));
    converted["annotations"] = json!([{"name": "appc.io/docker/repository", "value": "library/probe"}]);
    podctl.import_manifest("converted", &converted);
    let source = t.dir.join("fixed");
    fs::create_dir(&source)?;
    fs::set_permissions(&source, fs::Permissions::from_mode(0o777))?;
    fs::write(source.join("file"), "x")?;
    let pod = podctl.pod(&[&format!("--volume=fixed,kind=host,source={}", source.display())]);
    // The pod's volume `out` by its name, an implicit empty one for `data`, the mount point's own read-only.
    podctl.ok(&[
        "app",
        "add",
        &pod.uuid,
        "points",
        "--name",
        "points",
        "--exec",
        "/probe",
        "--",
        "write",
        "/out/points",
        "here",
        "+",
        "sleep",
        "inf",
    ]);
    pod.app("start", "points", &[]).ok();
    wait_for("the app's file", 10, || podctl.out().join("points").exists().then_some(()));
    assert_eq!(pod.enter("points", &["/probe", "ls", "/data"]).ok(), "", "the implicit volume is empty");
    assert_eq!(pod.enter("points", &["/probe", "open", "w", "/fixed/file"]).ok(), "EROFS");
    pod.try_add("converted", "converted", &[], &["sleep", "inf"]).ok();
    pod.app("start", "converted", &[]).ok();
    assert_eq!(pod.enter("converted", &["/probe", "cat", "/data/kept"]).ok(), "from the image");
    let stat: Value = serde_json::from_str(&pod.enter("converted", &["/probe", "stat", "/data/owned"]).ok())?;
    assert_eq!((stat["uid"].as_u64(), stat["gid"].as_u64()), (Some(1234), Some(2345)), "{stat}");
    pod.end();
    Ok(())
}

/// A machine whose init has made `/` shared.
fn nothing_propagates_from_a_shared_root(t: &Context) -> Verdict {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE)?;
    let podctl = t.podctl();
    // Other tests' mounts, copied at the unshare, may disappear meanwhile, and their numbers may be used again; only
    // new ones count.
    let ids = || mountinfo("self").into_iter().map(|m| (m[0].clone(), m[4].clone())).collect::<BTreeSet<_>>();
    let before = ids();
    let new = || ids().difference(&before).count();
    let pod = podctl.pod(&["--volume=shared,kind=empty"]);
    assert_eq!(new(), 1, "of the pod's mounts only its root is the host's");
    pod.add("one", &["--mount=volume=shared,target=/shared"], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    assert_eq!(new(), 2, "of the app's mounts only its root is the host's");
    assert_eq!(pod.enter("one", &["/probe", "print", "x"]).ok(), "x");
    pod.app("stop", "one", &[]).ok();
    pod.app("rm", "one", &[]).ok();
    assert_eq!(new(), 1);
    pod.end();
    assert_eq!(new(), 0);
    Ok(())
}
