//! Commands that are run in an app of a pod from outside.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::Verdict;
use tests::harness::{Context, Layout};
use tests::process::{Process, descendants, run, run_with_input, wait_for};

tests::cases! {
    both the_command_lives_in_the_app;
    native it_is_held_as_the_app_is;
    native its_end_is_told_exactly;
    native its_environment_is_the_apps;
    native its_streams_are_the_callers;
    native signals_reach_it;
    native what_cannot_be_entered;
    both an_app_that_does_not_run_is_entered_within_its_limits;
    both a_command_in_an_app_that_comes_and_goes_is_never_held_less;
}

fn the_command_lives_in_the_app(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &["--memory=64Mi"], &["report", "/out/one.json", "+", "sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let app = pod.read("one");
    let entered: Value = serde_json::from_str(&pod.enter("one", &["/probe", "report"]).ok())?;
    for key in ["namespaces", "root", "capabilities", "seccomp", "cgroup", "hostname", "ids", "oom_score_adj"] {
        assert_eq!(entered[key], app[key], "{key}");
    }
    let fds = entered["fds"].as_object().map(|f| f.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    assert_eq!(fds, ["0", "1", "2"], "descriptors leak: {}", entered["fds"]);
    assert_eq!(entered["cwd"], "/");
    assert_eq!(entered["argv"], serde_json::json!(["/probe", "report"]));
    pod.end();
    Ok(())
}

/// Two capabilities, a filter and 32 MB.
fn it_is_held_as_the_app_is(t: &Context) -> Verdict {
    if !t.has_controllers() {
        return Err("this machine has no memory controller: what this test is for can't be seen on it".into());
    }
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let options = [
        "--memory=32Mi",
        "--caps-retain=CAP_CHOWN,CAP_SYS_CHROOT",
        "--seccomp=mode=remove,errno=EXFULL,sethostname,@systemd/clock",
        "--working-dir=/home",
    ];
    pod.add("one", &options, &["report", "/out/one.json", "+", "sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let app = pod.read("one");
    let pid = wait_for("the app", 10, || descendants(pod.pid()).into_iter().find(|p| p.words.contains("one.json")));
    let seen = pod.enter("one", &["/probe", "report"]).ok();
    let seen: Value = serde_json::from_str(&seen)?;
    let mask = format!("{:016x}", 1u64 | 1 << 18);
    for (set, expected) in [
        ("CapBnd", mask.as_str()),
        ("CapPrm", &mask),
        ("CapEff", &mask),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
    ] {
        assert_eq!(
            (&seen["capabilities"][set], &app["capabilities"][set]),
            (&expected.into(), &expected.into()),
            "{set}"
        );
    }
    assert_eq!((&seen["seccomp"], &app["seccomp"]), (&"2".into(), &"2".into()));
    // The command is in the app's cgroup in every hierarchy, as the host sees it, too.
    assert_eq!(seen["cgroup"], app["cgroup"]);
    let mut child = podctl.command(&["enter", &pod.uuid, "--app=one", "--", "/probe", "sleep", "4711"]).spawn()?;
    let entered = wait_for("the command", 10, || {
        let mut family = descendants(std::process::id() as i32).into_iter().chain(descendants(pod.pid()));
        family.find(|p| p.words == "/probe sleep 4711")
    });
    let cgroup = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup"));
    assert_eq!(cgroup(entered.pid)?, cgroup(pid.pid)?);
    kill(Pid::from_raw(entered.pid), Signal::SIGKILL)?;
    child.wait()?;
    let fds: Vec<String> = seen["fds"].as_object().map(|fds| fds.keys().cloned().collect()).unwrap_or_default();
    assert_eq!(fds, ["0", "1", "2"], "{}", seen["fds"]);
    let cwd = seen["cwd"].as_str().unwrap_or_default();
    assert!(["/", "/home"].contains(&cwd), "{cwd:?} is not in the app");
    assert_eq!((&seen["namespaces"], &seen["root"]), (&app["namespaces"], &app["root"]));
    for (call, outcome) in
        [("sethostname", "EXFULL"), ("clock_settime", "EXFULL"), ("chroot", "ok"), ("mknod", "EPERM")]
    {
        assert_eq!(pod.enter("one", &["/probe", "syscall", call]).ok(), outcome, "{call}");
    }
    pod.enter("one", &["/probe", "alloc", "8000000"]).ok();
    let killed = pod.enter("one", &["/probe", "alloc", "100000000"]);
    assert_eq!(killed.signal, Some(Signal::SIGKILL as i32), "{killed}");
    assert_eq!(pod.state("one"), "running", "the app itself has not grown");
    pod.end();
    Ok(())
}

fn its_end_is_told_exactly(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    for code in [0, 1, 7, 126, 254, 255] {
        assert_eq!(pod.enter("one", &["/probe", "exit", &code.to_string()]).code, Some(code));
    }
    for signal in [
        Signal::SIGTERM,
        Signal::SIGKILL,
        Signal::SIGUSR1,
        Signal::SIGSEGV,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGABRT,
    ] {
        let out = pod.enter("one", &["/probe", "signal", signal.as_str()]);
        assert_eq!(out.signal, Some(signal as i32), "{out}");
    }
    for missing in ["/no/such/file", "no-such-command", "/data"] {
        pod.enter("one", &[missing]).complaint();
    }
    // Words that look like flags belong to the command.
    assert_eq!(pod.enter("one", &["/probe", "print", "--app=other"]).ok(), "--app=other");
    assert_eq!(pod.enter("one", &["/probe", "print", "--"]).ok(), "--");
    assert_eq!(pod.enter("one", &["/probe", "print", ""]).ok(), "");
    pod.end();
    Ok(())
}

fn its_environment_is_the_apps(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &["--env=COLOUR=green", "--env=PATH=/bin"], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let args = ["enter", &pod.uuid, "--app", "one", "--", "probe", "report"];
    let env = |term: Option<&str>| -> Value {
        let mut command = podctl.command(&args);
        command.env("SECRET", "of the caller").env("COLOUR", "red");
        match term {
            Some(term) => command.env("TERM", term),
            None => command.env_remove("TERM"),
        };
        let report: Value = serde_json::from_str(&run(&mut command).ok()).expect("a report");
        report["env"].clone()
    };
    let with = env(Some("xterm-256color"));
    assert_eq!((with["COLOUR"].as_str(), with["AC_APP_NAME"].as_str()), (Some("green"), Some("one")), "{with}");
    assert_eq!(with["TERM"], "xterm-256color");
    assert!(with.get("SECRET").is_none(), "{with}");
    assert_eq!(env(None)["TERM"], "vt100");
    pod.end();
    Ok(())
}

fn its_streams_are_the_callers(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let out = pod.enter("one", &["/probe", "print", "to out", "+", "warn", "to err"]);
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("to out\n", "to err\n"));
    let mut command = podctl.command(&["enter", &pod.uuid, "--app", "one", "--", "/probe", "cat", "/proc/self/fd/0"]);
    assert_eq!(run_with_input(&mut command, "through the pipe").ok(), "through the pipe");
    let report: Value = serde_json::from_str(&pod.enter("one", &["/probe", "report"]).ok())?;
    assert_eq!((&report["tty"]["stdin"], &report["tty"]["controlling"]), (&false.into(), &false.into()), "{report}");
    pod.end();
    Ok(())
}

fn signals_reach_it(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let args = ["enter", &pod.uuid, "--app", "one", "--", "/probe", "write", "/out/up", "x", "+", "orderly", "33"];
    let mut child = podctl.command(&args).spawn()?;
    wait_for("the command", 10, || podctl.out().join("up").exists().then_some(()));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
    assert_eq!(child.wait()?.code(), Some(33), "SIGTERM was not passed on");
    // The end of the caller ends the command.
    let args = ["enter", &pod.uuid, "--app", "one", "--", "/probe", "sleep", "4242"];
    let mut child = podctl.command(&args).spawn()?;
    let inside = wait_for("the command", 10, || {
        descendants(std::process::id() as i32)
            .into_iter()
            .chain(descendants(pod.pid()))
            .find(|p| p.words == "/probe sleep 4242")
            .map(|p| p.pid)
    });
    child.kill()?;
    child.wait()?;
    wait_for("the command to end with its caller", 5, || (!Process::lives(inside)).then_some(()));
    pod.end();
    Ok(())
}

fn what_cannot_be_entered(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.enter("absent", &["/probe", "help"]).complaint();
    let out = podctl.run(&["enter", &pod.uuid, "--", "/no/such/file"]);
    assert!(out.code.is_some_and(|c| c != 0), "{out}");
    // Without an app the command runs in the root of the stage1.
    let listing = podctl.ok(&["enter", &pod.uuid, "--", "/opt/stage1/bin/enter", "--help"]);
    assert!(listing.contains("Usage"), "{listing}");
    // A PID of another process in the pid file is not entered.
    let mut other = std::process::Command::new("sleep").arg("60").spawn()?;
    let path = pod.dir().join("pid");
    let kept = fs::read_to_string(&path)?;
    pod.add("one", &[], &["sleep", "inf"]);
    fs::write(&path, format!("{}\n", other.id()))?;
    pod.enter("one", &["/probe", "help"]).complaint();
    pod.app("start", "one", &[]).complaint();
    fs::write(&path, kept)?;
    other.kill()?;
    other.wait()?;
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.enter("one", &["/probe", "print", "x"]).ok(), "x");
    pod.end();
    Ok(())
}

/// A command is never in another app's cgroup, or outside the app's limits and device policy.
fn an_app_that_does_not_run_is_entered_within_its_limits(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("other", &[], &["sleep", "inf"]);
    pod.app("start", "other", &[]).ok();
    pod.add("one", &["--memory=64Mi", "--memory-swap=0", "--pids=20", "--cpu=500m"], &["exit", "0"]);
    let enter = |when: &str| {
        let report: Value = serde_json::from_str(&pod.enter("one", &["/probe", "report"]).ok()).expect("a report");
        let held = held_as_the_app(&report["cgroup"], t.layout);
        assert!(held, "{when}: {}", report["cgroup"]);
        // /dev/kmsg is not a device of an app.
        assert_eq!(pod.enter("one", &["/probe", "mknod", "c1:11", "/kmsg"]).ok(), "EPERM", "{when}");
        let null = pod.enter("one", &["/probe", "open", "w", "/dev/null"]);
        assert_eq!(null.ok(), "ok", "{when}");
        if t.has_controllers() {
            let out = pod.enter("one", &["/probe", "alloc", "100000000"]);
            assert!(out.signal == Some(9) || out.code == Some(137), "{when}: more than the limit: {out}");
            let many = [&["/probe"][..], &["spawn", "sleep", "1", "+"].repeat(25)].concat();
            assert!(pod.enter("one", &many).code != Some(0), "{when}: more processes than allowed");
        }
    };
    enter("never started");
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.exit_code("one"), 0);
    enter("ended");
    // An entered process is not the app: the app can be started and removed.
    let mut entered = podctl.command(&["enter", &pod.uuid, "--app=one", "--", "/probe", "sleep", "inf"]).spawn()?;
    pod.app("start", "one", &[]).ok();
    pod.app("rm", "one", &[]).ok();
    pod.enter("one", &["/probe", "help"]).complaint();
    pod.end();
    assert!(!entered.wait()?.success());
    Ok(())
}

/// Whether these are the cgroups of app `one`, or of a command in it, in every hierarchy in which systemd tracks
/// processes.
fn held_as_the_app(cgroups: &Value, layout: Layout) -> bool {
    let follows: &[&str] =
        if layout == Layout::V1 { &["0::", ":name=systemd:", ":pids:", ":devices:"] } else { &["0::"] };

    let lines = cgroups.as_array().expect("cgroups").iter().filter_map(Value::as_str);
    let own =
        |line: &str| line.contains("/system.slice/app-one.service") || line.contains("/system.slice/entered-one-");
    let mut held = lines.filter(|line| follows.iter().any(|c| line.contains(c)));
    held.all(own)
}

/// Also while the app starts or ends.
fn a_command_in_an_app_that_comes_and_goes_is_never_held_less(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("other", &[], &["sleep", "inf"]);
    pod.app("start", "other", &[]).ok();
    pod.add("one", &["--memory=64Mi", "--pids=50", "--cpu=500m"], &["report", "/out/one.json", "+", "sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let own = pod.read("one")["cgroup"].clone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (mut ran, mut alone) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                podctl.run(&["app", "stop", &pod.uuid, "--app=one", "--timeout=0"]);
                podctl.run(&["app", "start", &pod.uuid, "--app=one"]);
            }
        });
        for n in 0..400 {
            if n >= 40 && ran > 0 {
                break;
            }
            let said = pod.enter("one", &["/probe", "report"]);
            if said.code == Some(0) {
                let entered: Value = serde_json::from_str(&said.stdout).expect("a report");
                if entered["cgroup"] == own {
                    ran += 1;
                } else {
                    assert!(held_as_the_app(&entered["cgroup"], t.layout), "{}", entered["cgroup"]);
                    alone += 1;
                }
            } else {
                // The command ends with the app: what it has not reported by then it has not done elsewhere.
                assert!(
                    said.signal == Some(9) || said.code == Some(137) || said.stderr.starts_with("enter: "),
                    "{said}"
                );
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(ran > 0, "{ran} commands ran with the app, {alone} alone");
    pod.end();
    Ok(())
}
