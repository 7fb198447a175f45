//! Sections 1 to 3, 6 and 8 of the contract: the pod's files that host managers read and write, and how entrypoints are
//! called.

#![allow(clippy::zombie_processes, reason = "the warden of a failed test reaps what it has left")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::minihost::{Kind, MiniPod};
use tests::process::{Process, descendants, run, wait_for};

use super::kinds::streams;
use super::{exited, no_volumes};

tests::cases! {
    both files_that_run_writes;
    both who_sees_that_a_pod_is_ready_finds_it;
    both an_end_in_order_is_no_failure 120;
    both gc_and_attach_take_every_form_of_a_flag;
    both run_minds_its_signals 120;
    both names_that_stage0_brings;
    both ipc_of_the_host_or_its_own;
    both the_app_to_enter_may_be_in_the_environment;
    both failures_have_a_code_of_their_own;
}

fn files_that_run_writes(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=none"]);
    let dir = pod.dir();
    let (file, other) = if dir.join("pid").exists() { ("pid", "ppid") } else { ("ppid", "pid") };
    assert!(!dir.join(other).exists(), "one of both");
    let text = fs::read_to_string(dir.join(file))?;
    assert!(text.ends_with('\n') && text.trim_end().bytes().all(|b| b.is_ascii_digit()), "{text:?}");
    let written = |name: &str| fs::metadata(dir.join(name)).map(|stat| (stat.mtime(), stat.mtime_nsec()));
    assert!(written("runtime-config")? <= written(file)? && written("subcgroup")? <= written(file)?);
    assert!(!fs::read_to_string(dir.join("subcgroup"))?.starts_with('/'));
    // The pod sees at once what the host writes through its root; what the pod writes is in the upper layer.
    pod.add("one", &["/probe", "exit", "3"], &json!([]));
    fs::write(dir.join("stage1/rootfs/rkt/env/one"), "AC_APP_NAME=one\nLATE=it is\n")?;
    let shown = run(&mut pod.enter(Some("one"), &["/probe", "report"])).ok();
    let report: Value = serde_json::from_str(&shown)?;
    assert_eq!(report["env"]["LATE"], "it is");
    fs::write(dir.join("stage1/rootfs/rkt/status/marker"), "")?;
    assert!(run(&mut pod.enter(None, &["/opt/stage1/bin/reaper", "--help"])).code == Some(0));
    assert!(fs::metadata(format!("/proc/{}/root/rkt/status/marker", pod.pid())).is_ok());
    pod.start_app("one").ok();
    assert_eq!(exited(&pod, "one"), 3);
    assert_eq!(fs::read_to_string(pod.upper().join("rkt/status/one"))?, "3\n");
    // The pod's own name, if nothing else is given.
    let name = format!("rkt-{}", pod.uuid);
    pod.add("two", &["/probe", "sleep", "inf"], &json!([]));
    for path in ["/proc/sys/kernel/hostname", "/etc/hostname"] {
        assert_eq!(run(&mut pod.enter(Some("two"), &["/probe", "cat", path])).ok(), name, "{path}");
    }
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

/// The pod can be stopped as soon as its PID 1 is systemd, even if its monitor was not scheduled yet.
fn who_sees_that_a_pod_is_ready_finds_it(t: &Context) -> Verdict {
    let host = t.minihost();
    for nets in ["none", "host"] {
        let pod = host.prepare(&no_volumes());
        let mut monitor = pod.start(&[&format!("--net={nets}")]);
        let id = monitor.id() as i32;
        let children = format!("/proc/{id}/task/{id}/children");
        let is_supervisor = |child: &str| {
            let words = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&words).contains("systemd")
        };
        let began = std::time::Instant::now();
        while !fs::read_to_string(&children)?.split_whitespace().any(is_supervisor) {
            assert!(monitor.try_wait()?.is_none() && began.elapsed().as_secs() < 30, "PID 1 is not executed");
        }
        kill(Pid::from_raw(id), Signal::SIGSTOP)?;
        pod.wait_ready();
        let there = ["runtime-config", "subcgroup", "pid"].map(|name| pod.dir().join(name).exists());
        kill(Pid::from_raw(id), Signal::SIGCONT)?;
        assert_eq!(there, [true; 3], "runtime-config, subcgroup, pid");
        pod.stop(true, monitor);
        pod.collect(1);
    }
    Ok(())
}

/// In a pod that is stopped in order, an app that the stop signal kills has the exit status 0, and an app that handles
/// it has its own. `run` ends with 0 then, whether `stop` or a SIGTERM to `run` stopped the pod; with 137 after a
/// forced stop. If an app failed before, `run` ends with that app's code.
fn an_end_in_order_is_no_failure(t: &Context) -> Verdict {
    let host = t.minihost();
    let running = |pod: &MiniPod<'_>, words: &str| {
        wait_for(words, 20, || descendants(pod.pid()).into_iter().find(|p| p.words == format!("/probe {words}"))).pid
    };
    for (signal, force, code) in [(true, false, 0), (false, false, 0), (false, true, 137)] {
        let mut pod = host.prepare_as(Kind { mutable: false, ..Kind::default() }, &no_volumes());
        for (app, exec) in [("orderly", &["/probe", "orderly", "5"][..]), ("quiet", &["/probe", "sleep", "inf"])] {
            pod.declare(app, exec, &json!([]), &json!({}));
        }
        let mut monitor = pod.start(&["--net=none"]);
        pod.wait_ready();
        running(&pod, "sleep inf");
        Process::holds_sigterm(running(&pod, "orderly 5"));
        let ended = if signal {
            kill(Pid::from_raw(monitor.id() as i32), Signal::SIGTERM)?;
            wait_for("the end of run", 30, || monitor.try_wait().expect("wait for run"))
        } else {
            pod.stop(force, monitor)
        };
        assert_eq!(ended.code(), Some(code), "signal: {signal}, force: {force}");
        if !force {
            let status = |app: &str| fs::read_to_string(pod.upper().join("rkt/status").join(app));
            assert_eq!((status("orderly")?, status("quiet")?), ("5\n".into(), "0\n".into()), "signal: {signal}");
        }
        pod.collect(1);
    }
    let lent = t.dir.join("lent");
    fs::create_dir(&lent)?;
    let volumes = json!([{"name": "lent", "kind": "host", "source": lent.display().to_string()}]);
    let mut pod = host.prepare_as(Kind { mutable: false, ..Kind::default() }, &volumes);
    let soon = json!({"annotations": [{"name": "podctl.io/stop-timeout", "value": "2"}]});
    pod.declare("stays", &["/probe", "stubborn"], &json!([]), &soon);
    let mounts = json!([{"volume": "lent", "path": "/lent"}]);
    pod.declare("fails", &["/probe", "wait", "/lent/go", "+", "exit", "42"], &mounts, &json!({}));
    let monitor = pod.start(&["--net=none"]);
    pod.wait_ready();
    let stays = running(&pod, "stubborn");
    Process::holds_sigterm(stays);
    fs::write(lent.join("go"), "")?;
    wait_for("the pod to be ended for the failure", 30, || {
        Process::has_signal(stays, &["SigPnd", "ShdPnd"], 15).then_some(())
    });
    assert_eq!(pod.stop(false, monitor).code(), Some(42));
    pod.collect(1);
    Ok(())
}

fn gc_and_attach_take_every_form_of_a_flag(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net", "host", "-mds-token", "t", "--interactive=false"]);
    pod.add_with("one", &["/probe", "sleep", "inf"], &json!([]), &streams()).ok();
    pod.start_app("one").ok();
    for words in [
        &["--action=list", "--app=one", "--debug=false"][..],
        &["-action", "list", "-app", "one", "-debug"],
        &["--action", "list", "-app=one", "--debug=0"],
        &["-action=list", "--app", "one", "--tty-in=false", "-tty-out=f", "--stdin=0", "-stdout=true", "--stderr"],
    ] {
        let listed: Value = serde_json::from_str(&pod.cross("attach", words).ok())?;
        assert_eq!(listed["version"], 1, "{words:?}");
    }
    pod.stop(false, monitor);
    let garbage = pod.mark();
    for words in
        [&["-debug=t"][..], &["--local-config", "/nowhere"], &["-local-config=/nowhere", "-debug"], &["--debug=1"]]
    {
        garbage.gc(words).ok();
    }
    garbage.remove();
    Ok(())
}

fn run_minds_its_signals(t: &Context) -> Verdict {
    let host = t.minihost();
    let lent = t.dir.join("lent");
    fs::create_dir(&lent)?;
    let volumes = json!([{"name": "lent", "kind": "host", "source": lent.display().to_string()}]);
    let mounts = json!([{"volume": "lent", "path": "/lent"}]);
    for (nth, signals) in
        [&[Signal::SIGTERM][..], &[Signal::SIGTERM, Signal::SIGTERM], &[Signal::SIGKILL]].iter().enumerate()
    {
        let (mut pod, mut monitor) = host.boot(&volumes, &["--net=none"]);
        let (told, done) = (format!("/lent/told{nth}"), format!("/lent/done{nth}"));
        pod.add("orderly", &["/probe", "told", &told, "+", "write", &done, "x"], &mounts);
        pod.start_app("orderly").ok();
        if nth > 0 {
            pod.add("stubborn", &["/probe", "stubborn"], &json!([]));
            pod.start_app("stubborn").ok();
        }
        wait_for("the app", 10, || lent.join(format!("told{nth}")).exists().then_some(()));
        let pids: Vec<i32> = descendants(pod.pid()).iter().map(|p| p.pid).chain([pod.pid()]).collect();
        for signal in *signals {
            kill(Pid::from_raw(monitor.id() as i32), *signal)?;
            std::thread::sleep(std::time::Duration::from_millis(500));
        }
        wait_for("the end of run", 20, || monitor.try_wait().expect("wait for run"));
        wait_for("the end of the pod", 5, || (!pids.iter().any(|p| Process::lives(*p))).then_some(()));
        if nth == 0 {
            assert!(lent.join("done0").exists(), "SIGTERM is an end in order");
        }
        pod.collect(2);
    }
    Ok(())
}

fn names_that_stage0_brings(t: &Context) -> Verdict {
    let host = t.minihost();
    let mut pod = host.prepare(&no_volumes());
    let (mut command, lock) = pod.run_command(&["--net=none", "--dns-conf-mode=resolv=stage0,hosts=stage0"]);
    let etc = pod.dir().join("stage1/rootfs/etc");
    fs::write(etc.join("rkt-resolv.conf"), "nameserver 9.8.7.6\n")?;
    fs::write(etc.join("rkt-hosts"), "1.2.3.4 four\n")?;
    let monitor = command.spawn()?;
    drop(lock);
    pod.wait_ready();
    pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
    pod.start_app("one").ok();
    let shown = |pod: &MiniPod<'_>, path| run(&mut pod.enter(Some("one"), &["/probe", "cat", path])).ok();
    assert_eq!(shown(&pod, "/etc/resolv.conf"), "nameserver 9.8.7.6");
    assert!(shown(&pod, "/etc/hosts").starts_with("1.2.3.4 four"));
    let config: Value = serde_json::from_str(&fs::read_to_string(pod.dir().join("runtime-config"))?)?;
    assert_eq!((&config["ResolvConfMode"], &config["EtcHostsMode"]), (&json!("stage0"), &json!("stage0")));
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

fn ipc_of_the_host_or_its_own(t: &Context) -> Verdict {
    let host = t.minihost();
    let ours = fs::read_link("/proc/self/ns/ipc")?;
    for (mode, is_ours) in [("auto", false), ("private", false), ("parent", true)] {
        let (pod, monitor) = host.boot(&no_volumes(), &["--net=host", &format!("--ipc={mode}")]);
        assert_eq!(fs::read_link(format!("/proc/{}/ns/ipc", pod.pid()))? == ours, is_ours, "{mode}");
        pod.stop(true, monitor);
        pod.collect(1);
    }
    Ok(())
}

fn the_app_to_enter_may_be_in_the_environment(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    pod.stage("one", &["/probe", "sleep", "inf"], &json!([]), &json!({}));
    let crossing = |pod: &MiniPod<'_>, verb: &str, words: &[&str]| {
        run(pod.crossing(verb, words).env("RKT_STAGE1_ENTERAPP", "one")).ok()
    };
    crossing(&pod, "app/add", &["--app=one", &format!("--uuid={}", pod.uuid)]);
    crossing(&pod, "app/start", &["--app=one"]);
    assert_eq!(run(&mut pod.enter(Some("one"), &["/probe", "print", "x"])).ok(), "x");
    crossing(&pod, "app/stop", &["--app=one"]);
    crossing(&pod, "app/rm", &["--app=one"]);
    pod.rm("one");
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

/// Exit code 254 for failures, 1 or 2 with a usage message for wrong flags.
fn failures_have_a_code_of_their_own(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&no_volumes(), &["--net=host"]);
    pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
    pod.start_app("one").ok();
    for (verb, words) in
        [("app/rm", &["--app=one"][..]), ("app/add", &["--app=absent", &format!("--uuid={}", pod.uuid)])]
    {
        let out = pod.cross(verb, words);
        assert_eq!(out.code, Some(254), "{out}");
    }
    for (verb, words) in [
        ("app/add", &["--uuid=x"][..]),
        ("app/start", &["--app=one", "--never=heard"]),
        ("app/stop", &[]),
        ("app/rm", &["--debug=perhaps", "--app=one"]),
        ("attach", &["--app=one"]),
    ] {
        let out = pod.cross(verb, words);
        assert!(matches!(out.code, Some(1 | 2)) && out.stderr.contains("Usage"), "{out}");
    }
    let mut gc = Command::new(pod.dir().join(pod.entrypoint("gc")));
    let out = run(gc.arg("not-a-uuid").current_dir(pod.dir()));
    assert_eq!(out.code, Some(254), "{out}");
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}
