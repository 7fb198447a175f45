//! What an app can reach of the kernel through /proc and /sys, whatever its image contains.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tests::Verdict;
use tests::harness::Context;
use tests::image;
use tests::podctl::{Pod, Podctl};
use tests::process::wait_for;

tests::cases! {
    native every_file_that_opens_for_writing 120;
    native what_a_tracer_of_the_pods_pid_1_can_write;
    native an_image_cant_choose_where_kernel_files_are;
    native without_such_directories_they_are_made;
    native what_tells_of_the_host_is_hidden;
    native volumes_on_and_below_covered_paths 120;
}

/// Files that root of the host may open for writing although nothing can be written: they have no write bit, and the
/// kernel has no write method for them.
const TOP: &str = "buddyinfo cgroups cmdline consoles cpuinfo crypto devices diskstats dma execdomains fb filesystems \
    iomem ioports key-users kmsg kpagecgroup kpagecount kpageflags loadavg locks mdstat meminfo misc modules \
    pagetypeinfo partitions schedstat slabinfo softirqs stat swaps uptime version vmallocinfo vmstat zoneinfo";

/// The files below /proc and /sys that an app, added with these options, can open for writing.
#[track_caller]
fn writable(pod: &Pod<'_>, app: &str, options: &[&str]) -> BTreeSet<String> {
    let file = format!("/out/{app}");
    pod.run_app(app, options, &["writable", &file, "/proc", "/sys"]);
    let text = fs::read_to_string(pod.podctl.out().join(app)).expect("the list");
    text.lines().map(str::to_owned).collect()
}

/// The paths of `found` that are in none of the classes that an app may write to.
fn beyond(found: &BTreeSet<String>, own_network: bool) -> Vec<&str> {
    let top: Vec<String> = TOP.split_whitespace().map(|name| format!("/proc/{name}")).collect();
    let allowed = |path: &str| {
        path.starts_with("/proc/PID/")
            || top.iter().any(|name| name == path)
            || (own_network && path.starts_with("/proc/sys/net/"))
    };
    found.iter().map(String::as_str).filter(|path| !allowed(path)).collect()
}

fn every_file_that_opens_for_writing(t: &Context) -> Verdict {
    const NONE: [&str; 0] = [];
    let podctl = t.podctl();
    for (options, own_network) in
        [(&["--net=none"][..], true), (&["--net=host"], false), (&["--net=none", "--private-users"], true)]
    {
        let pod = podctl.pod(options);
        let root = writable(&pod, "root", &[]);
        assert_eq!(beyond(&root, own_network), NONE, "{options:?}: uid 0");
        assert!(root.contains("/proc/PID/oom_score_adj"), "{options:?}: nothing was tried: {root:?}");
        if !options.contains(&"--private-users") {
            let has_network = root.contains("/proc/sys/net/ipv4/ip_forward");
            assert_eq!(has_network, own_network, "{options:?}: the network's sysctls");
        }
        let user = writable(&pod, "user", &["--user=1000", "--group=1000"]);
        let not_own = user.iter().find(|path| !path.starts_with("/proc/PID/"));
        assert_eq!(not_own, None, "{options:?}: uid 1000");
        // The same walk finds files that are not covered.
        let open = writable(&pod, "open", &["--disable-paths"]);
        if !options.contains(&"--private-users") {
            for path in ["/proc/sys/vm/swappiness", "/proc/sys/kernel/core_pattern", "/proc/irq/default_smp_affinity"] {
                assert!(open.contains(path) && !root.contains(path), "{options:?}: {path}");
            }
        }
        pod.end();
    }
    Ok(())
}

/// An app that may trace PID 1 sees the pod's own /proc and /sys.
fn what_a_tracer_of_the_pods_pid_1_can_write(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for options in [&["--net=none"][..], &["--net=host"], &["--net=none", "--private-users"]] {
        let pod = podctl.pod(options);
        let capabilities = "--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE,CAP_DAC_READ_SEARCH,CAP_SYS_ADMIN";
        pod.run_app("one", &[capabilities], &["writable", "/out/one", "/proc/1/root/proc", "/proc/1/root/sys"]);
        let text = fs::read_to_string(podctl.out().join("one"))?;
        assert!(text.contains("/proc/1/root/proc/1/oom_score_adj"), "{options:?}: it did not get there: {text}");
        let found = text.lines().filter_map(|line| line.strip_prefix("/proc/1/root"));
        let is_process = |path: &str| {
            let name = path.strip_prefix("/proc/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
            name.bytes().all(|b| b.is_ascii_digit())
        };
        let shared: BTreeSet<String> = found.filter(|path| !is_process(path)).map(str::to_owned).collect();
        // The pod's systemd writes to the pod's own cgroups.
        let beyond: Vec<&str> =
            beyond(&shared, false).into_iter().filter(|path| !path.starts_with("/sys/fs/cgroup/")).collect();
        let hidden = ["interrupts", "kallsyms", "kcore", "keys", "timer_list", "config.gz"];
        let beyond: Vec<&&str> =
            beyond.iter().filter(|path| !hidden.iter().any(|name| **path == format!("/proc/{name}"))).collect();
        assert!(beyond.is_empty(), "{options:?}: {beyond:?}");
        pod.end();
    }
    Ok(())
}

/// An image of the probe with these links, called `name`.
#[track_caller]
fn import_linked(t: &Context, podctl: &Podctl, name: &str, links: &[(&str, &str)]) {
    let root = t.dir.join(format!("{name}-root"));
    image::rootfs(&root);
    for (link, to) in links {
        fs::create_dir_all(root.join(link).parent().expect("a parent")).expect("mkdir");
        symlink(to, root.join(link)).expect("symlink");
    }
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", name, "--exec", "/probe"]);
}

fn an_image_cant_choose_where_kernel_files_are(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none"]);
    for (nth, (link, to)) in [
        ("proc", "/"),
        ("proc", "data"),
        ("sys", "/"),
        ("sys", "/proc"),
        ("dev", "/"),
        ("dev", "/proc"),
        ("dev", "/nowhere"),
        ("proc", "proc"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("linked{nth}");
        import_linked(t, &podctl, &name, &[(link, to)]);
        let complaint = pod.try_add(&name, "x", &[], &["sleep", "inf"]).complaint();
        assert!(complaint.contains(&format!("the image's /{link} is a link")), "{link} -> {to}: {complaint}");
        assert!(pod.manifest_apps().is_empty());
    }
    let file = t.dir.join("file-root");
    image::rootfs(&file);
    fs::write(file.join("proc"), "")?;
    podctl.ok(&["image", "import", &file.display().to_string(), "--name", "file", "--exec", "/probe"]);
    let complaint = pod.try_add("file", "x", &[], &["sleep", "inf"]).complaint();
    assert!(complaint.contains("the image's /proc is a file"), "{complaint}");
    // Entries of a directory in the image that is covered anyway lead nowhere.
    let below = [("dev/pts", "/"), ("dev/shm", "/data"), ("dev/console", "/probe"), ("dev/null", "/data/kept")];
    import_linked(t, &podctl, "below", &below);
    pod.try_add("below", "x", &[], &["writable", "/out/x", "/proc", "/sys", "+", "sleep", "inf"]).ok();
    pod.app("start", "x", &[]).ok();
    let list = podctl.out().join("x");
    wait_for("the list", 20, || list.exists().then_some(()));
    let found = fs::read_to_string(list)?.lines().map(str::to_owned).collect();
    assert!(beyond(&found, true).is_empty(), "{found:?}");
    assert_eq!(pod.enter("x", &["/probe", "cat", "/data/kept"]).ok(), "from the image");
    pod.end();
    Ok(())
}

fn without_such_directories_they_are_made(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none"]);
    let report = pod.report("bare", &[]);
    let mounts = report["mountinfo"].to_string();
    for at in [" /proc ", " /sys ", " /dev ", " /dev/pts ", " /dev/shm "] {
        assert!(mounts.contains(at), "{at}: {mounts}");
    }
    pod.end();
    Ok(())
}

fn what_tells_of_the_host_is_hidden(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none"]);
    pod.add("one", &[], &["sleep", "inf"]);
    pod.add("open", &["--disable-paths"], &["sleep", "inf"]);
    let hidden = "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats \
        /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats /sys/dev/block /sys/devices/virtual/powercap \
        /sys/firmware /sys/fs/selinux";
    let mut tried = 0;
    for path in hidden.split_whitespace().filter(|path| Path::new(path).exists()) {
        let look = if Path::new(path).is_dir() { "ls" } else { "cat" };
        let out = pod.enter("one", &["/probe", look, path]);
        assert!(out.stdout.trim().is_empty(), "{path} shows: {out}");
        if path != "/proc/kcore" {
            let out = pod.enter("open", &["/probe", look, path]);
            assert_eq!(out.code, Some(0), "{path} with --disable-paths: {out}");
            tried += usize::from(!out.stdout.trim().is_empty());
        }
    }
    assert!(tried > 2, "the host has hardly anything to hide");
    pod.end();
    Ok(())
}

fn volumes_on_and_below_covered_paths(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let source = t.dir.join("source");
    fs::create_dir(&source)?;
    fs::write(source.join("word"), "lent")?;
    let volume = format!("--volume=lent,kind=host,source={}", source.display());
    let cgroups = "--volume=cgroups,kind=host,source=/sys/fs/cgroup,readOnly=true";
    let pod = podctl.pod(&["--net=none", &volume, cgroups]);
    let mounted = |app: &str, target: &str| {
        pod.add(app, &[&format!("--mount=volume=lent,target={target}")], &["sleep", "inf"]);
        assert_eq!(pod.enter(app, &["/probe", "cat", &format!("{target}/word")]).ok(), "lent", "{target}");
        pod.enter(app, &["/probe", "write", &format!("{target}/{app}"), "back"]).ok();
        assert_eq!(fs::read_to_string(source.join(app)).expect("what the app wrote"), "back");
    };
    // Without a sysfs below it: everything else in /sys is the image's.
    for (app, target) in
        [("a", "/sys/fs/cgroup"), ("b", "/sys/class"), ("c", "/sys/fs/x/y"), ("d", "/sys/module"), ("e", "/sys")]
    {
        mounted(app, target);
        assert!(!pod.enter(app, &["/probe", "ls", "/sys"]).ok().contains("devices"), "{target}: a sysfs is there");
    }
    pod.add("cgroups", &["--mount=volume=cgroups,target=/sys/fs/cgroup"], &["sleep", "inf"]);
    let seen = pod.enter("cgroups", &["/probe", "ls", "/sys/fs/cgroup"]).ok();
    for entry in fs::read_dir("/sys/fs/cgroup")? {
        let name = entry?.file_name();
        assert!(seen.lines().any(|line| *line == *name), "{name:?} is not among {seen}");
    }
    // The hidden files stay hidden, and the rest of /proc is read-only.
    if Path::new("/proc/acpi").is_dir() {
        mounted("f", "/proc/acpi/lent");
        assert_eq!(pod.enter("f", &["/probe", "ls", "/proc/acpi"]).ok(), "lent");
        assert_eq!(pod.enter("f", &["/probe", "mkdir", "/proc/acpi/more"]).code, Some(1));
        assert_eq!(pod.enter("f", &["/probe", "open", "w", "/proc/sys/vm/swappiness"]).ok(), "EROFS");
    }
    mounted("g", "/proc/bus");
    mounted("h", "/proc/acpi");
    mounted("i", "/proc/sys/vm");
    let complaint =
        pod.try_add("probe", "x", &["--mount=volume=lent,target=/proc/keys"], &["sleep", "inf"]).complaint();
    assert!(complaint.contains("its target /proc/keys is a file"), "{complaint}");
    pod.end();
    Ok(())
}
