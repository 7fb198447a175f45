//! Hostile trees: an image with links where podctl looks for files, and an app that changes files while others are
//! added. CVE-2017-1002101, CVE-2018-15664, CVE-2019-14271, CVE-2019-19921, CVE-2021-30465.

use std::fs;
use std::os::unix::fs::symlink;

use tests::harness::Context;
use tests::podctl::pod_file;
use tests::process::{mountinfo, wait_for};
use tests::{Verdict, image};

tests::cases! {
    native links_of_an_image_mean_its_own_files;
    native targets_that_an_app_exchanges 180;
    native parts_of_a_volume_that_an_app_exchanges 180;
}

/// Users, groups, owners, commands, and the files that a pod gives to its apps are all links to files of the host.
fn links_of_an_image_mean_its_own_files(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let outside = t.dir.join("outside");
    fs::create_dir(&outside)?;
    let at = |name: &str| outside.join(name);
    fs::write(at("passwd"), "root:x:0:0::/:/\nhosts:x:4242:4243::/:/\n")?;
    fs::write(at("group"), "root:x:0:\nhosts:x:4243:\n")?;
    fs::write(at("names"), "as they were\n")?;
    fs::copy(image::probe(), at("tool"))?;
    std::os::unix::fs::chown(at("names"), Some(4242), Some(4243))?;
    let root = t.dir.join("linked");
    image::rootfs(&root);
    let up = "../".repeat(16);
    let linked = [
        ("etc/passwd", "passwd"),
        ("etc/group", "group"),
        ("etc/resolv.conf", "names"),
        ("etc/hosts", "names"),
        ("etc/hostname", "names"),
        ("etc/machine-id", "names"),
        ("tool", "tool"),
        ("owner", "names"),
    ];
    for (nth, (name, to)) in linked.into_iter().enumerate() {
        let place = root.join(name);
        if place.exists() {
            fs::remove_file(&place)?;
        }
        // Absolute links, and links with `..`.
        let to = at(to).display().to_string();
        symlink(if nth % 2 == 0 { to } else { format!("{up}{}", &to[1..]) }, &place)?;
    }
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "linked", "--exec", "/probe"]);
    let pod = podctl.pod(&["--dns=192.0.2.1", "--hosts-entry=192.0.2.2=elsewhere"]);
    for options in [["--user=hosts"], ["--group=hosts"], ["--user=/owner"], ["--group=/owner"]] {
        pod.try_add("linked", "bad", &options, &["print", "x"]).complaint();
    }
    pod.try_add("linked", "one", &[], &["sleep", "inf"]).ok();
    pod.app("start", "one", &[]).ok();
    for options in [["--user=hosts"], ["--user=/owner"], ["--group=/owner"]] {
        let words = [&["enter", &pod.uuid, "--app=one"], &options[..], &["--", "/probe", "groups"]].concat();
        // An image may have any owner for a link.
        let out = podctl.run(&words);
        assert!(!out.stdout.contains("424"), "{out}");
    }
    pod.enter("one", &["/tool", "print", "x"]).complaint();
    let words = ["app", "add", &pod.uuid, "linked", "--name=two", "--exec=/tool", "--", "print", "x"];
    podctl.ok(&words);
    assert!(pod.app("start", "two", &[]).code.is_some_and(|code| code != 0), "a program of the host's was executed");
    assert_eq!(fs::read_to_string(at("names"))?, "as they were\n");
    assert_eq!(fs::read_dir(&outside)?.count(), 4);
    pod.end();
    Ok(())
}

/// An app shares a volume with others, which mount further volumes in it; it keeps replacing the directory of such a
/// mount point by a link.
fn targets_that_an_app_exchanges(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let (outside, lent) = (t.dir.join("outside"), t.dir.join("lent"));
    fs::create_dir(&outside)?;
    fs::create_dir(&lent)?;
    fs::write(lent.join("word"), "lent")?;
    let pod = podctl.pod(&[&format!("--volume=lent,kind=host,source={}", lent.display())]);
    let shared = podctl.out();
    fs::create_dir(shared.join("dir"))?;
    // Paths of the host, of the pod, and of the process that assembles the app.
    for (nth, to) in [outside.display().to_string(), "/".to_owned(), "/proc/1/root/run".to_owned()].iter().enumerate() {
        let _ = fs::remove_file(shared.join("link"));
        symlink(to, shared.join("link"))?;
        let (swapper, stop) = (format!("swapper{nth}"), format!("/out/stop{nth}"));
        pod.add(
            &swapper,
            &[],
            &["write", &format!("/out/up{nth}"), "", "+", "exchange", "/out/dir", "/out/link", &stop],
        );
        pod.app("start", &swapper, &[]).ok();
        wait_for("the exchange", 10, || shared.join(format!("up{nth}")).exists().then_some(()));
        for round in 0..12 {
            let target = format!("--mount=volume=lent,target=/out/dir/new{round}");
            let out = pod.try_add("probe", "one", &[&target], &["sleep", "inf"]);
            // The app was added or refused; nothing happened elsewhere.
            for process in ["self".to_owned(), pod.pid().to_string()] {
                let there: Vec<_> = mountinfo(&process).into_iter().filter(|m| m[4].contains("/new")).collect();
                assert!(there.is_empty(), "{to}: {there:?}");
            }
            assert_eq!(fs::read_dir(&outside)?.count(), 0, "{to}: made outside");
            if out.code == Some(0) {
                pod.app("rm", "one", &[]).ok();
            } else {
                out.complaint();
            }
        }
        fs::write(shared.join(format!("stop{nth}")), "")?;
        assert_eq!(pod.exit_code(&swapper), 0);
        pod.app("rm", &swapper, &[]).ok();
        if fs::symlink_metadata(shared.join("dir"))?.is_symlink() {
            fs::rename(shared.join("link"), shared.join("aside"))?;
            fs::rename(shared.join("dir"), shared.join("link"))?;
            fs::rename(shared.join("aside"), shared.join("dir"))?;
        }
    }
    pod.end();
    Ok(())
}

/// An app keeps exchanging a directory of a volume and a link to the host, while `up` mounts a part of the volume at
/// that path in another app.
fn parts_of_a_volume_that_an_app_exchanges(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let (outside, path) = (t.dir.join("outside"), t.dir.join("pod.yaml").display().to_string());
    fs::create_dir_all(outside.join("new"))?;
    fs::write(outside.join("secret"), "of the host")?;
    podctl.ok(&["volume", "create", "shared"]);
    let data = podctl.json(&["volume", "inspect", "shared"])[0]["path"].as_str().expect("path").to_owned();
    let data = std::path::Path::new(&data);
    fs::create_dir_all(data.join("dir/new"))?;
    symlink(&outside, data.join("link"))?;
    let up = |round: usize, attacks: bool| {
        // parts that exist on both sides, or one that exists nowhere: it is made
        let parts = if round.is_multiple_of(2) {
            vec!["dir".into(), "dir/new".into()]
        } else {
            vec![format!("dir/none{round}")]
        };
        let parts =
            parts.iter().map(|part| format!("{{name: v, mountPath: /{}, subPath: {part}}}", part.replace('/', "-")));
        let parts = parts.collect::<Vec<_>>().join(", ");
        let attacker = "  - {name: attacker, image: probe, command: [/probe, write, /v/up, x, +, exchange, /v/dir, \
                        /v/link, /v/stop], volumeMounts: [{name: v, mountPath: /v}]}\n";
        let spec = format!(
            "  restartPolicy: Never\n  containers:\n{}  - {{name: one, image: probe, command: [/probe, sleep, inf], env: [{{name: R, value: \
             \"{round}\"}}], volumeMounts: [{parts}]}}\n  volumes: [{{name: v, persistentVolumeClaim: \
             {{claimName: shared}}}}]\n",
            if attacks { attacker } else { "" }
        );
        fs::write(&path, pod_file("shop", &spec)).expect("write");
        podctl.run(&["up", "-f", &path])
    };
    let mut mounted = 0;
    // On a busy machine nearly all rounds are refused: it goes on until one is not.
    for round in 0..100 {
        if round >= 16 && mounted > 0 {
            break;
        }
        let said = up(round, true);
        wait_for("the exchange", 20, || data.join("up").exists().then_some(()));
        if said.code == Some(0) {
            mounted += 1;
            let pid = podctl.json(&["inspect", "shop", "one"])["pid"].as_i64().expect("pid").to_string();
            let parts: Vec<_> = mountinfo(&pid).into_iter().filter(|mount| mount[4].starts_with("/dir")).collect();
            assert_eq!(parts.len(), if round.is_multiple_of(2) { 2 } else { 1 }, "{parts:?}");
            for mount in &parts {
                assert!(mount[3].contains("/volumes/shared/data"), "{mount:?}");
            }
        }
        let mut there: Vec<_> = fs::read_dir(&outside)?.map(|one| one.expect("entry").file_name()).collect();
        there.sort();
        assert_eq!(there, ["new", "secret"], "made outside of the volume");
        assert_eq!(fs::read_dir(outside.join("new"))?.count(), 0);
    }
    // A round may be refused, for a part that was a link at that moment; without the attacker none is.
    fs::write(data.join("stop"), "")?;
    up(99, false).ok();
    assert!(mounted > 0, "no round has mounted anything");
    podctl.ok(&["down", "--volumes", "-f", &path]);
    Ok(())
}
