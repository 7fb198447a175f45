//! What a pod can see of processes that enter it: CVE-2016-9962 and CVE-2024-21626.

use std::fs::{self, File};
use std::process::Stdio;

use tests::Verdict;
use tests::harness::Context;
use tests::process::wait_for;
use tests::screen::Screen;

use super::{lines, run_attacker};

tests::cases! {
    both nothing_of_the_host_shows_while_a_process_enters 120;
    native no_descriptor_is_a_working_directory 120;
    native what_enters_has_no_more_than_pid_1;
}

/// Seen to fail by the root, the working directory and the descriptors of `enter` when the command was born in the pod
/// first and joined it then; by a descriptor of `app-start` when it closed none; and by the terminal of all of them when
/// they stayed in the caller's session.
fn nothing_of_the_host_shows_while_a_process_enters(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let log = podctl.out().join("log");
    let marker = t.dir.join("marker");
    fs::write(&marker, "of the host\n")?;
    let place = marker.display().to_string();
    let capabilities = "--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE,CAP_DAC_READ_SEARCH,CAP_SETUID,CAP_SETGID";
    pod.add("attacker", &[capabilities], &["peek", "/out/log", &place]);
    pod.app("start", "attacker", &[]).ok();
    wait_for("the attacker", 10, || lines(&log).contains(&"ready".to_owned()).then_some(()));
    pod.add("one", &[], &["sleep", "inf"]);
    pod.add("idle", &[], &["sleep", "inf"]);
    let seen = |name: &str| lines(&log).iter().filter(|line| line.starts_with(&format!("seen {name} "))).count();
    // Of callers on a terminal, which a process in their session can open as /dev/tty.
    let mut screen = Screen::new();
    let mut on_terminal = |words: &[&str], stdin: Option<Stdio>| {
        let mut child = screen.start(&podctl.command(words), [stdin, Some(Stdio::null()), Some(Stdio::null())]);
        screen.end_of(&mut child)
    };
    // The attacker must look at the right moment, so try several times.
    for n in 0..100 {
        if n >= 20 && seen("enter") > 0 && seen("app-start") > 0 {
            break;
        }
        assert_eq!(on_terminal(&["app", "start", &pod.uuid, "one"], None), 0);
        for app in ["one", "one", "idle"] {
            let words = ["enter", &pod.uuid, "--app", app, "--", "/probe", "exit", "7"];
            assert_eq!(on_terminal(&words, Some(File::open(&marker)?.into())), 7);
        }
        assert_eq!(on_terminal(&["app", "stop", &pod.uuid, "one"], None), 0);
        if seen("enter") >= 20 && seen("app-start") >= 3 && seen("app-stop") >= 3 {
            break;
        }
    }
    fs::write(podctl.out().join("log.stop"), "")?;
    wait_for("the attacker's end", 10, || (pod.state("attacker") == "exited").then_some(()));
    assert!(seen("enter") > 0 && seen("app-start") > 0, "nothing was seen: {:?}", lines(&log));
    // The launch record and the command are the pod's own files; its systemd keeps its own cgroups open.
    let own = t.dir.display().to_string();
    let enters = |line: &str| ["enter", "app-start", "app-stop"].iter().any(|n| line.contains(&format!(" of {n} ")));
    let leads_out = |line: &String| {
        let place = line.contains(&own) || (line.contains("/sys/fs/cgroup") && enters(line));
        line.starts_with("host ") || (line.starts_with("descriptor ") && place)
    };
    let found: Vec<String> = lines(&log).into_iter().filter(leads_out).collect();
    assert!(found.is_empty(), "{found:#?}");
    pod.end();
    Ok(())
}

/// The image, or the caller, names a descriptor that a process could have left open.
fn no_descriptor_is_a_working_directory(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let marker = t.dir.join("marker");
    fs::write(&marker, "of the host\n")?;
    let from_there = format!("{}{}", "../".repeat(16), marker.display().to_string().trim_start_matches('/'));
    pod.add("one", &[], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    for number in 3..16 {
        let place = format!("/proc/self/fd/{number}");
        let words = ["enter", &pod.uuid, "--app=one", "--workdir", &place, "--", "/probe", "cat", &from_there];
        let out = podctl.run(&words);
        assert!(out.code.is_some_and(|code| code != 0) && out.stdout.is_empty(), "{place}: {out}");
        let working = format!("--working-dir={place}");
        let name = format!("app{number}");
        if pod.try_add("probe", &name, &[&working], &["cat", &from_there, "+", "write", "/out/escaped", ""]).code
            == Some(0)
        {
            // The start is refused, or the attack finds nothing.
            if pod.app("start", &name, &[]).code == Some(0) {
                pod.exit_code(&name);
            }
            assert!(!podctl.out().join("escaped").exists(), "{place}");
            pod.app("rm", &name, &[]).ok();
        }
    }
    pod.end();
    Ok(())
}

/// A process that may trace an entering process may trace the pod's PID 1 as well.
fn what_enters_has_no_more_than_pid_1(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let capabilities = "--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE,CAP_DAC_READ_SEARCH";
    let (mut running, log) = run_attacker(&podctl, capabilities, &["peek", "/out/log", "/nowhere"], &["idle"])?;
    wait_for("the attacker", 20, || lines(&log).contains(&"ready".to_owned()).then_some(()));
    let pods = podctl.json(&["list", "--format=json"]);
    let uuid = pods[0]["name"].as_str().unwrap_or_default();
    let status = fs::read_to_string(format!("/proc/{}/status", pods[0]["pid"]))?;
    let set = |line: &str, name: &str| u64::from_str_radix(line.strip_prefix(name)?.trim(), 16).ok();
    let bounding = status.lines().find_map(|line| set(line, "CapBnd:")).expect("a bounding set");
    let seen = || -> Vec<u64> { lines(&log).iter().filter_map(|line| set(line, "capabilities of enter ")).collect() };
    // The attacker must look at the right moment, so try several times.
    for _ in 0..200 {
        podctl.ok(&["enter", uuid, "--app=idle", "--", "/probe", "exit", "0"]);
        if seen().len() >= 2 {
            break;
        }
    }
    fs::write(log.with_extension("stop"), "")?;
    assert!(running.wait()?.success());
    assert!(!seen().is_empty(), "nothing was seen: {:?}", lines(&log));
    let more: Vec<u64> = seen().into_iter().filter(|set| set & !bounding != 0).collect();
    assert!(more.is_empty(), "{more:x?} is more than {bounding:x}");
    podctl.ok(&["gc", "--grace-period=0s"]);
    Ok(())
}
