//! Limits: in the cgroup's own files, and felt.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use tests::Verdict;
use tests::harness::{Context, Layout};
use tests::podctl::Pod;
use tests::process::{descendants, wait_for};

tests::cases! {
    both a_memory_limit_holds_or_is_named;
    native enter_shares_the_apps_limit;
    native cpu_limits_and_shares;
    both cgroups_come_and_go;
}

/// A process of an app or entered into one, found by a word of its command line.
#[track_caller]
fn app_pid(pod: &Pod<'_>, word: &str) -> i32 {
    wait_for(&format!("a process with {word}"), 10, || {
        let mut family = descendants(pod.pid()).into_iter().chain(descendants(std::process::id() as i32));
        family.find(|p| p.words.starts_with("/probe") && p.words.contains(word)).map(|p| p.pid)
    })
}

/// Where a process is in the hierarchy of a controller, as a directory.
fn cgroup(pid: i32, controller: &str, layout: Layout) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let wanted = if layout == Layout::V2 { "" } else { controller };
    let path = text.lines().find_map(|l| {
        let mut fields = l.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|c| c == wanted).then(|| fields.next()).flatten()
    });
    let path = path.unwrap_or_else(|| panic!("{pid} is in no {controller} cgroup: {text}")).trim_start_matches('/');
    match layout {
        Layout::V2 => PathBuf::from("/sys/fs/cgroup").join(path),
        Layout::V1 => PathBuf::from("/sys/fs/cgroup").join(controller).join(path),
    }
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn a_memory_limit_holds_or_is_named(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    if !t.has_controllers() {
        // The limit can't hold here: the app runs all the same, and whoever asks hears which limit it is.
        let args = ["--debug", "app", "add", &pod.uuid, "probe", "--name=small", "--memory=32Mi", "--", "sleep", "inf"];
        let added = podctl.run(&args);
        let started = podctl.run(&["--debug", "app", "start", &pod.uuid, "--app=small"]);
        assert!((added.code, started.code) == (Some(0), Some(0)), "{added}\n{started}");
        let said = format!("{}{}", added.stderr, started.stderr);
        let warned = said.lines().any(|l| l.contains("warn") && l.contains("memory"));
        assert!(warned, "no warning names the memory limit: {added}\n{started}");
        pod.end();
        return Ok(());
    }
    pod.add("small", &["--memory=32Mi"], &["alloc", "8000000", "+", "write", "/out/small", "x", "+", "sleep", "inf"]);
    pod.add("large", &["--memory=32Mi"], &["alloc", "100000000", "+", "exit", "0"]);
    pod.app("start", "small", &[]).ok();
    let small = podctl.out().join("small");
    wait_for("the app with enough memory", 10, || small.exists().then_some(()));
    let file = if t.layout == Layout::V1 { "memory.limit_in_bytes" } else { "memory.max" };
    let group = cgroup(app_pid(&pod, "sleep"), "memory", t.layout);
    assert_eq!(read(group.join(file)), (32 * 1024 * 1024).to_string());
    pod.app("start", "large", &[]).ok();
    assert_eq!(pod.exit_code("large"), 137, "more than the limit was let through");
    assert_eq!(pod.state("small"), "running");
    // A quantity of the decimal kind, cut to whole pages by the kernel.
    pod.add("decimal", &["--memory=50M"], &["print", "decimal", "+", "sleep", "inf"]);
    pod.app("start", "decimal", &[]).ok();
    let group = cgroup(app_pid(&pod, "decimal"), "memory", t.layout);
    assert_eq!(read(group.join(file)).parse::<u64>()? / 4096, 50_000_000 / 4096);
    pod.end();
    Ok(())
}

fn enter_shares_the_apps_limit(t: &Context) -> Verdict {
    if !t.has_controllers() {
        return Err("this machine has no memory controller: what this test is for can't be seen on it".into());
    }
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("small", &["--memory=32Mi"], &["sleep", "inf"]);
    pod.app("start", "small", &[]).ok();
    let app = cgroup(app_pid(&pod, "sleep"), "memory", t.layout);
    let mut child = podctl.command(&["enter", &pod.uuid, "--app", "small", "--", "/probe", "sleep", "77"]).spawn()?;
    let entered = cgroup(app_pid(&pod, "77"), "memory", t.layout);
    assert_eq!(entered, app);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(app_pid(&pod, "77")), nix::sys::signal::Signal::SIGKILL)?;
    child.wait()?;
    let out = pod.enter("small", &["/probe", "alloc", "100000000"]);
    assert!(out.signal == Some(9) || out.code == Some(137), "an entered command escapes the limit: {out}");
    pod.end();
    Ok(())
}

fn cpu_limits_and_shares(t: &Context) -> Verdict {
    if !t.has_controllers() {
        return Err("this machine has no cpu controller: what this test is for can't be seen on it".into());
    }
    let podctl = t.podctl();
    podctl.import_with("shares", &json!({"isolators": [{"name": "os/linux/cpu-shares", "value": 512}]}));
    let pod = podctl.pod(&[]);
    pod.add("half", &["--cpu=500m"], &["print", "half", "+", "sleep", "inf"]);
    pod.try_add("shares", "shares", &[], &["print", "shares", "+", "sleep", "inf"]).ok();
    pod.app("start", "half", &[]).ok();
    pod.app("start", "shares", &[]).ok();
    let half = cgroup(app_pid(&pod, "half"), "cpu", t.layout);
    let shares = cgroup(app_pid(&pod, "shares"), "cpu", t.layout);
    match t.layout {
        Layout::V1 => {
            let quota: i64 = read(half.join("cpu.cfs_quota_us")).parse()?;
            let period: i64 = read(half.join("cpu.cfs_period_us")).parse()?;
            assert_eq!(quota * 2, period, "{quota} of {period}");
            assert_eq!(read(shares.join("cpu.shares")), "512");
        }
        Layout::V2 => {
            let max = read(half.join("cpu.max"));
            let (quota, period) = max.split_once(' ').ok_or(max.clone())?;
            assert_eq!(quota.parse::<i64>()? * 2, period.parse::<i64>()?, "{max}");
            assert_ne!(read(shares.join("cpu.weight")), "100");
        }
    }
    pod.end();
    Ok(())
}

fn cgroups_come_and_go(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let text = fs::read_to_string(pod.dir().join("subcgroup"))?;
    assert_eq!(text.trim(), format!("pods/{}", pod.uuid));
    let controller = if t.layout == Layout::V1 { "systemd" } else { "" };
    let root = PathBuf::from("/sys/fs/cgroup").join(controller).join(text.trim());
    assert!(root.is_dir(), "{} is not there", root.display());
    pod.add("one", &[], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let group = root.join("system.slice/app-one.service");
    assert!(!read(group.join("cgroup.procs")).is_empty(), "the app is not in {}", group.display());
    pod.app("stop", "one", &[]).ok();
    wait_for("the app's cgroup to go", 5, || (!group.exists()).then_some(()));
    pod.app("rm", "one", &[]).ok();
    pod.end();
    assert!(!root.exists());
    Ok(())
}
