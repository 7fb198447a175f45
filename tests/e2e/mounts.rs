//! Mounts in an app, further cases: precedence, devices, targets, and what the host mounts later.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::image;
use tests::process::wait_for;

tests::cases! {
    native what_decides_whether_a_volume_is_read_only;
    native a_target_is_taken_once;
    native targets_through_links_of_the_image;
    native a_read_only_root_has_writable_volumes;
    native later_mounts_of_the_host;
    native mounts_travel_as_is_asked;
    both devices_are_those_it_was_given;
    native an_empty_volume_of_any_mode_and_owner;
    native volumes_of_the_app_alone;
}

const NONE: Option<&str> = None;

/// Read-only of the volume, of the mount point, and the result: the volume's takes precedence.
const PRECEDENCE: [(Option<bool>, Option<bool>, bool); 8] = [
    (None, None, false),
    (None, Some(false), false),
    (None, Some(true), true),
    (Some(false), None, false),
    (Some(false), Some(true), false),
    (Some(true), None, true),
    (Some(true), Some(false), true),
    (Some(true), Some(true), true),
];

fn what_decides_whether_a_volume_is_read_only(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("file"), "x")?;
    let mut volumes = Vec::new();
    let mut points = Vec::new();
    for (nth, (volume, point, _)) in PRECEDENCE.iter().enumerate() {
        let read_only = volume.map_or(String::new(), |word| format!(",readOnly={word}"));
        volumes.push(format!("--volume=v{nth},kind=host,source={}{read_only}", source.display()));
        if let Some(word) = point {
            points.push(json!({"name": format!("v{nth}"), "path": format!("/v{nth}"), "readOnly": word}));
        }
    }
    podctl.import_with("points", &json!({ "mountPoints": points }));
    let pod = podctl.pod(&volumes.iter().map(String::as_str).collect::<Vec<_>>());
    // Mounts given by options, without a mount point in the image, and with one for every other volume.
    let by_hand = |nth: &usize| PRECEDENCE[*nth].1.is_none() || nth.is_multiple_of(2);
    let mounts: Vec<String> =
        (0..PRECEDENCE.len()).filter(by_hand).map(|nth| format!("--mount=volume=v{nth},target=/v{nth}")).collect();
    pod.try_add("points", "one", &mounts.iter().map(String::as_str).collect::<Vec<_>>(), &["sleep", "inf"]).ok();
    pod.app("start", "one", &[]).ok();
    for (nth, (volume, point, read_only)) in PRECEDENCE.iter().enumerate() {
        let outcome = pod.enter("one", &["/probe", "open", "w", &format!("/v{nth}/file")]).ok();
        assert_eq!(outcome == "EROFS", *read_only, "volume {volume:?}, mount point {point:?}: {outcome}");
    }
    pod.end();
    Ok(())
}

fn a_target_is_taken_once(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--volume=a,kind=empty", "--volume=b,kind=empty"]);
    for (mounts, why) in [
        (["--mount=volume=a,target=/x", "--mount=volume=b,target=/x"], "two volumes"),
        (["--mount=volume=a,target=/x", "--mount=volume=b,target=//x/."], "two volumes"),
        (["--mount=volume=a,target=/x", "--mount=volume=a,target=/x/"], "two volumes"),
        (["--mount=volume=a,target=/", "--mount=volume=b,target=/y"], "root"),
        (["--mount=volume=a,target=/x/../y", "--mount=volume=b,target=/y"], "two volumes"),
        (["--mount=volume=a,target=y", "--mount=volume=b,target=/y"], "two volumes"),
        (["--mount=volume=a,target=/x/..", "--mount=volume=b,target=/y"], "root"),
        (["--mount=volume=a,target=/up/srv", "--mount=volume=b,target=/srv"], "two volumes"),
        (["--mount=volume=c,target=/x", "--mount=volume=b,target=/y"], "no volume c"),
    ] {
        let complaint = pod.try_add("probe", "one", &mounts, &["sleep", "inf"]).complaint();
        assert!(complaint.contains(why), "{mounts:?}: {complaint}");
        assert!(pod.manifest_apps().is_empty());
    }
    // The same volume twice, and one below another, the outer one first.
    let mounts = [
        "--mount=volume=a,target=/x",
        "--mount=volume=a,target=/y",
        "--mount=volume=a,target=/outer",
        "--mount=volume=b,target=/outer/inner",
    ];
    pod.add("one", &mounts, &["sleep", "inf"]);
    pod.enter("one", &["/probe", "write", "/x/word", "a", "+", "write", "/outer/inner/word", "b"]).ok();
    for (path, wanted) in [("/y/word", "a"), ("/outer/word", "a"), ("/outer/inner/word", "b")] {
        assert_eq!(pod.enter("one", &["/probe", "cat", path]).ok(), wanted, "{path}");
    }
    pod.end();
    Ok(())
}

fn targets_through_links_of_the_image(t: &Context) -> Verdict {
    let root = t.dir.join("linked-root");
    image::rootfs(&root);
    let outside = t.dir.join("outside");
    fs::create_dir(&outside)?;
    for (name, to) in [
        ("absolute", outside.display().to_string()),
        ("dangling", "/not/there/yet".to_owned()),
        ("relative", "data".to_owned()),
        ("proc-root", "/proc/1/root".to_owned()),
        ("loop", "loop".to_owned()),
        ("file-link", "../../../../etc/passwd".to_owned()),
    ] {
        symlink(to, root.join(name))?;
    }
    let podctl = t.podctl();
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "linked", "--exec", "/probe"]);
    let (dir, file) = (t.dir.join("dir"), t.dir.join("file"));
    fs::create_dir(&dir)?;
    fs::write(dir.join("word"), "lent")?;
    fs::write(&file, "a file")?;
    let pod = podctl.pod(&[
        &format!("--volume=dir,kind=host,source={}", dir.display()),
        &format!("--volume=file,kind=host,source={}", file.display()),
    ]);
    // Links in the image mean paths in the image.
    for (target, path) in [
        ("volume=dir,target=/absolute", format!("{}/word", outside.display())),
        ("volume=dir,target=/absolute/below", format!("{}/below/word", outside.display())),
        ("volume=dir,target=/dangling", "/not/there/yet/word".to_owned()),
        ("volume=dir,target=/relative", "/data/word".to_owned()),
        ("volume=dir,target=/up/srv", "/srv/word".to_owned()),
        ("volume=file,target=/file-link", "/etc/passwd".to_owned()),
    ] {
        pod.try_add("linked", "one", &[&format!("--mount={target}")], &["sleep", "inf"]).ok();
        let wanted = if target.starts_with("volume=file") { "a file" } else { "lent" };
        assert_eq!(pod.enter("one", &["/probe", "cat", &path]).ok(), wanted, "{target}");
        pod.app("rm", "one", &[]).ok();
    }
    for target in ["/loop", "/probe/below"] {
        pod.try_add("linked", "one", &[&format!("--mount=volume=dir,target={target}")], &["sleep", "inf"]).complaint();
    }
    // A path through the /proc of the process that assembles the app leads to nothing of the host or the pod.
    let out = pod.try_add("linked", "one", &["--mount=volume=dir,target=/proc-root/opt"], &["sleep", "inf"]);
    if out.code != Some(0) {
        out.complaint();
    }
    assert!(!Path::new("/opt/word").exists() && fs::read_dir(&outside)?.count() == 0, "a link led out of the image");
    assert!(fs::read_to_string("/etc/passwd")?.contains("root"));
    pod.end();
    Ok(())
}

fn a_read_only_root_has_writable_volumes(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--volume=own,kind=empty"]);
    pod.add("one", &["--readonly-rootfs", "--mount=volume=own,target=/data/own"], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    for (path, wanted) in [("/data/kept", "EROFS"), ("/etc/passwd", "EROFS"), ("/dev/null", "ok")] {
        assert_eq!(pod.enter("one", &["/probe", "open", "w", path]).ok(), wanted, "{path}");
    }
    for path in ["/data/own/new", "/out/new", "/dev/shm/new"] {
        assert_eq!(pod.enter("one", &["/probe", "write", path, "x", "+", "cat", path]).ok(), "x", "{path}");
    }
    for path in ["/new", "/tmp/new", "/run/new"] {
        assert_eq!(pod.enter("one", &["/probe", "write", path, "x"]).code, Some(1), "{path}");
    }
    pod.end();
    Ok(())
}

/// A running pod, on a host whose mounts are all shared, as its init may have made them.
fn later_mounts_of_the_host(t: &Context) -> Verdict {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE)?;
    let source = t.dir.join("source");
    fs::create_dir_all(source.join("later"))?;
    let podctl = t.podctl();
    let at = source.display();
    let pod = podctl.pod(&[
        &format!("--volume=deep,kind=host,source={at}"),
        &format!("--volume=flat,kind=host,source={at},recursive=false"),
        &format!("--volume=fixed,kind=host,source={at},readOnly=true"),
    ]);
    let mounts = ["deep", "flat", "fixed"].map(|name| format!("--mount=volume={name},target=/{name}"));
    let mut options: Vec<&str> = mounts.iter().map(String::as_str).collect();
    options.push("--caps-retain=CAP_SYS_ADMIN,CAP_DAC_OVERRIDE");
    pod.add("one", &options, &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let cat = |path: &str| pod.enter("one", &["/probe", "cat", path]).stdout;
    mount(Some("none"), &source.join("later"), Some("tmpfs"), MsFlags::empty(), NONE)?;
    fs::write(source.join("later/word"), "mounted later")?;
    // It appears where mounts below are propagated and can be written, and nowhere else.
    assert_eq!(cat("/deep/later/word"), "mounted later");
    for path in ["/flat/later/word", "/fixed/later/word"] {
        assert_eq!(pod.enter("one", &["/probe", "cat", path]).code, Some(1), "{path}");
    }
    umount2(&source.join("later"), MntFlags::empty()).map_err(|e| format!("the host's mount is busy: {e}"))?;
    assert_eq!(pod.enter("one", &["/probe", "ls", "/deep/later"]).ok(), "");
    // An app's own mounts, if it may make them, stay its own.
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    let inside = pod.enter("one", &["/probe", "syscall", "mount", "+", "cat", "/proc/self/mountinfo"]).ok();
    assert!(inside.starts_with("ok\n") && inside.lines().any(|line| line.contains(" /tmp ")), "{inside}");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo")?.lines().count(), before.lines().count());
    let pods = fs::read_to_string(format!("/proc/{}/mountinfo", pod.pid()))?;
    assert!(!pods.contains("/deep") && !pods.contains("/fixed"), "{pods}");
    pod.end();
    Ok(())
}

fn mounts_travel_as_is_asked(t: &Context) -> Verdict {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SHARED, NONE)?;
    let (source, lonely) = (t.dir.join("source"), t.dir.join("lonely"));
    for dir in ["below", "later", "private", "slave", "shared"] {
        fs::create_dir_all(source.join(dir))?;
    }
    fs::create_dir(&lonely)?;
    mount(Some("none"), &source.join("below"), Some("tmpfs"), MsFlags::empty(), NONE)?;
    mount(Some("none"), &lonely, Some("tmpfs"), MsFlags::empty(), NONE)?;
    mount(NONE, &lonely, NONE, MsFlags::MS_PRIVATE, NONE)?;
    let podctl = t.podctl();
    let at = source.display();
    let pod = podctl.pod(&[&format!("--volume=pods,kind=host,source={at},propagation=private")]);
    let binds = [
        format!("-v{at}:/private:private"),
        format!("-v{at}:/slave:rslave"),
        format!("-v{at}:/shared:shared"),
        format!("-v{at}:/all:ro"),
        format!("-v{at}:/top:ro,bind-recursive=writable,slave"),
    ];
    let mut options: Vec<&str> = binds.iter().map(String::as_str).collect();
    options.extend(["--mount=volume=pods,target=/pods", "--caps-retain=CAP_SYS_ADMIN,CAP_DAC_OVERRIDE"]);
    pod.add("one", &options, &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    // read-only with what is mounted below, or without
    let open = |path: &str| pod.enter("one", &["/probe", "write", path, "x"]).code;
    for (path, is_writable) in
        [("/all/x", false), ("/all/below/x", false), ("/top/x", false), ("/top/below/x", true), ("/slave/x", true)]
    {
        assert_eq!(open(path) == Some(0), is_writable, "{path}");
    }
    // what the host mounts later
    mount(Some("none"), &source.join("later"), Some("tmpfs"), MsFlags::empty(), NONE)?;
    fs::write(source.join("later/word"), "mounted later")?;
    for (name, comes) in
        [("private", false), ("pods", false), ("all", false), ("slave", true), ("shared", true), ("top", true)]
    {
        let found = pod.enter("one", &["/probe", "ls", &format!("/{name}/later")]).ok();
        assert_eq!(found == "word", comes, "{name}: {found:?}");
    }
    // what the app mounts
    let mounted = || fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    for name in ["private", "slave", "shared"] {
        pod.enter("one", &["/probe", "mount", &format!("/{name}/{name}")]).ok();
        assert_eq!(mounted().contains(&format!("{at}/{name} ")), name == "shared", "{name}");
    }
    // where nothing can travel, it is said
    let lonely = lonely.display();
    for (bind, why) in [
        (format!("-v{lonely}:/x:shared"), "is not shared on the host"),
        (format!("-v{lonely}:/x:slave"), "is not shared or slave on the host"),
    ] {
        let complaint = pod.try_add("probe", "two", &[&bind], &["sleep", "inf"]).complaint();
        assert!(complaint.contains(why), "{complaint}");
    }
    pod.end();
    umount2(&source.join("shared"), MntFlags::empty()).map_err(|e| format!("the app's mount on the host: {e}"))?;
    Ok(())
}

/// Device numbers for experiments, which no driver has: an allowed open gives ENXIO, another one EPERM.
const MAJOR: u64 = 60;

fn devices_are_those_it_was_given(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let mut volumes = Vec::new();
    for (name, kind, minor) in
        [("rw", SFlag::S_IFCHR, 1), ("ro", SFlag::S_IFCHR, 2), ("blk", SFlag::S_IFBLK, 3), ("blkro", SFlag::S_IFBLK, 4)]
    {
        let path = t.dir.join(name);
        mknod(&path, kind, Mode::from_bits_truncate(0o600), makedev(MAJOR, minor))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        let read_only = if name.ends_with("ro") { ",readOnly=true" } else { "" };
        volumes.push(format!("--volume={name},kind=host,source={}{read_only}", path.display()));
    }
    // A device in a shared directory that was not itself asked for.
    let lent = t.dir.join("lent");
    fs::create_dir(&lent)?;
    mknod(&lent.join("other"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(MAJOR, 5))?;
    volumes.push(format!("--volume=lent,kind=host,source={}", lent.display()));
    let pod = podctl.pod(&volumes.iter().map(String::as_str).collect::<Vec<_>>());
    let options = [
        "--mount=volume=rw,target=/dev/given",
        "--mount=volume=ro,target=/dev/fixed",
        "--mount=volume=blk,target=/disks/one",
        "--mount=volume=blkro,target=/disks/two",
        "--mount=volume=lent,target=/lent",
    ];
    pod.add("one", &options, &["sleep", "inf"]);
    pod.add("two", &["--mount=volume=lent,target=/lent"], &["sleep", "inf"]);
    for app in ["one", "two"] {
        pod.app("start", app, &[]).ok();
    }
    let open = |app: &str, how: &str, path: &str| pod.enter(app, &["/probe", "open", how, path]).ok();
    for (path, read, write) in [
        ("/dev/given", "ENXIO", "ENXIO"),
        ("/dev/fixed", "ENXIO", "EPERM"),
        ("/disks/one", "ENXIO", "ENXIO"),
        ("/disks/two", "ENXIO", "EPERM"),
        ("/lent/other", "EPERM", "EPERM"),
        ("/dev/null", "ok", "ok"),
        ("/dev/zero", "ok", "ok"),
        ("/dev/full", "ok", "ok"),
        ("/dev/urandom", "ok", "ok"),
        ("/dev/ptmx", "ok", "ok"),
    ] {
        assert_eq!((open("one", "r", path).as_str(), open("one", "w", path).as_str()), (read, write), "{path}");
    }
    assert_eq!(open("two", "r", "/lent/other"), "EPERM");
    // Nor can the app make a device node, although it has CAP_MKNOD.
    assert_eq!(pod.enter("one", &["/probe", "syscall", "mknod-disk"]).ok(), "EPERM");
    assert_eq!(pod.enter("one", &["/probe", "syscall", "mknod"]).ok(), "ok");
    let stat: Value = serde_json::from_str(&pod.enter("one", &["/probe", "stat", "/disks/one"]).ok())?;
    assert_eq!((stat["kind"].as_str(), stat["device"].as_str()), (Some("block"), Some("60:3")), "{stat}");
    // An entered command may use the same devices as the app's command.
    pod.run_app("self", &["--mount=volume=ro,target=/dev/fixed"], &["write", "/out/began", "x"]);
    pod.end();
    Ok(())
}

fn an_empty_volume_of_any_mode_and_owner(t: &Context) -> Verdict {
    let table = [
        ("plain", "", "0755", 0, 0),
        ("sticky", ",mode=1777", "1777", 0, 0),
        ("setgid", ",mode=2770,gid=2001", "2770", 0, 2001),
        ("closed", ",mode=0,uid=1001", "0000", 1001, 0),
        ("owned", ",mode=0700,uid=65534,gid=65534", "0700", 65534, 65534),
    ];
    let podctl = t.podctl();
    let volumes: Vec<String> =
        table.iter().map(|(name, more, ..)| format!("--volume={name},kind=empty{more}")).collect();
    let pod = podctl.pod(&volumes.iter().map(String::as_str).collect::<Vec<_>>());
    let mounts: Vec<String> =
        table.iter().map(|(name, ..)| format!("--mount=volume={name},target=/v/{name}")).collect();
    pod.add("one", &mounts.iter().map(String::as_str).collect::<Vec<_>>(), &["sleep", "inf"]);
    for (name, _, mode, uid, gid) in table {
        let stat: Value = serde_json::from_str(&pod.enter("one", &["/probe", "stat", &format!("/v/{name}")]).ok())?;
        let seen = (stat["mode"].as_str(), stat["uid"].as_u64(), stat["gid"].as_u64());
        assert_eq!(seen, (Some(mode), Some(uid), Some(gid)), "{name}: {stat}");
    }
    pod.end();
    Ok(())
}

/// A volume that is part of a mount, which only manifests have: rkt's `--mount` of an app writes it.
fn volumes_of_the_app_alone(t: &Context) -> Verdict {
    let host = t.minihost();
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("word"), "lent")?;
    let (mut pod, monitor) = host.boot(&json!([{"name": "data", "kind": "empty"}]), &["--net=none"]);
    let own = json!({"name": "data", "kind": "host", "source": source.display().to_string(), "readOnly": true});
    let mounts = json!([
        {"volume": "data", "path": "/own", "appVolume": own},
        {"volume": "data", "path": "/pods"},
    ]);
    pod.add("one", &["/probe", "cat", "/own/word", "+", "write", "/pods/word", "x", "+", "sleep", "inf"], &mounts);
    pod.start_app("one").ok();
    let enter = |words: &[&str]| tests::process::run(&mut pod.enter(Some("one"), words));
    wait_for("the app", 10, || (enter(&["/probe", "cat", "/pods/word"]).stdout == "x").then_some(()));
    assert_eq!(enter(&["/probe", "cat", "/own/word"]).ok(), "lent");
    assert_eq!(enter(&["/probe", "open", "w", "/own/word"]).ok(), "EROFS");
    pod.rm("one");
    pod.stop(true, monitor);
    pod.collect(1);
    Ok(())
}
