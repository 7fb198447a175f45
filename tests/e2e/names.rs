//! Names, hosts, time: the files in an app's /etc, in every mode, with images that have files of their own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::image;
use tests::podctl::{Pod, Podctl};
use tests::process::run;

tests::cases! {
    native resolv_conf_and_hosts_in_every_mode;
    native names_that_another_host_manager_provides;
    native host_names_are_taken_verbatim;
    native an_apps_hosts_file_is_its_own;
    native what_the_image_brings_of_etc;
    native the_machine_id_is_the_pods;
    both ipc_of_its_own_or_the_hosts;
    native the_metadata_service_is_told;
}

const NONE: Option<&str> = None;

/// An /etc of known content for this process and its children: the machine's, with these files changed.
fn own_etc(t: &Context) -> Verdict {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let etc = t.dir.join("host-etc");
    run(Command::new("cp").args(["-a", "/etc"]).arg(&etc)).ok();
    for (name, text) in [("resolv.conf", "host resolv\n"), ("hosts", "host hosts\n"), ("localtime", "host time\n")] {
        let path = etc.join(name);
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path)?;
        }
        fs::write(path, text)?;
    }
    mount(Some(&etc), "/etc", NONE, MsFlags::MS_BIND, NONE)?;
    Ok(())
}

/// An image called `own` with the probe and its own files in /etc.
fn import_own(t: &Context, podctl: &Podctl) {
    let root = t.dir.join("own-root");
    image::rootfs(&root);
    for name in ["resolv.conf", "hosts", "hostname", "localtime", "machine-id", "mtab"] {
        fs::write(root.join("etc").join(name), format!("image {name}\n")).expect(name);
    }
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "own", "--exec", "/probe"]);
}

/// A file as an app sees it; empty if it does not exist.
#[track_caller]
fn seen(pod: &Pod<'_>, app: &str, path: &str) -> Option<String> {
    let out = pod.enter(app, &["/probe", "cat", path]);
    if out.code == Some(0) { Some(out.stdout) } else { None }
}

/// The hosts file of a pod without any option for it.
fn fallback(hostname: &str) -> String {
    format!(
        "127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4 {hostname}\n\
         ::1 localhost localhost6 localhost6.localdomain6 ip6-localhost ip6-loopback\n"
    )
}

fn resolv_conf_and_hosts_in_every_mode(t: &Context) -> Verdict {
    own_etc(t)?;
    let podctl = t.podctl();
    podctl.import_probe();
    import_own(t, &podctl);
    let (host, own) = (Some("host resolv\n"), Some("image resolv.conf\n"));
    let (hosts, own_hosts) = ("host hosts\n", "image hosts\n");
    let hosts_of_host = hosts;
    // For an image without such files and for one with them: resolv.conf; and hosts, where `none` gives the pod's
    // fallback.
    for (options, resolv, hosts) in [
        (&["--net=none"][..], [None, own], [None, Some(own_hosts)]),
        // podctl uses the host's files on the host's network; stage1 itself does not.
        (&["--net=host"], [host, host], [None, Some(own_hosts)]),
        (&["--net=host", "--dns-conf-mode=resolv=default"], [None, own], [None, Some(own_hosts)]),
        (&["--net=none", "--dns-conf-mode=resolv=host"], [host, host], [None, Some(own_hosts)]),
        (&["--net=host", "--dns-conf-mode=resolv=none"], [None, own], [None, Some(own_hosts)]),
        (&["--net=none", "--dns-conf-mode=resolv=default,hosts=host"], [None, own], [Some(hosts), Some(hosts)]),
        (&["--net=host", "--dns-conf-mode=hosts=default"], [host, host], [None, Some(own_hosts)]),
        // podctl itself provides no file.
        (&["--net=none", "--dns-conf-mode=resolv=stage0,hosts=stage0"], [None, own], [None, Some(own_hosts)]),
    ] {
        let pod = podctl.sandbox(&[options, &["--hostname=box"]].concat());
        for (nth, image) in ["probe", "own"].into_iter().enumerate() {
            podctl.ok(&["app", "add", &pod.uuid, image, "--name", image, "--", "sleep", "inf"]);
            assert_eq!(seen(&pod, image, "/etc/resolv.conf").as_deref(), resolv[nth], "{image}, {options:?}");
            let text = seen(&pod, image, "/etc/hosts");
            match hosts[nth] {
                Some(wanted) if wanted == hosts_of_host => assert_eq!(text.as_deref(), Some(wanted), "{options:?}"),
                // The image's own lines and the missing ones; or the image's alone.
                own => {
                    let fallback = format!("{}{}", own.unwrap_or_default(), fallback("box"));
                    assert_eq!(text, Some(fallback), "{image}, {options:?}");
                }
            }
        }
        pod.end();
    }
    for mode in ["resolv=banana", "hosts=none", "banana"] {
        podctl.fails(&["sandbox", &format!("--dns-conf-mode={mode}")]);
    }
    Ok(())
}

fn names_that_another_host_manager_provides(t: &Context) -> Verdict {
    let host = t.minihost();
    for (mode, resolv, added) in [
        ("resolv=stage0,hosts=stage0", true, "127.0.0.1 custom_hostname_setting\n".to_owned()),
        ("resolv=default,hosts=default", true, fallback("custom_hostname_setting")),
        ("resolv=none,hosts=default", false, fallback("custom_hostname_setting")),
    ] {
        let mut pod = host.prepare(&json!([]));
        let mode = format!("--dns-conf-mode={mode}");
        // The stage1 root is an overlay: its upper directory has the files that a host manager wrote there.
        let upper = pod.in_phase("prepared").join(pod.upper().strip_prefix(pod.dir())?).join("etc");
        fs::create_dir_all(&upper)?;
        fs::write(upper.join("rkt-resolv.conf"), "of the manager\n")?;
        fs::write(upper.join("rkt-hosts"), "hosts of the manager\n")?;
        let monitor = pod.start(&["--net=none", "--hostname=custom_hostname_setting", &mode]);
        pod.wait_ready();
        pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
        let cat = |path: &str| run(&mut pod.enter(Some("one"), &["/probe", "cat", path])).stdout;
        assert_eq!(cat("/etc/resolv.conf") == "of the manager\n", resolv, "{mode}");
        let given = fs::read_to_string(pod.upper().join("etc/rkt-hosts")).expect("rkt-hosts");
        if mode.contains("hosts=stage0") {
            assert_eq!(given, format!("hosts of the manager\n{added}"), "{mode}");
            assert!(cat("/etc/hosts").starts_with(&given), "{}", cat("/etc/hosts"));
        } else {
            assert_eq!(cat("/etc/hosts"), format!("hosts of the manager\n{added}"), "{mode}");
        }
        pod.rm("one");
        pod.stop(true, monitor);
        pod.collect(1);
    }
    Ok(())
}

/// Written unchanged, up to the kernel's length.
fn host_names_are_taken_verbatim(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let longest = "x-_.".repeat(16);
    for name in ["custom_hostname_setting", "-a.b-", longest.as_str()] {
        let pod = podctl.pod(&["--net=none", &format!("--hostname={name}")]);
        assert_eq!(pod.report("one", &[])["hostname"], name);
        pod.add("two", &[], &["sleep", "inf"]);
        assert_eq!(seen(&pod, "two", "/etc/hostname"), Some(format!("{name}\n")));
        pod.end();
    }
    for bad in ["a b", "", &"x".repeat(65)] {
        podctl.fails(&["sandbox", "--net=none", &format!("--hostname={bad}")]);
    }
    Ok(())
}

/// Whatever the image contains, an app finds localhost and the pod, and can add lines without effect on others.
fn an_apps_hosts_file_is_its_own(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let image = |name: &str, change: &dyn Fn(&Path) -> std::io::Result<()>| {
        let root = t.dir.join(format!("{name}-root"));
        image::rootfs(&root);
        change(&root.join("etc/hosts")).expect(name);
        podctl.ok(&["image", "import", &root.display().to_string(), "--name", name, "--exec", "/probe"]);
    };
    image("empty", &|path| fs::write(path, ""));
    image("local", &|path| fs::write(path, "127.0.0.1\tlocalhost\n10.0.0.1 db"));
    image("whole", &|path| fs::write(path, "127.0.0.1 localhost box\n"));
    image("linked", &|path| symlink("/proc/1/environ", path));
    image("fifo", &|path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).map_err(Into::into));
    let pod = podctl.sandbox(&["--net=none", "--hostname=box"]);
    for (app, wanted) in [
        ("probe", fallback("box")),
        ("empty", fallback("box")),
        ("local", "127.0.0.1\tlocalhost\n10.0.0.1 db\n127.0.0.1 box\n".to_owned()),
        ("whole", "127.0.0.1 localhost box\n".to_owned()),
        ("fifo", fallback("box")),
    ] {
        podctl.ok(&["app", "add", &pod.uuid, app, "--name", app, "--", "sleep", "inf"]);
        assert_eq!(seen(&pod, app, "/etc/hosts"), Some(wanted.clone()), "{app}");
        pod.enter(app, &["/probe", "append", "/etc/hosts", &format!("10.9.9.9 {app}")]).ok();
        assert_eq!(seen(&pod, app, "/etc/hosts"), Some(format!("{wanted}10.9.9.9 {app}\n")), "{app}");
    }
    podctl.ok(&["app", "add", &pod.uuid, "probe", "--name", "second", "--", "sleep", "inf"]);
    assert_eq!(seen(&pod, "second", "/etc/hosts"), Some(fallback("box")), "apps share a hosts file");
    // A link out of the image shows nothing of the pod.
    let out = podctl.run(&["app", "add", &pod.uuid, "linked", "--name", "linked", "--", "sleep", "inf"]);
    if out.code == Some(0) {
        assert_eq!(seen(&pod, "linked", "/etc/hosts"), Some(fallback("box")));
    } else {
        out.complaint();
    }
    pod.end();
    Ok(())
}

fn what_the_image_brings_of_etc(t: &Context) -> Verdict {
    own_etc(t)?;
    let podctl = t.podctl();
    podctl.import_probe();
    import_own(t, &podctl);
    let linked = t.dir.join("linked-root");
    image::rootfs(&linked);
    // Links that would lead out of the image, or to a missing file.
    symlink("/../../../../etc/host-file", linked.join("etc/hostname"))?;
    symlink("../run/nowhere/resolv.conf", linked.join("etc/resolv.conf"))?;
    podctl.ok(&["image", "import", &linked.display().to_string(), "--name", "linked", "--exec", "/probe"]);
    let pod = podctl.sandbox(&["--net=host", "--hostname=box"]);
    for image in ["probe", "own", "linked"] {
        podctl.ok(&["app", "add", &pod.uuid, image, "--name", image, "--", "sleep", "inf"]);
        // The machine's name is the pod's, whatever the image says.
        assert_eq!(seen(&pod, image, "/etc/hostname").as_deref(), Some("box\n"), "{image}");
        assert_eq!(seen(&pod, image, "/etc/resolv.conf").as_deref(), Some("host resolv\n"), "{image}");
    }
    assert_eq!(seen(&pod, "probe", "/etc/localtime").as_deref(), Some("host time\n"));
    assert_eq!(seen(&pod, "own", "/etc/localtime").as_deref(), Some("image localtime\n"));
    let mtab = |app: &str| pod.enter(app, &["/probe", "stat", "/etc/mtab"]).ok();
    assert!(mtab("probe").contains("../proc/self/mounts"), "{}", mtab("probe"));
    assert_eq!(seen(&pod, "own", "/etc/mtab").as_deref(), Some("image mtab\n"));
    let mounts = seen(&pod, "probe", "/etc/mtab").unwrap_or_default();
    assert!(mounts.lines().any(|line| line.split(' ').nth(1) == Some("/proc")), "{mounts}");
    // The app can't write any of them, or the host's through them.
    for path in ["/etc/hostname", "/etc/resolv.conf", "/etc/machine-id", "/etc/localtime"] {
        assert_eq!(pod.enter("probe", &["/probe", "open", "w", path]).ok(), "EROFS", "{path}");
    }
    assert_eq!(fs::read_to_string("/etc/resolv.conf")?, "host resolv\n");
    assert!(!Path::new("/etc/host-file").exists() && !Path::new("/run/nowhere").exists());
    pod.end();
    Ok(())
}

fn the_machine_id_is_the_pods(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    import_own(t, &podctl);
    let pod = podctl.sandbox(&["--net=none"]);
    for image in ["probe", "own"] {
        podctl.ok(&["app", "add", &pod.uuid, image, "--name", image, "--", "sleep", "inf"]);
        let id = seen(&pod, image, "/etc/machine-id");
        assert_eq!(id.as_deref().map(str::trim), Some(pod.uuid.replace('-', "").as_str()), "{image}");
    }
    pod.end();
    Ok(())
}

fn ipc_of_its_own_or_the_hosts(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let host = fs::read_link("/proc/self/ns/ipc")?;
    let host = host.to_str().unwrap_or_default();
    for (options, shared) in
        [(&[][..], false), (&["--ipc=auto"], false), (&["--ipc=private"], false), (&["--ipc=parent"], true)]
    {
        let pod = podctl.pod(options);
        let report = pod.report("one", &[]);
        assert_eq!(report["namespaces"]["ipc"] == host, shared, "{options:?}");
        // All apps of a pod, and entered commands, have the same one.
        pod.add("two", &[], &["sleep", "inf"]);
        let entered: serde_json::Value = serde_json::from_str(&pod.enter("two", &["/probe", "report"]).ok())?;
        assert_eq!(entered["namespaces"]["ipc"], report["namespaces"]["ipc"], "{options:?}");
        pod.end();
    }
    podctl.fails(&["sandbox", "--ipc=banana"]);
    Ok(())
}

fn the_metadata_service_is_told(t: &Context) -> Verdict {
    let host = t.minihost();
    for (flags, told) in [
        (&["--net=host"][..], None),
        (&["--net=none", "--mds-token=abc123"], None),
        (&["--net=host", "--mds-token=abc123"], Some("http://127.0.0.1:18112/abc123")),
    ] {
        let (mut pod, monitor) = host.boot(&json!([]), flags);
        pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
        let report: serde_json::Value =
            serde_json::from_str(&run(&mut pod.enter(Some("one"), &["/probe", "report"])).ok())?;
        assert_eq!(report["env"].get("AC_METADATA_URL").and_then(|url| url.as_str()), told, "{flags:?}");
        pod.rm("one");
        pod.stop(true, monitor);
        pod.collect(1);
    }
    Ok(())
}
