//! A pod and its apps from the first to the last command, with podctl.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Pod;
use tests::process::{Process, descendants, mountinfo, run, wait_for};

tests::cases! {
    both an_app_from_add_to_rm;
    both verbs_can_be_repeated;
    both exit_codes_are_exact;
    both signals_are_128_and_more;
    both status_is_right_after_every_stop 240;
    both twenty_at_once 120;
    both any_name_is_only_a_name;
    both a_stop_ends_everything_that_the_app_started;
    native two_pods_know_nothing_of_each_other;
    both a_killed_monitor_takes_the_pod_along;
    both sigterm_ends_the_pod_in_order;
    both a_second_sigterm_ends_it_at_once;
    both a_forced_stop_does_not_wait;
    both garbage_is_collected_once;
    native the_pods_mounts_grow_by_a_line_an_app;
    native a_pod_in_the_foreground_ends_by_sigterm;
    native a_prefix_of_a_uuid_is_enough;
    native an_ended_pod_still_tells;
    native a_half_done_rm_is_finished;
    native another_stage1_image;
}

fn an_app_from_add_to_rm(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    assert_eq!(fs::read_link(pod.dir().join("stage1/rootfs/rkt/supervisor-status"))?.to_str(), Some("ready"));
    let listed = podctl.json(&["list", "--format", "json"]);
    assert!(listed.to_string().contains(&pod.uuid), "{listed}");

    pod.add("one", &[], &["write", "/out/hello", "from inside", "+", "orderly", "7"]);
    let status = pod.status("one");
    assert_eq!((status["name"].as_str(), status["state"].as_str()), (Some("one"), Some("created")));
    assert!(status["created_at"].as_i64().is_some_and(|t| t > 1_500_000_000_000_000_000), "{status}");
    assert!(!podctl.out().join("hello").exists(), "it runs before it was started");

    pod.app("start", "one", &[]).ok();
    let hello = podctl.out().join("hello");
    wait_for("the app's file", 10, || hello.exists().then_some(()));
    assert_eq!(fs::read_to_string(hello)?, "from inside");
    let status = pod.status("one");
    assert_eq!(status["state"], "running");
    assert!(status["started_at"].as_i64() >= status["created_at"].as_i64(), "{status}");
    let apps = podctl.json(&["app", "list", &pod.uuid, "--format", "json"]);
    assert_eq!(apps.as_array().map(Vec::len), Some(1), "{apps}");
    assert_eq!(apps[0]["name"], "one");
    assert_eq!(apps[0]["state"], "running");

    assert_eq!(pod.enter("one", &["/probe", "print", "entered"]).ok(), "entered");

    descendants(pod.pid()).iter().filter(|p| p.words.contains("orderly")).for_each(|p| Process::holds_sigterm(p.pid));
    pod.app("stop", "one", &[]).ok();
    let status = pod.status("one");
    assert_eq!((status["state"].as_str(), status["exit_code"].as_i64()), (Some("exited"), Some(7)));
    assert!(status["finished_at"].as_i64() >= status["started_at"].as_i64(), "{status}");
    pod.app("rm", "one", &[]).ok();
    assert!(pod.manifest_apps().is_empty());
    assert_eq!(podctl.json(&["app", "list", &pod.uuid, "--format", "json"]).as_array().map(Vec::len), Some(0));
    let text = podctl.ok(&["status", &pod.uuid]);
    assert!(text.contains("running"), "{text}");
    pod.end();
    Ok(())
}

fn verbs_can_be_repeated(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["append", "/out/starts", "x", "+", "sleep", "inf"]);
    pod.app("stop", "one", &[]).ok();
    assert_eq!(pod.state("one"), "created", "a stop of what never ran changes nothing");
    pod.app("start", "one", &[]).ok();
    let starts = podctl.out().join("starts");
    // The file is there before it has a line.
    wait_for("the first start", 10, || {
        fs::read_to_string(&starts).is_ok_and(|text| text.ends_with('\n')).then_some(())
    });
    let before = pod.status("one");
    pod.app("start", "one", &[]).ok();
    assert_eq!(pod.status("one"), before, "a second start changes nothing");
    assert_eq!(fs::read_to_string(&starts)?.lines().count(), 1);
    pod.app("stop", "one", &[]).ok();
    let before = pod.status("one");
    pod.app("stop", "one", &[]).ok();
    assert_eq!(pod.status("one"), before, "a second stop changes nothing");
    // Repeated faster than systemd's own limit of five starts in ten seconds.
    for round in 2..=8 {
        pod.app("start", "one", &[]).ok();
        wait_for("the next start", 10, || {
            (fs::read_to_string(&starts).unwrap_or_default().lines().count() == round).then_some(())
        });
        assert_eq!(pod.state("one"), "running");
        pod.app("stop", "one", &[]).ok();
    }
    pod.app("rm", "one", &[]).ok();
    pod.run_app("one", &[], &["append", "/out/starts", "again"]);
    pod.end();
    Ok(())
}

fn exit_codes_are_exact(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for code in [0, 1, 2, 7, 126, 127, 128, 200, 203, 217, 226, 254, 255] {
        let app = format!("exits-{code}");
        pod.add(&app, &[], &["exit", &code.to_string()]);
        pod.app("start", &app, &[]).ok();
        assert_eq!(pod.exit_code(&app), code, "{app}");
        let file = fs::read_to_string(pod.dir().join("stage1/rootfs/rkt/status").join(&app))?;
        assert_eq!(file, format!("{code}\n"));
    }
    pod.end();
    Ok(())
}

fn signals_are_128_and_more(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGABRT,
        Signal::SIGKILL,
        Signal::SIGUSR1,
        Signal::SIGSEGV,
        Signal::SIGALRM,
        Signal::SIGTERM,
    ] {
        let app = signal.as_str().to_lowercase();
        pod.add(&app, &[], &["signal", signal.as_str()]);
        pod.app("start", &app, &[]).ok();
        assert_eq!(pod.exit_code(&app), 128 + i64::from(signal as i32), "{app}");
    }
    pod.end();
    Ok(())
}

fn status_is_right_after_every_stop(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    for round in 1..=200 {
        pod.app("start", "one", &[]).ok();
        pod.app("stop", "one", &[]).ok();
        let status = pod.status("one");
        assert_eq!(status["state"], "exited", "round {round}: {status}");
        assert_eq!(status["exit_code"], 143, "round {round}: {status}");
    }
    pod.end();
    Ok(())
}

fn twenty_at_once(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let names: Vec<String> = (0..20).map(|n| format!("app-{n}")).collect();
    let each = |what: &(dyn Fn(&Pod<'_>, &str) + Sync)| {
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| what(&pod, name));
            }
        });
    };
    // A caller may have so few descriptors that the monitor can't have enough, and lack the privilege to raise the
    // limit.
    let monitor = Process::parent_of(pod.pid());
    let enough = Process::most_files(monitor) >= 256;
    let refused = std::sync::Mutex::new(Vec::new());
    each(&|pod, name| {
        pod.add(name, &[], &["write", &format!("/out/{name}"), name, "+", "sleep", "inf"]);
        let out = pod.app("start", name, &[]);
        if enough || out.code == Some(0) {
            out.ok();
        } else {
            let line = out.complaint();
            assert!(line.contains("no descriptor left") && line.contains("ulimit -n"), "{line}");
            refused.lock().expect("the list").push(name.to_owned());
        }
    });
    let refused = refused.into_inner().expect("the list");
    assert!(refused.len() < 16, "{refused:?}");
    let mut listed = pod.manifest_apps();
    listed.sort();
    let mut wanted = names.clone();
    wanted.sort();
    assert_eq!(listed, wanted);
    for name in &names {
        if refused.contains(name) {
            assert_eq!(pod.state(name), "exited", "{name}");
            continue;
        }
        assert_eq!(pod.state(name), "running", "{name}");
        wait_for(name, 10, || podctl.out().join(name).exists().then_some(()));
    }
    each(&|pod, name| {
        pod.app("stop", name, &[]).ok();
        pod.app("rm", name, &[]).ok();
    });
    assert!(pod.manifest_apps().is_empty(), "{:?}", pod.manifest_apps());
    let stage2 = pod.dir().join("stage1/rootfs/opt/stage2");
    assert_eq!(fs::read_dir(stage2)?.count(), 0, "app roots are left");
    let below =
        mountinfo("self").into_iter().filter(|m| m[4].contains(&pod.uuid) && m[4].contains("/opt/stage2/")).count();
    assert_eq!(below, 0, "app roots are still mounted");
    let running = descendants(pod.pid()).into_iter().filter(|p| p.words.contains("/probe")).count();
    assert_eq!(running, 0, "apps still run");
    pod.end();
    Ok(())
}

fn any_name_is_only_a_name(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let long = "n".repeat(200);
    let names = ["shutdown", "systemd-journald", "dbus", "default", "supervisor-ready", "app", "0", long.as_str()];
    // No more at a time than fit where descriptors are few.
    for names in names.chunks(4) {
        for name in names {
            pod.add(name, &[], &["write", &format!("/out/{name}"), "lives", "+", "sleep", "inf"]);
            pod.app("start", name, &[]).ok();
            wait_for(name, 10, || podctl.out().join(name).exists().then_some(()));
            assert_eq!(pod.state(name), "running", "{name}");
        }
        // The pod and its other apps are unaffected.
        for name in names {
            assert_eq!(pod.state(name), "running", "{name}");
            assert_eq!(pod.enter(name, &["/probe", "print", "well"]).ok(), "well");
            pod.app("stop", name, &[]).ok();
            pod.app("rm", name, &[]).ok();
        }
    }
    assert!(Process::lives(pod.pid()));
    pod.run_app("after", &[], &["exit", "0"]);
    pod.end();
    Ok(())
}

fn a_stop_ends_everything_that_the_app_started(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let family = [
        "spawn", "stubborn", "+", "spawn", "spawn", "stubborn", ",", "stubborn", "+", "write", "/out/up", "x", "+",
        "stubborn",
    ];
    for timeout in ["0", "1"] {
        let app = format!("stubborn-{timeout}");
        pod.add(&app, &[], &family);
        pod.app("start", &app, &[]).ok();
        let up = podctl.out().join("up");
        wait_for("the family", 10, || up.exists().then_some(()));
        fs::remove_file(up)?;
        wait_for("its members", 10, || {
            let all = descendants(pod.pid()).into_iter().filter(|p| p.words.contains("stubborn"));
            (all.count() >= 3).then_some(())
        });
        let began = Instant::now();
        pod.app("stop", &app, &["--timeout", timeout]).ok();
        assert!(began.elapsed() < Duration::from_secs(20), "the stop took {:?}", began.elapsed());
        let status = pod.status(&app);
        assert_eq!((status["state"].as_str(), status["exit_code"].as_i64()), (Some("exited"), Some(137)), "{status}");
        let left: Vec<_> = descendants(pod.pid()).into_iter().filter(|p| p.words.contains("stubborn")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    pod.end();
    Ok(())
}

fn two_pods_know_nothing_of_each_other(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let first = podctl.pod(&[]);
    let second = podctl.sandbox(&[]);
    first.add("same", &[], &["sleep", "inf"]);
    let out = podctl.run(&["app", "add", &second.uuid, "probe", "--name", "same", "--", "sleep", "inf"]);
    out.ok();
    first.app("start", "same", &[]).ok();
    assert_eq!((first.state("same"), second.state("same")), ("running".into(), "created".into()));
    let seen = first.enter("same", &["/probe", "ls", "/proc"]).ok();
    let pids = seen.lines().filter(|n| n.parse::<u32>().is_ok()).count();
    assert!(pids < 10, "an app sees more than its pod's processes: {seen}");
    first.end();
    assert!(Process::lives(second.pid()), "the end of one pod ended another");
    second.end();
    Ok(())
}

/// The process that `run` has become: the parent of the pod's PID 1.
fn monitor(pod: &Pod<'_>) -> Pid {
    Pid::from_raw(Process::look_up(pod.pid()).expect("the pod's PID 1").parent)
}

#[track_caller]
fn wait_for_the_end(pod: &Pod<'_>, family: &[Process], monitor: Pid) {
    wait_for("the pod's processes to end", 15, || {
        let mut pids = family.iter().map(|p| p.pid).chain([monitor.as_raw()]);
        (!pids.any(Process::lives)).then_some(())
    });
    let text = pod.podctl.ok(&["status", &pod.uuid]);
    assert!(text.contains("exited"), "{text}");
}

fn family(pod: &Pod<'_>) -> Vec<Process> {
    let pid = pod.pid();
    let mut family = descendants(pid);
    family.extend(Process::look_up(pid));
    assert!(family.len() >= 2, "{family:?}");
    family
}

fn a_killed_monitor_takes_the_pod_along(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["stubborn"]);
    pod.app("start", "one", &[]).ok();
    let (family, monitor) = (family(&pod), monitor(&pod));
    kill(monitor, Signal::SIGKILL)?;
    wait_for_the_end(&pod, &family, monitor);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn sigterm_ends_the_pod_in_order(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["write", "/out/up", "x", "+", "orderly", "5"]);
    pod.app("start", "one", &[]).ok();
    wait_for("the app", 10, || podctl.out().join("up").exists().then_some(()));
    let (family, monitor) = (family(&pod), monitor(&pod));
    kill(monitor, Signal::SIGTERM)?;
    wait_for_the_end(&pod, &family, monitor);
    assert_eq!(pod.status("one")["exit_code"], 5, "the app was not stopped in order");
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_second_sigterm_ends_it_at_once(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["write", "/out/up", "x", "+", "stubborn"]);
    pod.app("start", "one", &[]).ok();
    wait_for("the app", 10, || podctl.out().join("up").exists().then_some(()));
    let (family, monitor) = (family(&pod), monitor(&pod));
    kill(monitor, Signal::SIGTERM)?;
    Process::has_taken(monitor.as_raw(), Signal::SIGTERM as i32);
    assert!(Process::lives(pod.pid()), "the app is stubborn: the pod can't have ended in order yet");
    let began = Instant::now();
    kill(monitor, Signal::SIGTERM)?;
    wait_for_the_end(&pod, &family, monitor);
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_forced_stop_does_not_wait(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["stubborn"]);
    pod.app("start", "one", &[]).ok();
    let (family, monitor) = (family(&pod), monitor(&pod));
    let began = Instant::now();
    podctl.ok(&["stop", "--force", &pod.uuid]);
    wait_for_the_end(&pod, &family, monitor);
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    podctl.ok(&["stop", &pod.uuid]);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn garbage_is_collected_once(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["exit", "0"]);
    pod.app("start", "one", &[]).ok();
    let running = podctl.sandbox(&[]);
    podctl.ok(&["stop", &pod.uuid]);
    // The first round marks pods that have ended; the next one, after their grace period, deletes them.
    for _ in 0..3 {
        podctl.ok(&["gc", "--grace-period", "0s"]);
    }
    for phase in ["run", "exited-garbage", "garbage"] {
        assert!(!podctl.data.join("pods").join(phase).join(&pod.uuid).exists(), "still in {phase}");
    }
    assert!(Process::lives(running.pid()), "gc touched a running pod");
    running.end();
    Ok(())
}

fn the_pods_mounts_grow_by_a_line_an_app(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--volume=shared,kind=empty"]);
    let lines = |pod: &Pod<'_>| mountinfo(&pod.pid().to_string()).len();
    let before = lines(&pod);
    // No more at a time than fit where descriptors are few.
    for n in 0..6 {
        let app = format!("app-{n}");
        pod.add(&app, &["--mount=volume=shared,target=/shared"], &["sleep", "inf"]);
        pod.app("start", &app, &[]).ok();
        assert!(lines(&pod) <= before + n + 1, "{} lines more after {} apps", lines(&pod) - before, n + 1);
    }
    for n in 0..6 {
        let app = format!("app-{n}");
        pod.app("stop", &app, &[]).ok();
        pod.app("rm", &app, &[]).ok();
    }
    assert_eq!(lines(&pod), before, "removed apps left mounts in the pod");
    pod.end();
    Ok(())
}

fn a_pod_in_the_foreground_ends_by_sigterm(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let mut child = podctl.command(&["sandbox", "--foreground"]).stdout(Stdio::null()).spawn()?;
    let uuid = wait_for("the pod to run", 20, || {
        let name = fs::read_dir(podctl.data.join("pods/run")).ok()?.next()?.ok()?.file_name().into_string().ok()?;
        let ready = podctl.data.join("pods/run").join(&name).join("stage1/rootfs/rkt/supervisor-status");
        fs::read_link(ready).is_ok_and(|to| to.to_str() == Some("ready")).then_some(name)
    });
    assert!(child.try_wait()?.is_none(), "it left the foreground");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
    let status = child.wait()?;
    assert!(status.success(), "a pod that was told to end ended with {status}");
    podctl.ok(&["rm", &uuid]);
    Ok(())
}

fn a_prefix_of_a_uuid_is_enough(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let short = Pod { podctl: &podctl, uuid: pod.uuid[..8].to_owned() };
    short.try_add("probe", "one", &[], &["sleep", "inf"]).ok();
    short.app("start", "one", &[]).ok();
    assert_eq!(short.state("one"), "running");
    assert_eq!(short.enter("one", &["/probe", "print", "x"]).ok(), "x");
    podctl.ok(&["stop", &short.uuid]);
    podctl.ok(&["rm", &short.uuid]);
    Ok(())
}

fn an_ended_pod_still_tells(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("done", &[], &["exit", "3"]);
    pod.app("start", "done", &[]).ok();
    assert_eq!(pod.exit_code("done"), 3);
    pod.add("never", &[], &["exit", "0"]);
    podctl.ok(&["stop", &pod.uuid]);
    let status = pod.status("done");
    assert_eq!((status["state"].as_str(), status["exit_code"].as_i64()), (Some("exited"), Some(3)));
    assert_eq!(pod.state("never"), "exited");
    let complaint = pod.app("start", "never", &[]).complaint();
    assert!(complaint.contains("running"), "{complaint}");
    pod.try_add("probe", "late", &[], &["exit", "0"]).complaint();
    pod.enter("done", &["/probe", "help"]).complaint();
    podctl.ok(&["rm", &pod.uuid]);
    podctl.fails(&["status", &pod.uuid]);
    Ok(())
}

fn a_half_done_rm_is_finished(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let by_hand = |app: &str| {
        let file = pod.dir().join("stage1/rootfs/opt/stage1/bin/app-rm");
        run(Command::new(file).arg(format!("--app={app}")).env_clear().current_dir(pod.dir())).ok();
    };
    let root = |app: &str| pod.dir().join("stage1/rootfs/opt/stage2").join(app).join("rootfs");
    // An app that is half removed: after the crossing, after the unmount, after its directory was removed.
    for (app, done) in [("one", 1), ("two", 2), ("three", 3)] {
        pod.add(app, &[], &["exit", "0"]);
        by_hand(app);
        if done >= 2 {
            umount2(&root(app), MntFlags::empty())?;
        }
        if done >= 3 {
            fs::remove_dir_all(pod.dir().join("stage1/rootfs/opt/stage2").join(app))?;
        }
        let tells = |words: &[&str]| {
            let said = podctl.run(words);
            assert!(said.code == Some(0) && said.stderr.contains("podctl app rm"), "{said}");
            said.stdout
        };
        assert!(tells(&["app", "list", &pod.uuid]).contains("half removed"));
        assert!(tells(&["app", "status", &pod.uuid, app]).contains("half_removed=true"));
        let status = pod.status(app);
        assert_eq!((&status["state"], &status["half_removed"]), (&"unknown".into(), &true.into()), "{status}");
        pod.app("start", app, &[]).complaint();
        pod.app("rm", app, &[]).ok();
        assert!(!pod.manifest_apps().contains(&app.to_owned()), "{app} is still listed");
        assert!(!root(app).exists());
        pod.run_app(app, &[], &["exit", "0"]);
    }
    pod.end();
    Ok(())
}

fn another_stage1_image(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let image = tests::dist().join("stage1.aci");
    let pod = podctl.pod(&["--stage1", &image.display().to_string()]);
    pod.run_app("one", &[], &["write", "/out/one", "x"]);
    pod.end();
    podctl.fails(&["sandbox", "--stage1", "/no/such/file"]);
    let text = t.dir.join("text");
    fs::write(&text, "not an image")?;
    podctl.fails(&["sandbox", "--stage1", &text.display().to_string()]);
    // An image of an app is not a stage1.
    let app = tests::image::aci(&t.dir, "app", &tests::image::manifest("app", &serde_json::json!({})));
    podctl.fails(&["sandbox", "--stage1", &app.display().to_string()]);
    assert_eq!(podctl.json(&["list", "--format", "json"]).as_array().map(Vec::len), Some(0));
    Ok(())
}
