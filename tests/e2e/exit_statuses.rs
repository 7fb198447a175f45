//! How apps end: exit statuses, signals, OOM kills, and starts that failed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use stage1::layout;
use tests::Verdict;
use tests::harness::Context;
use tests::process::{Process, run, wait_for};

use crate::event_handlers::{app_pid, wait_out, written};

tests::cases! {
    both every_exit_code_is_told_as_it_is 240;
    both every_fatal_signal_is_told_by_name 240;
    native a_broken_pipe_is_told_as_any_signal;
    native a_kill_for_lack_of_memory_is_told;
    native a_core_dump_is_told;
    native the_end_of_the_pod_is_not_a_failure_of_its_apps;
    both what_can_not_be_executed_has_not_started;
    native what_keeps_a_file_from_being_executed_is_named;
}

fn every_exit_code_is_told_as_it_is(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["exit-from", "/out/code"]);
    for code in 0..=255 {
        fs::write(podctl.out().join("code"), code.to_string())?;
        pod.app("start", "one", &[]).ok();
        assert_eq!(pod.exit_code("one"), code);
        assert_eq!(written(&pod, "one"), Some(format!("{code}\n")));
        // 126, 127 and 254 are also the app's own exit codes once it was started.
        let status = pod.status("one");
        for claim in ["start_failure", "exit_signal", "oom_killed", "core_dumped"] {
            assert_eq!(status.get(claim), None, "{status}");
        }
    }
    pod.end();
    Ok(())
}

/// The signals that end a process that does nothing about them, and their names. Without SIGPIPE, which the probe
/// ignores, as all programs in Rust do: [`a_broken_pipe_is_told_as_any_signal`].
fn fatal_signals() -> Vec<(i64, String)> {
    let classic = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT",
    ];
    let later = [(24, "XCPU"), (25, "XFSZ"), (26, "VTALRM"), (27, "PROF"), (29, "IO"), (30, "PWR"), (31, "SYS")];
    let numbered = |(number, name): (i64, &&str)| (number, format!("SIG{name}"));
    let mut all: Vec<_> = (1..).zip(&classic).map(numbered).filter(|(number, _)| *number != 13).collect();
    all.extend(later.iter().map(|(number, name)| numbered((*number, name))));
    all.extend((34..=64).map(|number| match number - 34 {
        0 => (number, "SIGRTMIN".to_owned()),
        more => (number, format!("SIGRTMIN+{more}")),
    }));
    all
}

fn every_fatal_signal_is_told_by_name(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    for (number, name) in fatal_signals() {
        pod.app("start", "one", &[]).ok();
        let pid = wait_for("its process", 10, || app_pid(&pod, "sleep"));
        // Of these two a program in Rust ends the second time only: the first time its own handler takes itself away.
        run(Command::new("kill").args([format!("-{number}"), pid.to_string()])).ok();
        if ["SIGBUS", "SIGSEGV"].contains(&name.as_str()) {
            Process::has_taken(pid, number as i32);
            run(Command::new("kill").args([format!("-{number}"), pid.to_string()])).ok();
        }
        assert_eq!(pod.exit_code("one"), 128 + number, "{name}");
        assert_eq!(written(&pod, "one"), Some(format!("{}\n", 128 + number)));
        let status = pod.status("one");
        assert_eq!(status["exit_signal"].as_str(), Some(name.as_str()), "{status}");
        assert_eq!((status.get("start_failure"), status.get("oom_killed")), (None, None), "{status}");
    }
    pod.end();
    Ok(())
}

/// systemd would ignore this signal in services.
fn a_broken_pipe_is_told_as_any_signal(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = crate::attach::pod(&podctl, &t.dir.join("root"), &[]);
    crate::attach::start(&pod, "one", &[], "kill -PIPE $$; exit 3");
    assert_eq!(pod.exit_code("one"), 141);
    assert_eq!(written(&pod, "one"), Some("141\n".to_owned()));
    assert_eq!(pod.status("one")["exit_signal"], "SIGPIPE");
    pod.end();
    let ended =
        podctl.run(&["run", "--rm", "--net=none", "shell", "--exec=/bin/sh", "--", "-c", "kill -PIPE $$; exit 3"]);
    assert_eq!(ended.code, Some(141), "{ended}");
    Ok(())
}

fn a_kill_for_lack_of_memory_is_told(t: &Context) -> Verdict {
    if !t.has_controllers() {
        return Err("this machine has no memory controller: what this test is for can't be seen on it".into());
    }
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("big", &["--memory=32Mi"], &["alloc", "100000000", "+", "exit", "0"]);
    pod.app("start", "big", &[]).ok();
    assert_eq!(pod.exit_code("big"), 137);
    let status = pod.status("big");
    assert_eq!(
        (status["exit_signal"].as_str(), status["oom_killed"].as_bool()),
        (Some("SIGKILL"), Some(true)),
        "{status}"
    );
    // The next run starts afresh: an ordinary kill.
    pod.add("kill", &["--memory=32Mi"], &["sleep", "inf"]);
    pod.app("start", "kill", &[]).ok();
    let pid = wait_for("its process", 10, || app_pid(&pod, "sleep"));
    run(Command::new("kill").args(["-KILL", &pid.to_string()])).ok();
    assert_eq!(pod.exit_code("kill"), 137);
    assert_eq!(pod.status("kill").get("oom_killed"), None);
    // A child is killed; the app goes on and exits by itself.
    pod.add("child", &["--memory=32Mi"], &["spawn", "alloc", "100000000", "+", "reap", "+", "exit", "11"]);
    pod.app("start", "child", &[]).ok();
    assert_eq!(pod.exit_code("child"), 11);
    assert_eq!(pod.status("child")["oom_killed"], true);
    // Memory that no process holds any more does not keep the reaper from running.
    pod.add("shm", &["--memory=32Mi"], &["fill", "/dev/shm/full", "100000000"]);
    pod.app("start", "shm", &[]).ok();
    assert_eq!(pod.exit_code("shm"), 137);
    assert_eq!(pod.status("shm")["oom_killed"], true);
    pod.app("rm", "shm", &[]).ok();
    pod.add(
        "shm-stop",
        &["--memory=32Mi"],
        &["fill", "/dev/shm/nearly", "33000000", "+", "write", "/out/full", "x", "+", "sleep", "inf"],
    );
    pod.app("start", "shm-stop", &[]).ok();
    wait_out(&podctl, "full");
    pod.app("stop", "shm-stop", &[]).ok();
    assert_eq!((pod.state("shm-stop").as_str(), pod.exit_code("shm-stop")), ("exited", 143));
    pod.app("rm", "shm-stop", &[]).ok();
    // The count of one run does not carry over to the next one.
    pod.add("twice", &["--memory=32Mi"], &["wait", "/out/never"]);
    for (actions, told) in [(true, Some(true)), (false, None)] {
        pod.app("start", "twice", &[]).ok();
        if actions {
            let ended = pod.enter("twice", &["/probe", "alloc", "100000000"]);
            assert!(ended.signal == Some(9) || ended.code == Some(137), "{ended}");
        }
        pod.app("stop", "twice", &[]).ok();
        assert_eq!(pod.status("twice").get("oom_killed").and_then(Value::as_bool), told);
    }
    pod.end();
    Ok(())
}

/// Also if an `app-stop` that was killed has left its note, which tells the reaper that the app alone is stopped.
fn the_end_of_the_pod_is_not_a_failure_of_its_apps(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for app in ["one", "two"] {
        pod.add(app, &[], &["sleep", "inf"]);
        pod.app("start", app, &[]).ok();
    }
    pod.app("stop", "one", &[]).ok();
    assert_eq!(pod.exit_code("one"), 143);
    let notes = PathBuf::from(format!("/proc/{}/root", pod.pid())).join(&layout::NOTES[1..]);
    let note = notes.join("one.stop");
    assert!(!note.exists(), "after the stop");

    fs::write(&note, "")?;
    pod.app("start", "one", &[]).ok();
    podctl.ok(&["stop", &pod.uuid]);
    for app in ["one", "two"] {
        assert_eq!(pod.exit_code(app), 0, "{}", pod.status(app));
    }
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_core_dump_is_told(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    // The machine decides where core dumps go; a plain name is a file in the working directory.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let plain = !pattern.trim().is_empty() && !pattern.starts_with(['|', '/']);
    for (app, actions, dumps) in [
        ("dumps", &["dump-core", "+", "signal", "SIGABRT"][..], true),
        ("dies", &["signal", "SIGABRT"], false),
        ("killed", &["dump-core", "+", "signal", "SIGKILL"], false),
    ] {
        pod.add(app, &["--working-dir=/tmp"], actions);
        pod.app("start", app, &[]).ok();
        let code = pod.exit_code(app);
        let left = pod.enter(app, &["/probe", "ls", "/tmp"]).ok();
        let status = pod.status(app);
        assert_eq!(code, if app == "killed" { 137 } else { 134 }, "{status}");
        let told = status["core_dumped"].as_bool().unwrap_or(false);
        if plain {
            assert_eq!((told, !left.is_empty()), (dumps, dumps), "{app}, files {left:?}: {status}");
        }
        assert!(dumps || !told, "{app}: {status}");
    }
    pod.end();
    Ok(())
}

fn what_keeps_a_file_from_being_executed_is_named(t: &Context) -> Verdict {
    use std::os::unix::fs::PermissionsExt;
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let put = |name: &str, bytes: &[u8], mode: u32| -> Verdict {
        let path = podctl.out().join(name);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(())
    };
    let program = t.dir.join("program");
    tests::machine::program(&program, &tests::machine::one(39));
    let mut other = fs::read(&program)?;
    other[18] = 183; // EM_AARCH64
    put("other-machine", &other, 0o755)?;
    put("no-interpreter", b"#!/no/such/interpreter -x\n", 0o755)?;
    put("interpreter-is-data", b"#!/etc/passwd\n", 0o755)?;
    put("text", b"neither\n", 0o755)?;
    put("no-permission", b"#!/probe\n", 0o644)?;
    put("of-root", b"#!/probe\n", 0o700)?;
    for (file, options, code, words) in [
        ("no-interpreter", &[][..], 127, "/no/such/interpreter"),
        ("interpreter-is-data", &[], 126, "/etc/passwd"),
        ("no-permission", &[], 126, "permission"),
        ("of-root", &["--user=web", "--group=www"], 126, "permi"),
    ] {
        let exec = format!("--exec=/out/{file}");
        pod.try_add("probe", file, &[&[exec.as_str()], options].concat(), &[]).ok();
        let complaint = pod.app("start", file, &[]).complaint();
        assert!(complaint.contains(words) && complaint.contains(&format!("/out/{file}")), "{file}: {complaint}");
        let status = pod.status(file);
        let told = status["start_failure"].as_str().unwrap_or_default();
        assert_eq!((status["exit_code"].as_i64(), told.contains(words)), (Some(code), true), "{file}: {status}");
    }
    // binfmt_misc may know how to execute what the kernel does not: only trying shows it.
    for file in ["other-machine", "text"] {
        pod.try_add("probe", file, &[&format!("--exec=/out/{file}")], &[]).ok();
        pod.app("start", file, &[]).ok();
        assert_eq!(pod.exit_code(file), 126);
        let status = pod.status(file);
        let told = status["start_failure"].as_str().unwrap_or_default();
        assert!(told.contains("neither a program for this machine nor a script") && told.contains(file), "{status}");
    }
    pod.end();
    Ok(())
}

fn what_can_not_be_executed_has_not_started(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for (app, exec, options, code, words) in [
        ("missing", "/no/such", &[][..], 127, "/no/such"),
        ("path", "no-such-word", &[], 127, "no-such-word"),
        ("plain", "/etc/passwd", &[], 126, "permission"),
        ("dir", "/etc", &[], 126, "directory"),
        ("cwd", "/probe", &["--working-dir=/no/where"], 254, "/no/where"),
    ] {
        let exec = format!("--exec={exec}");
        pod.try_add("probe", app, &[&[exec.as_str()], options].concat(), &[]).ok();
        for round in 0..2 {
            let complaint = pod.app("start", app, &[]).complaint();
            assert!(complaint.contains(words), "{complaint}");
            assert_eq!(written(&pod, app), Some(format!("{code}\n")), "round {round}");
            let status = pod.status(app);
            assert_eq!((status["state"].as_str(), status["exit_code"].as_i64()), (Some("exited"), Some(code)));
            assert!(status["start_failure"].as_str().unwrap_or_default().contains(words), "{status}");
        }
    }
    let text = pod.app("status", "missing", &[]).ok();
    assert!(text.contains("start_failure=") && text.contains("/no/such"), "{text}");
    // A later successful start clears the start failure.
    let notes = PathBuf::from(format!("/proc/{}/root/run/stage1/notes", pod.pid()));
    assert_eq!(fs::read_dir(&notes)?.count(), 0, "notes are left");
    pod.end();
    Ok(())
}
