//! Faults around logs: a reader that stops, a full disk, a log that is removed, a flood of lines.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::harness::Context;
use tests::process::{Process, run, wait_for};
use tests::{Verdict, dist};

use crate::attach::monitor;
use crate::logs::{Follower, lines, log, wait_for_line};

tests::cases! {
    both a_killed_pods_logs_can_be_read;
    native a_slow_reader_of_run_slows_the_app_down;
    native a_reader_that_stopped_does_not_keep_the_pod;
    native a_log_that_cannot_be_written_is_told;
    native a_pod_that_does_not_boot_explains_itself;
    native nobody_else_speaks_for_an_app;
    native a_damaged_log_is_one_clear_line;
    native a_stopped_reader_of_run_gets_all_when_it_goes_on;
    native a_stopped_follower_holds_nobody_up;
    native a_log_that_vanishes_begins_anew;
    native a_flood_of_syslog_costs_the_others_nothing;
}

fn a_killed_pods_logs_can_be_read(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &[], &["lines", "1000", "line", "+", "sleep", "inf"]);
    pod.app("start", "a", &[]).ok();
    wait_for_line(&pod, "a", "line 999");
    let follower = Follower::start(&podctl, &[&pod.uuid, "-n", "1"]);
    follower.shows("a: line 999");
    let monitor = Process::look_up(pod.pid()).expect("the pod").parent;
    kill(Pid::from_raw(monitor), Signal::SIGKILL)?;
    follower.ends(&[]);
    let out = podctl.run(&["logs", &pod.uuid, "--app", "a"]);
    let expected: String = (0..1000).map(|n| format!("line {n}\n")).collect();
    assert!(out.code == Some(0) && out.stdout == expected && out.stderr.is_empty(), "{}", out.stderr);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_slow_reader_of_run_slows_the_app_down(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let words = ["run", "--rm", "--net=none", "probe", "--", "lines", "400000", "line"];
    let mut run = podctl.command(&words).stdout(Stdio::piped()).spawn()?;
    std::thread::sleep(Duration::from_secs(3));
    let mut count = 0;
    for line in BufReader::new(run.stdout.take().ok_or("no pipe")?).lines() {
        assert_eq!(line?, format!("line {count}"));
        count += 1;
    }
    assert_eq!(count, 400_000);
    assert!(run.wait()?.success());
    Ok(())
}

/// The log is complete, and the pod ends when it is told to.
fn a_reader_that_stopped_does_not_keep_the_pod(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let words = ["run", "--net=none", "probe", "--name=a", "--", "lines", "100000", "line", "+", "sleep", "inf"];
    let mut run = podctl.command(&words).stdout(Stdio::piped()).spawn()?;
    let uuid = wait_for("the pod", 20, || {
        let list = podctl.json(&["list", "--format", "json"]);
        list[0]["name"].as_str().filter(|_| list[0]["state"] == "running").map(str::to_owned)
    });
    wait_for("output", 20, || (!lines(&podctl, &[&uuid, "-n", "1"]).is_empty()).then_some(()));
    podctl.ok(&["stop", &uuid]);
    wait_for("the end of run", 20, || run.try_wait().expect("wait"));
    // The lines before the reader was stopped, none missing in between.
    let shown = lines(&podctl, &[&uuid, "--app", "a"]);
    assert!(shown.len() > 1000, "{}", shown.len());
    for (n, line) in shown.iter().enumerate().take(shown.len() - 1) {
        assert_eq!(*line, format!("line {n}"));
    }
    podctl.ok(&["rm", &uuid]);
    Ok(())
}

/// How many bytes a process has read: proc_pid_io(5).
#[track_caller]
fn bytes_read(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).expect("io");
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("rchar");
    line.parse().expect("a number")
}

/// A full disk stops no app, and the log says that lines are missing.
fn a_log_that_cannot_be_written_is_told(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add(
        "a",
        &[],
        &[
            "print",
            "before",
            "+",
            "wait",
            "/out/go",
            "+",
            "lines",
            "60000",
            "line",
            "+",
            "write",
            "/out/done",
            "x",
            "+",
            "wait",
            "/out/more",
            "+",
            "print",
            "after",
        ],
    );
    let place = pod.dir().join("logs");
    fs::create_dir(&place)?;
    let mount = |args: &[&str]| run(Command::new("mount").args(args).arg(&place)).ok();
    mount(&["-t", "tmpfs", "-o", "size=256k", "tmpfs"]);
    pod.app("start", "a", &[]).ok();
    wait_for_line(&pod, "a", "before");
    let monitor = monitor(&pod);
    let before = bytes_read(monitor);
    fs::write(podctl.out().join("go"), "")?;
    wait_for("the app to go on", 20, || podctl.out().join("done").exists().then_some(()));
    // It reads 256 KiB at a time at most, and writes them before it reads more.
    let written: u64 = (0..60_000).map(|n| format!("line {n}\n").len() as u64).sum();
    wait_for("the monitor to read all lines", 20, || (bytes_read(monitor) - before >= written).then_some(()));
    mount(&["-o", "remount,size=16m"]);
    fs::write(podctl.out().join("more"), "")?;
    assert_eq!(pod.exit_code("a"), 0);
    let shown = lines(&podctl, &[&pod.uuid, "--app", "a"]);
    assert_eq!(shown.last().map(String::as_str), Some("after"));
    let told = shown.iter().filter(|line| line.contains("bytes of this log could not be written")).count();
    assert_eq!(told, 1, "{} lines", shown.len());
    assert!(shown.iter().filter(|line| line.starts_with("line ")).count() > 1000);
    podctl.ok(&["stop", &pod.uuid]);
    run(Command::new("umount").arg(&place)).ok();
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_pod_that_does_not_boot_explains_itself(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let broken = |name: &str, remove: &str| {
        let tree = t.dir.join(name);
        run(Command::new("cp").arg("-a").arg(dist().join("stage1")).arg(&tree)).ok();
        fs::remove_file(tree.join("rootfs").join(remove)).unwrap_or_else(|e| panic!("{remove}: {e}"));
        let file = t.dir.join(format!("{name}.aci"));
        run(Command::new("tar").arg("-cf").arg(&file).arg("-C").arg(&tree).args(["manifest", "rootfs"])).ok();
        file.display().to_string()
    };
    let library = fs::read_dir(dist().join("stage1/rootfs/usr/lib/x86_64-linux-gnu/systemd"))?
        .filter_map(|f| f.ok()?.file_name().into_string().ok())
        .find(|name| name.starts_with("libsystemd-core"))
        .ok_or("systemd has no library")?;
    for (name, remove, why) in [
        ("no-systemd", "usr/lib/systemd/systemd", "execve"),
        ("no-library", &format!("usr/lib/x86_64-linux-gnu/systemd/{library}"), library.as_str()),
    ] {
        let stage1 = broken(name, remove);
        let line = podctl.fails(&["sandbox", "--stage1", &stage1]);
        assert!(line.contains("did not come up") && line.contains(why), "{line}");
        // Only the pod's monitor can report it here.
        let out = podctl.run(&["run", "--rm", "--net=none", "--stage1", &stage1, "probe"]);
        assert!(out.code.is_some_and(|code| code != 0) && out.stderr.contains(why), "{out}");
    }
    assert_eq!(podctl.json(&["list", "--format", "json"]).as_array().map(Vec::len), Some(0));
    Ok(())
}

/// A process that is root in the pod, but not in the app's unit, is refused.
fn nobody_else_speaks_for_an_app(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &[], &["sleep", "inf"]);
    pod.app("start", "a", &[]).ok();
    let out = podctl.run(&["enter", &pod.uuid, "--", "/opt/stage1/bin/reaper", "--wait=5000", "a"]);
    assert_ne!(out.code, Some(0));
    assert!(out.stderr.contains("may make no requests about it"), "{out}");
    // The file is out of an app's reach.
    let seen = pod.enter("a", &["/probe", "open", "r", "/run/stage1/monitor"]);
    assert_eq!(seen.stdout.trim(), "ENOENT", "{seen}");
    pod.end();
    Ok(())
}

fn a_damaged_log_is_one_clear_line(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.run_app("a", &[], &["lines", "2000", "line"]);
    podctl.ok(&["stop", &pod.uuid]);
    let file = log(&pod, "a").join("1.log");
    let good = fs::read(&file)?;
    let mut bad = good.clone();
    bad[1000..1200].fill(0xff);
    fs::write(&file, &bad)?;
    let out = podctl.run(&["logs", &pod.uuid]);
    let shown = out.stdout.lines().count();
    assert!(out.code == Some(0) && (1990..2000).contains(&shown), "{shown} lines, {}", out.stderr);
    let said: Vec<&str> = out.stderr.lines().collect();
    assert!(said.len() <= 1, "{said:?}");
    for end in [0, 10, 100, 4096] {
        fs::write(&file, &good[..end])?;
        let out = podctl.run(&["logs", &pod.uuid]);
        assert!(out.code == Some(0) && out.stderr.lines().count() <= 1, "{end}: {}", out.stderr);
    }
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

/// The reader of `run`'s output, a process that is stopped for a while.
fn a_stopped_reader_of_run_gets_all_when_it_goes_on(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let out = podctl.out();
    fs::create_dir_all(&out)?;
    let volume = format!("--volume=out,kind=host,source={}", out.display());
    let words = ["run", "--net=none", &volume, "probe", "--name=a", "--mount=volume=out,target=/out", "--"];
    let words = [&words[..], &["wait", "/out/go", "+", "lines", "400000", "line"]].concat();
    let mut run = podctl.command(&words).stdout(Stdio::piped()).spawn()?;
    let mut reader = Command::new("cat").stdin(run.stdout.take().ok_or("no pipe")?).stdout(Stdio::piped()).spawn()?;
    let stopped = Pid::from_raw(reader.id() as i32);
    kill(stopped, Signal::SIGSTOP)?;
    fs::write(out.join("go"), "")?;
    let uuid = wait_for("the pod", 20, || {
        let list = podctl.json(&["list", "--format", "json"]);
        list[0]["name"].as_str().filter(|_| list[0]["state"] == "running").map(str::to_owned)
    });
    wait_for("output", 20, || (!lines(&podctl, &[&uuid, "-n", "1"]).is_empty()).then_some(()));
    // The app can't have gone on, as its output was not read.
    assert_eq!(podctl.json(&["list", "--format", "json"])[0]["state"], "running");
    kill(stopped, Signal::SIGCONT)?;
    let shown = BufReader::new(reader.stdout.take().ok_or("no pipe")?).lines().collect::<Result<Vec<_>, _>>()?;
    let expected = (0..400_000).map(|n| format!("line {n}"));
    assert!(shown.iter().cloned().eq(expected), "{} lines", shown.len());
    assert!(run.wait()?.success() && reader.wait()?.success());
    assert!(lines(&podctl, &[&uuid, "--app", "a"]) == shown);
    podctl.ok(&["rm", &uuid]);
    Ok(())
}

fn a_stopped_follower_holds_nobody_up(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &[], &["print", "begin", "+", "wait", "/out/go", "+", "lines", "200000", "line"]);
    pod.app("start", "a", &[]).ok();
    let follower = Follower::start(&podctl, &[&pod.uuid, "--app", "a"]);
    follower.shows("begin");
    let stopped = Pid::from_raw(follower.child.id() as i32);
    kill(stopped, Signal::SIGSTOP)?;
    fs::write(podctl.out().join("go"), "")?;
    assert_eq!(pod.exit_code("a"), 0);
    podctl.ok(&["stop", &pod.uuid]);
    kill(stopped, Signal::SIGCONT)?;
    for n in 0..200_000 {
        follower.shows(&format!("line {n}"));
    }
    follower.ends(&[]);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

/// The lines in the removed log are lost; later lines are kept, and shown to a follower.
fn a_log_that_vanishes_begins_anew(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let words =
        ["print", "one", "+", "wait", "/out/1", "+", "print", "two", "+", "wait", "/out/2", "+", "print", "three"];
    pod.add("a", &[], &words);
    pod.app("start", "a", &[]).ok();
    let follower = Follower::start(&podctl, &[&pod.uuid, "--app", "a"]);
    follower.shows("one");
    fs::remove_file(log(&pod, "a").join("1.log"))?;
    fs::write(podctl.out().join("1"), "")?;
    follower.shows("two");
    assert_eq!(lines(&podctl, &[&pod.uuid, "--app", "a"]), ["two"]);
    fs::remove_dir_all(pod.dir().join("logs"))?;
    fs::write(podctl.out().join("2"), "")?;
    assert_eq!(pod.exit_code("a"), 0);
    follower.shows("three");
    assert_eq!(lines(&podctl, &[&pod.uuid, "--app", "a"]), ["three"]);
    podctl.ok(&["stop", &pod.uuid]);
    follower.ends(&[]);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_flood_of_syslog_costs_the_others_nothing(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("flood", &[], &["wait", "/out/go", "+", "syslog", "20000", "message"]);
    pod.add("other", &[], &["wait", "/out/go", "+", "lines", "50000", "line"]);
    for app in ["flood", "other"] {
        pod.app("start", app, &[]).ok();
    }
    fs::write(podctl.out().join("go"), "")?;
    for (app, count, text) in [("other", 50_000, "line"), ("flood", 20_000, "message")] {
        assert_eq!(pod.exit_code(app), 0);
        let shown = lines(&podctl, &[&pod.uuid, "--app", app]);
        assert!(shown.iter().cloned().eq((0..count).map(|n| format!("{text} {n}"))), "{app}: {} lines", shown.len());
    }
    pod.end();
    Ok(())
}
