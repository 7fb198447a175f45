//! Commands that `app exec` runs in an app: confinement, user, working directory, and refusals.

#![allow(clippy::zombie_processes, reason = "the warden of a failed test reaps what it has left")]

use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::process::{Process, descendants, run, wait_for};
use tests::screen::Screen;

use crate::terminal::{ALL, exec, pod, run_in};

tests::cases! {
    both confined_as_the_app;
    native users_variables_and_directories;
    native it_is_the_apps_user_unless_said_otherwise;
    native what_can_not_be_run_is_told_by_its_code;
    native the_hosts_program_is_out_of_reach;
}

fn confined_as_the_app(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let root = t.dir.join("root");
    let pod = pod(&podctl, &root, &["--caps-retain=CAP_CHOWN,CAP_KILL", "--memory=32Mi"]);
    pod.try_add(
        "shell",
        "two",
        &["--caps-retain=CAP_CHOWN,CAP_KILL", "--memory=32Mi"],
        &["report", "/out/app.json", "+", "sleep", "inf"],
    )
    .ok();
    pod.app("start", "two", &[]).ok();
    let app = pod.read("app");
    let entered = |options: &[&str]| -> Value {
        let args = [&["app", "exec", pod.uuid.as_str(), "--app=two"], options, &["--", "/probe", "report"]].concat();
        serde_json::from_str(&podctl.ok(&args)).expect("a report")
    };
    let seen = entered(&[]);
    assert_eq!(seen["capabilities"]["CapBnd"], format!("{:016x}", 1 | 1 << 5));
    assert_eq!(seen["seccomp"], "2");
    for key in ["capabilities", "seccomp", "no_new_privs", "cgroup", "namespaces", "ids", "root"] {
        assert_eq!(seen[key], app[key], "{key}");
    }
    let fds: Vec<_> = seen["fds"].as_object().ok_or("no fds")?.keys().collect();
    assert_eq!(fds, ["0", "1", "2"]);
    assert_eq!(seen["cwd"], "/");
    // The filter and the limit apply.
    assert_eq!(run_in(&pod, &[], &["/probe", "syscall", "unshare-user"]).ok(), "EPERM");
    assert_eq!(run_in(&pod, &[], &["/probe", "syscall", "sethostname"]).ok(), "EPERM");
    if t.has_controllers() {
        let out = run_in(&pod, &[], &["/probe", "alloc", "100000000"]);
        assert_eq!(out.signal, Some(Signal::SIGKILL as i32), "more than the limit was let through: {out}");
        assert_eq!(pod.state("one"), "running", "the app itself was hit");
        run_in(&pod, &[], &["/probe", "alloc", "4000000"]).ok();
    }
    // Another user has no capabilities, and gains none.
    let seen = entered(&["--user=web"]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(seen["capabilities"][set], "0000000000000000", "{set}");
    }
    assert_eq!((&seen["seccomp"], &seen["no_new_privs"]), (&"2".into(), &"1".into()));
    // Without the confinement, but in the app.
    let seen = entered(&["--privileged"]);
    let everything = fs::read_to_string("/proc/self/status")?;
    let everything = everything.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).ok_or("no CapBnd")?;
    assert_eq!(seen["capabilities"]["CapBnd"], everything);
    assert_eq!(seen["capabilities"]["CapEff"], everything);
    assert_eq!((&seen["seccomp"], &seen["no_new_privs"]), (&"0".into(), &"0".into()));
    for key in ["cgroup", "namespaces", "root"] {
        assert_eq!(seen[key], app[key], "{key}");
    }
    pod.end();
    Ok(())
}

fn users_variables_and_directories(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &["--env=COLOUR=green", "--env=SHAPE=round"]);
    let report = |options: &[&str]| -> Value {
        serde_json::from_str(&run_in(&pod, options, &["/probe", "report"]).ok()).expect("a report")
    };
    let ids = |options: &[&str]| -> (u64, u64, Value) {
        let ids = report(options)["ids"].clone();
        (ids["uid"][0].as_u64().unwrap_or(9), ids["gid"][0].as_u64().unwrap_or(9), ids["groups"].clone())
    };
    // without a group: those of the image's files
    for (user, expected) in [
        ("--user=web", (1001, 2001, json!([3001]))),
        ("--user=web:extra", (1001, 3001, json!([]))),
        ("--user=1001", (1001, 2001, json!([3001]))),
        ("--user=5555", (5555, 0, json!([]))),
        ("--user=5555:6666", (5555, 6666, json!([]))),
        ("--user=/data/owned", (1234, 2345, json!([]))),
        ("--user=/data/owned:/data/owned", (1234, 2345, json!([]))),
        ("--user=root", (0, 0, json!([]))),
    ] {
        assert_eq!(ids(&[user]), expected, "{user}");
    }
    let seen = report(&["--user=web", "--env=COLOUR=blue", "--env=NEW=a=b c", "--workdir=/data"]);
    assert_eq!(seen["cwd"], "/data");
    for (name, value) in [("COLOUR", "blue"), ("SHAPE", "round"), ("NEW", "a=b c"), ("HOME", "/home"), ("USER", "web")]
    {
        assert_eq!(seen["env"][name], value, "{name}");
    }
    // The terminal belongs to the user, who can open it again.
    let mut screen = Screen::new();
    let command = exec(&pod, &["--user=web"], &["sh", "-c", "echo by name >$(tty); echo by link >/dev/stdout"]);
    let mut child = screen.start(&command, ALL);
    screen.shows("by name\r\nby link\r\n");
    assert_eq!(screen.end_of(&mut child), 0);
    // The only app need not be named.
    assert_eq!(podctl.ok(&["app", "exec", &pod.uuid, "--", "/probe", "print", "x"]), "x");
    for (options, word) in [
        (&["--user=nobody-such"][..], "nobody-such"),
        (&["--user=web:nothing"], "nothing"),
        (&["--env=WRONG"], "WRONG"),
        (&["--workdir=data"], "absolute"),
        (&["--workdir=/no/such"], "/no/such"),
    ] {
        let out = run_in(&pod, options, &["/bin/true"]);
        assert_eq!(out.code, Some(125), "{out}");
        assert!(out.clone().complaint().contains(word), "{out}");
    }
    pod.end();
    Ok(())
}

fn it_is_the_apps_user_unless_said_otherwise(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for ids in [&[][..], &["--private-users"]] {
        let pod = podctl.pod(&[&["--net=none"], ids].concat());
        let who = ["--user=web", "--group=extra", "--supplementary-gid=77", "--env=HOME=/of-app", "--env=USER=me"];
        pod.add("one", &who, &["report", "/out/one.json", "+", "sleep", "inf"]);
        pod.add("two", &["--user=0", "--group=3001"], &["sleep", "inf"]);
        pod.app("start", "one", &[]).ok();
        pod.app("start", "two", &[]).ok();
        let app = pod.read("one");
        fs::remove_file(podctl.out().join("one.json"))?;
        assert_eq!(app["ids"]["uid"][0], 1001, "{app}");
        let report = |words: &[&str]| -> Value {
            let words = [words, &["--", "/probe", "report"]].concat();
            serde_json::from_str(&podctl.ok(&words)).expect("a report")
        };
        let uuid = pod.uuid.as_str();
        for words in [&["exec", uuid, "one"][..], &["enter", uuid, "one"], &["app", "exec", uuid, "one"]] {
            let seen = report(words);
            for key in ["ids", "capabilities", "no_new_privs", "seccomp"] {
                assert_eq!(seen[key], app[key], "{words:?} {key}");
            }
            assert_eq!((&seen["env"]["HOME"], &seen["env"]["USER"]), (&"/of-app".into(), &"me".into()), "{words:?}");
        }
        assert_eq!(report(&["exec", uuid, "two"])["ids"]["gid"][0], 3001);
        // An app that does not run has the same user.
        pod.app("stop", "one", &[]).ok();
        assert_eq!(report(&["exec", uuid, "one"])["ids"], app["ids"]);
        let root = report(&["exec", uuid, "one", "--user=root"]);
        assert_eq!((&root["ids"]["uid"][0], &root["env"]["USER"]), (&0.into(), &"root".into()), "{root}");
        podctl.ok(&["stop", uuid]);
        // Failures of podctl itself have their own exit code, also for wrong arguments.
        for words in [&["exec", uuid, "one", "--", "true"][..], &["exec", uuid, "one"], &["run", "--no-such"]] {
            let out = podctl.run(words);
            assert_eq!(out.code, Some(125), "{out}");
        }
        podctl.ok(&["rm", uuid]);
    }
    Ok(())
}

fn what_can_not_be_run_is_told_by_its_code(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    for (word, code) in [("/no/such", 127), ("no-such", 127), ("/etc/passwd", 126), ("/data", 126)] {
        let out = run_in(&pod, &[], &[word]);
        assert_eq!(out.code, Some(code), "{out}");
        assert!(out.clone().complaint().contains(word), "{out}");
        let mut screen = Screen::new();
        let mut child = screen.start(&exec(&pod, &[], &[word]), ALL);
        assert_eq!(screen.end_of(&mut child), code);
        assert_eq!(screen.text().matches("\r\n").count(), 1, "{:?}", screen.text());
    }
    // The end by a signal, too, without a message.
    let mut screen = Screen::new();
    let mut child = screen.start(&exec(&pod, &[], &["sh", "-c", "kill -SEGV $$"]), ALL);
    assert_eq!(screen.end_of(&mut child), 128 + 11);
    pod.end();
    Ok(())
}

/// A command that leads back to the program that runs it gives no way to write to that (CVE-2019-5736).
fn the_hosts_program_is_out_of_reach(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let attack = "while :; do \
        until pid=$(cat /out/victim 2>/dev/null); do sleep 0.05; done; rm /out/victim; \
        exec 3</proc/$pid/exe; head -c 4 <&3 >/out/log; echo >>/out/log; >/out/held; \
        until [ -e /out/go ]; do sleep 0.05; done; \
        (echo x >>/proc/self/fd/3) 2>>/out/log; exec 3<&-; mv /out/log /out/done; done";
    let args = ["app", "add", &pod.uuid, "shell", "--name=two", "--mount=volume=out,target=/out"];
    let more = ["--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE", "--exec=/bin/sh", "--", "-c", attack];
    podctl.ok(&[&args[..], &more].concat());
    pod.app("start", "two", &[]).ok();
    let picture = || {
        run(Command::new("find").arg(podctl.data.join("trees")).args([
            "-path",
            "*/opt/stage1/bin/*",
            "-exec",
            "md5sum",
            "{}",
            "+",
        ]))
        .ok()
    };
    let before = picture();
    assert!(before.contains("/enter"), "{before}");
    for words in [&["/proc/self/exe", "--help"][..], &["/bin/evil"]] {
        // Its output is discarded, so that it stays.
        let (_reader, full) = full_pipe();
        let command = exec(&pod, &["--privileged"], words).stdout(full.try_clone()?).stderr(full).spawn();
        let mut child = command?;
        let victim = wait_for("the host's program in the app", 10, || {
            let below = descendants(child.id() as i32);
            below
                .into_iter()
                .find(|p| p.words.contains("/proc/self/exe") && p.sleeps_in.contains("pipe"))
                .map(|p| p.pid)
        });
        let status = fs::read_to_string(format!("/proc/{victim}/status"))?;
        let inside = status.lines().find_map(|l| l.strip_prefix("NSpid:")).and_then(|l| l.split_whitespace().last());
        let inside = inside.ok_or("no NSpid")?;
        fs::write(podctl.out().join("victim.part"), inside)?;
        fs::rename(podctl.out().join("victim.part"), podctl.out().join("victim"))?;
        // It has the program open when that ends; no process runs the program when it tries to write.
        wait_for("the attacker", 10, || podctl.out().join("held").exists().then_some(()));
        child.kill()?;
        child.wait()?;
        wait_for("the end of the program", 10, || (!Process::lives(victim)).then_some(()));
        fs::write(podctl.out().join("go"), "")?;
        let said = wait_for("the attack", 10, || fs::read_to_string(podctl.out().join("done")).ok());
        assert_eq!(said.lines().next(), Some("\x7fELF"), "it was not the host's program: {said}");
        assert!(said.contains("Read-only file system"), "{words:?}: {said}");
        for file in ["held", "go", "done"] {
            fs::remove_file(podctl.out().join(file))?;
        }
        assert_eq!(picture(), before);
    }
    pod.end();
    Ok(())
}

/// A full pipe.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe().expect("pipe");
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("fcntl");
    while nix::unistd::write(&writer, &[0; 4096]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).expect("fcntl");
    (reader, writer)
}
