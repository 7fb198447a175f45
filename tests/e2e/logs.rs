//! What apps write is in the pod's journal, all of it, and `podctl logs` shows it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::{Process, descendants, run, wait_for};
use tests::{Verdict, dist};

tests::cases! {
    both ten_thousand_lines_of_ten_apps 120;
    native lines_are_followed_to_the_pods_end;
    native lines_are_chosen_by_number_and_time;
    native every_byte_of_odd_lines;
    both the_two_outputs_are_told_apart;
    native pods_of_every_kind_have_logs;
    both nothing_is_lost_at_the_end 120;
    both a_killed_pods_journal_can_be_read;
    native journald_runs_when_something_is_logged;
    native lines_are_followed_across_rotations;
    native the_journal_and_the_console_are_bounded;
    native a_pod_that_does_not_boot_explains_itself;
    native a_damaged_journal_is_one_clear_line;
    native a_hostile_journal_does_no_harm;
}

/// The lines that a command shows.
#[track_caller]
fn lines(podctl: &Podctl, args: &[&str]) -> Vec<String> {
    let out = podctl.run(&[&["logs"], args].concat());
    assert!(out.code == Some(0) && out.stderr.is_empty(), "{}: {:?} {}", out.command, out.code, out.stderr);
    out.stdout.lines().map(str::to_owned).collect()
}

/// The same as JSON.
#[track_caller]
fn records(podctl: &Podctl, args: &[&str]) -> Vec<Value> {
    let lines = lines(podctl, &[args, &["--format", "json"]].concat());
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect()
}

/// Waits until a pod's app has written that, as `logs` shows it.
#[track_caller]
fn wait_for_line(pod: &Pod, app: &str, line: &str) {
    let args = [pod.uuid.as_str(), "--app", app];
    wait_for(&format!("{line:?} of {app}"), 20, || lines(pod.podctl, &args).iter().any(|l| l == line).then_some(()));
}

/// The directory of the pod's journal, where other host managers read it too.
fn journal(pod: &Pod) -> PathBuf {
    let tree = fs::read_to_string(pod.dir().join("stage1TreeStoreID")).expect("the stage1's tree");
    let machine = pod.uuid.replace('-', "");
    pod.dir().join("overlay").join(tree.trim()).join("upper/var/log/journal").join(machine)
}

fn ten_thousand_lines_of_ten_apps(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let apps: Vec<String> = (0..10).map(|n| format!("app{n}")).collect();
    for app in &apps {
        // two of them say the same
        let text = if app == "app9" { "app8" } else { app };
        pod.add(app, &[], &["wait", "/out/go", "+", "lines", "1000", text]);
        pod.app("start", app, &[]).ok();
    }
    fs::write(podctl.out().join("go"), "")?;
    for app in &apps {
        assert_eq!(pod.exit_code(app), 0);
    }
    wait_for("all lines", 20, || (lines(&podctl, &[&pod.uuid]).len() == 10_000).then_some(()));
    let check = || {
        for app in &apps {
            let text = if app == "app9" { "app8" } else { app };
            let expected: Vec<String> = (0..1000).map(|n| format!("{text} {n}")).collect();
            assert!(lines(&podctl, &[&pod.uuid, "--app", app]) == expected, "{app}");
        }
        let all = records(&podctl, &[&pod.uuid]);
        assert_eq!(all.len(), 10_000);
        assert!(all.is_sorted_by_key(|line| line["time"].as_str().unwrap_or_default().to_owned()));
        for app in &apps {
            let of_app: Vec<_> = all.iter().filter(|line| line["app"] == app.as_str()).collect();
            assert_eq!(of_app.len(), 1000, "{app}");
            assert!(of_app.iter().all(|line| line["stream"] == "stdout"), "{}", of_app[0]);
        }
    };
    check();
    podctl.ok(&["stop", &pod.uuid]);
    check();
    podctl.ok(&["gc", "--grace-period=1h"]);
    check();
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

/// A command that shows lines while it runs.
struct Follower {
    child: Child,
    lines: Receiver<String>,
}

impl Follower {
    fn start(podctl: &Podctl, args: &[&str]) -> Self {
        let mut child = podctl
            .command(&[&["logs", "-f"], args].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("podctl");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        let (to, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        Self { child, lines }
    }

    #[track_caller]
    fn shows(&self, line: &str) {
        let shown = self.lines.recv_timeout(Duration::from_secs(20));
        assert_eq!(shown.as_deref().unwrap_or("nothing"), line);
    }

    /// It ends by itself, and shows these lines until then.
    #[track_caller]
    fn ends(mut self, last: &[&str]) {
        let status = wait_for("the follower's end", 20, || self.child.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
        assert_eq!(self.lines.iter().collect::<Vec<_>>(), last);
    }
}

fn lines_are_followed_to_the_pods_end(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    // before there is any journal
    let all = Follower::start(&podctl, &[&pod.uuid]);
    pod.add("a", &[], &["print", "one", "+", "wait", "/out/more", "+", "print", "two", "+", "orderly", "0"]);
    pod.app("start", "a", &[]).ok();
    all.shows("a: one");
    let last = Follower::start(&podctl, &[&pod.uuid, "--app", "a", "-n", "0"]);
    let some = Follower::start(&podctl, &[&pod.uuid, "--app", "a", "-n", "1"]);
    some.shows("one");
    pod.run_app("b", &[], &["print", "from b"]);
    all.shows("b: from b");
    fs::write(podctl.out().join("more"), "")?;
    all.shows("a: two");
    some.shows("two");
    last.shows("two");
    pod.add("c", &[], &["orderly", "0", "+", "print", "never"]);
    pod.add("d", &[], &["print", "d", "+", "raw", "6c617374"]);
    pod.app("start", "d", &[]).ok();
    all.shows("d: d");
    podctl.ok(&["stop", &pod.uuid]);
    all.ends(&["d: last"]);
    last.ends(&[]);
    some.ends(&[]);

    // nobody reads on
    let pod2 = podctl.pod(&[]);
    let mut child = podctl.command(&["logs", "-f", &pod2.uuid]).stdout(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    wait_for("the end of one without reader", 20, || child.try_wait().expect("wait"));
    pod2.end();
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn lines_are_chosen_by_number_and_time(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    assert_eq!(lines(&podctl, &[&pod.uuid]), [""; 0], "nothing was written yet");
    pod.run_app("early", &[], &["lines", "5", "early"]);
    wait_for_line(&pod, "early", "early 4");
    let pause = || std::thread::sleep(Duration::from_millis(20));
    pause();
    let between = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%6NZ"])).ok();
    pause();
    pod.run_app("late", &[], &["lines", "5", "late"]);
    wait_for_line(&pod, "late", "late 4");

    assert_eq!(lines(&podctl, &[&pod.uuid, "-n", "2"]), ["late: late 3", "late: late 4"]);
    assert_eq!(lines(&podctl, &[&pod.uuid, "-n", "1", "--app", "early"]), ["early 4"]);
    assert_eq!(lines(&podctl, &[&pod.uuid, "-n", "0"]), [""; 0]);
    assert_eq!(lines(&podctl, &[&pod.uuid, "--since", &between]).len(), 5);
    assert_eq!(lines(&podctl, &[&pod.uuid, "--until", &between, "-n", "3"])[0], "early: early 2");
    assert_eq!(lines(&podctl, &[&pod.uuid, "--since", &between, "--until", &between]), [""; 0]);
    assert_eq!(lines(&podctl, &[&pod.uuid, "--since", "10m", "--until", "now"]).len(), 10);
    assert_eq!(lines(&podctl, &[&pod.uuid, "--until", "1h ago"]), [""; 0]);
    let stamped = lines(&podctl, &[&pod.uuid, "--timestamps", "--since", &between]);
    let (time, rest) = stamped[0].split_once(' ').ok_or("no time")?;
    assert!(time > between.as_str() && time.len() == between.len() && rest == "late: late 0", "{stamped:?}");

    let line = podctl.fails(&["logs", &pod.uuid, "--since", "noon-ish"]);
    assert!(line.contains("noon-ish") && line.contains("is not a time"), "{line}");
    assert_eq!(podctl.run(&["logs", &pod.uuid, "--until", "x"]).code, Some(2));
    for (app, why) in [("No App", "app name"), ("lat", "has no app lat")] {
        let line = podctl.fails(&["logs", &pod.uuid, "--app", app]);
        assert!(line.contains(why), "{line}");
    }
    pod.end();
    Ok(())
}

fn every_byte_of_odd_lines(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let text = |hex: &[u8]| hex.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    pod.run_app("end", &[], &["print", "one", "+", "raw", &text(b"no newline")]);
    pod.run_app("nul", &[], &["raw", &text(b"a\0b\n")]);
    pod.run_app("bytes", &[], &["raw", &text(b"\xff\xfe \xc3\xa4\n")]);
    pod.run_app("long", &[], &["long", "1048576", "+", "print", "after"]);
    pod.run_app("spaces", &[], &["print", "   <3>spaces"]);
    wait_for_line(&pod, "spaces", "   <3>spaces");
    let of = |app: &str| -> Vec<(Value, Value)> {
        let records = records(&podctl, &[&pod.uuid, "--app", app]);
        records.into_iter().map(|mut line| (line["message"].take(), line["line_break"].take())).collect()
    };
    let none = Value::Null;
    assert_eq!(of("end"), [("one".into(), none.clone()), ("no newline".into(), "eof".into())]);
    assert_eq!(of("nul"), [("a".into(), "nul".into()), ("b".into(), none.clone())]);
    assert_eq!(of("bytes"), [(serde_json::json!(b"\xff\xfe \xc3\xa4"), none.clone())]);
    let long = lines(&podctl, &[&pod.uuid, "--app", "long"]);
    assert!(long[0].len() == 1 << 20 && long[0].bytes().all(|b| b == b'x') && long[1] == "after", "{}", long.len());
    pod.end();
    Ok(())
}

fn the_two_outputs_are_told_apart(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_with(
        "handlers",
        &serde_json::json!({ "eventHandlers": [{ "name": "pre-start", "exec": ["/probe", "warn", "before"] }] }),
    );
    let pod = podctl.pod(&[]);
    pod.run_app("a", &[], &["print", "out", "+", "warn", "err", "+", "print", "<3>out"]);
    pod.try_add("handlers", "b", &[], &["warn", "b's", "+", "exit", "3"]).ok();
    pod.app("start", "b", &[]).ok();
    assert_eq!(pod.exit_code("b"), 3);
    wait_for_line(&pod, "a", "<3>out");
    wait_for_line(&pod, "b", "b's");
    let of = |app: &str, stream: &str| -> Vec<String> {
        let records = records(&podctl, &[&pod.uuid, "--app", app]);
        let of_it = records.iter().filter(|line| line["stream"] == stream);
        of_it.map(|line| line["message"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!((of("a", "stdout"), of("a", "stderr")), (vec!["out".into(), "<3>out".into()], vec!["err".into()]));
    assert_eq!((of("b", "stdout"), of("b", "stderr")), (vec![], vec!["before".to_owned(), "b's".into()]));
    pod.end();
    Ok(())
}

fn pods_of_every_kind_have_logs(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for options in [&["--no-overlay"][..], &["--private-users"], &["--no-overlay", "--private-users"]] {
        let pod = podctl.pod(options);
        pod.run_app("a", &[], &["print", "out", "+", "warn", "err"]);
        let follower = Follower::start(&podctl, &[&pod.uuid]);
        let mut shown = [(); 2].map(|()| follower.lines.recv_timeout(Duration::from_secs(20)).unwrap_or_default());
        shown.sort_unstable();
        assert_eq!(shown, ["a: err", "a: out"], "{options:?}");
        let streams = records(&podctl, &[&pod.uuid]);
        assert!(streams.iter().all(|l| l["stream"] == if l["message"] == "out" { "stdout" } else { "stderr" }));
        podctl.ok(&["stop", &pod.uuid]);
        follower.ends(&[]);
        assert_eq!(lines(&podctl, &[&pod.uuid]).len(), 2, "{options:?}");
        podctl.ok(&["rm", &pod.uuid]);
    }
    // of an immutable pod, while it runs and after
    let out = podctl.run(&["run", "--log-max-size=8Mi", "probe", "--name=a", "--", "print", "ran", "+", "exit", "3"]);
    assert!(out.code == Some(3) && out.stdout.contains("ran"), "{out}");
    let uuid = podctl.json(&["list", "--format", "json"])[0]["name"].as_str().unwrap_or_default().to_owned();
    assert_eq!(lines(&podctl, &[&uuid]), ["a: ran"]);
    let prepared = podctl.ok(&["prepare", "probe", "--", "print", "later"]);
    assert_eq!(lines(&podctl, &[&prepared, "-f"]), [""; 0], "it has not run");
    podctl.run(&["run-prepared", &prepared]);
    assert_eq!(lines(&podctl, &[&prepared]), ["probe: later"]);
    podctl.ok(&["rm", &uuid, &prepared]);
    Ok(())
}

fn nothing_is_lost_at_the_end(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let expected: Vec<String> = (0..3000).map(|n| format!("bye {n}")).collect();
    let ends: [&dyn Fn(&Pod); 2] = [&|pod| drop(podctl.ok(&["stop", &pod.uuid])), &|pod| {
        let monitor = Process::look_up(pod.pid()).expect("the pod").parent;
        kill(Pid::from_raw(monitor), Signal::SIGTERM).expect("SIGTERM to run");
        let pod = ["status", &pod.uuid, "--format", "json"];
        wait_for("the pod's end", 20, || (podctl.json(&pod)["state"] == "exited").then_some(()));
    }];
    for end in ends {
        let pod = podctl.pod(&[]);
        for app in ["a", "b"] {
            let up = format!("/out/{app}");
            pod.add(app, &[], &["told", &up, "+", "lines", "3000", "bye", "+", "raw", "6c617374"]);
            pod.app("start", app, &[]).ok();
            let up = podctl.out().join(app);
            wait_for("the app", 10, || up.exists().then_some(()));
            fs::remove_file(up)?;
        }
        end(&pod);
        for app in ["a", "b"] {
            let shown = lines(&podctl, &[&pod.uuid, "--app", app]);
            assert!(shown[..3000] == expected && shown[3000..] == ["last"], "{app}: {} lines", shown.len());
        }
        podctl.ok(&["rm", &pod.uuid]);
    }
    Ok(())
}

fn a_killed_pods_journal_can_be_read(t: &Context) -> Verdict {
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

/// The pod's journald, if it runs.
fn journald(pod: &Pod) -> Option<Process> {
    descendants(pod.pid()).into_iter().find(|process| process.words.contains("systemd-journald"))
}

fn journald_runs_when_something_is_logged(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    // that it is ready means that an app can log
    for socket in ["systemd-journald.socket", "systemd-journald-dev-log.socket"] {
        assert_eq!(podctl.ok(&["enter", &pod.uuid, "--", "/bin/systemctl", "is-active", socket]), "active");
    }
    assert!(journald(&pod).is_none() && !journal(&pod).exists(), "{:?}", journald(&pod));
    // an app whose outputs go nowhere
    pod.add("quiet", &[], &["print", "unheard", "+", "write", "/out/quiet", "ran"]);
    let unit = pod.dir().join("stage1/rootfs/etc/systemd/system/app-quiet.service");
    let text = fs::read_to_string(&unit)?;
    assert!(text.contains("=journal+console"), "{text}");
    fs::write(&unit, text.replace("=journal+console", "=null"))?;
    pod.app("start", "quiet", &[]).ok();
    assert_eq!(pod.exit_code("quiet"), 0);
    assert_eq!(fs::read_to_string(podctl.out().join("quiet"))?, "ran");
    assert!(journald(&pod).is_none() && !journal(&pod).exists(), "{:?}", journald(&pod));
    pod.add("a", &["--env=NOTIFY_SOCKET=/dev/log"], &["notify", "<12>tag: by syslog", "+", "sleep", "inf"]);
    assert!(journald(&pod).is_none(), "{:?}", journald(&pod));
    pod.app("start", "a", &[]).ok();
    wait_for_line(&pod, "a", "by syslog");
    assert!(journald(&pod).is_some(), "who has written that?");
    let line = &records(&podctl, &[&pod.uuid])[0];
    assert_eq!((line["stream"].as_str(), line["priority"].as_i64()), (Some("syslog"), Some(4)), "{line}");
    pod.end();
    Ok(())
}

fn lines_are_followed_across_rotations(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--log-max-size=32Mi"]);
    let follower = Follower::start(&podctl, &[&pod.uuid, "--app", "a"]);
    pod.add("a", &[], &["lines", "20000", "line"]);
    pod.app("start", "a", &[]).ok();
    // who looks meanwhile sees all that there is so far
    wait_for("all lines, seen by many looks", 30, || {
        let shown = lines(&podctl, &[&pod.uuid, "--app", "a"]);
        for (n, line) in shown.iter().enumerate() {
            assert_eq!(*line, format!("line {n}"));
        }
        (shown.len() == 20_000).then_some(())
    });
    for n in 0..20_000 {
        follower.shows(&format!("line {n}"));
    }
    podctl.ok(&["stop", &pod.uuid]);
    follower.ends(&[]);
    assert!(fs::read_dir(journal(&pod))?.count() > 2, "nothing was rotated");
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn the_journal_and_the_console_are_bounded(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--log-max-size=4Mi"]);
    pod.run_app("a", &[], &["lines", "30000", "line"]);
    wait_for_line(&pod, "a", "line 29999");
    podctl.ok(&["stop", &pod.uuid]);
    let shown = lines(&podctl, &[&pod.uuid, "--app", "a"]);
    assert!((1000..20_000).contains(&shown.len()), "{} lines", shown.len());
    let expected: Vec<String> = (30_000 - shown.len()..30_000).map(|n| format!("line {n}")).collect();
    assert!(shown == expected, "{} to {}", shown[0], shown[shown.len() - 1]);
    let size = |path: &Path| path.metadata().map_or(0, |m| m.len());
    let all: u64 = fs::read_dir(journal(&pod))?.filter_map(|f| Some(size(&f.ok()?.path()))).sum();
    assert!(all <= (4 << 20) + (512 << 10), "{all} bytes");
    let console = pod.dir().join("console");
    assert!((32 << 10..=260 << 10).contains(&size(&console)), "{} bytes", size(&console));
    assert!(fs::read_to_string(console)?.contains("line 29999"));
    podctl.ok(&["rm", &pod.uuid]);
    for bad in ["1k", "x", "9Ti"] {
        let out = podctl.run(&["sandbox", "--log-max-size", bad]);
        assert!(out.code == Some(2) && out.stderr.contains("--log-max-size"), "{out}");
    }
    Ok(())
}

fn a_pod_that_does_not_boot_explains_itself(t: &Context) -> Verdict {
    let podctl = t.podctl();
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
        let line = podctl.fails(&["sandbox", "--stage1", &broken(name, remove)]);
        assert!(line.contains("did not come up") && line.contains(why), "{line}");
    }
    assert_eq!(podctl.json(&["list", "--format", "json"]).as_array().map(Vec::len), Some(0));
    Ok(())
}

fn a_damaged_journal_is_one_clear_line(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.run_app("a", &[], &["lines", "2000", "line"]);
    wait_for_line(&pod, "a", "line 1999");
    podctl.ok(&["stop", &pod.uuid]);
    let file = journal(&pod).join("system.journal");
    let good = fs::read(&file)?;
    let at = good.windows(17).position(|w| w == b"MESSAGE=line 1000").ok_or("no such line")?;

    let mut bad = good.clone();
    bad[at - 200..at].fill(0xff);
    fs::write(&file, &bad)?;
    let out = podctl.run(&["logs", &pod.uuid]);
    let shown = out.stdout.lines().count();
    assert!(out.code == Some(0) && (1990..2000).contains(&shown), "{shown} lines, {}", out.stderr);
    let said: Vec<&str> = out.stderr.lines().collect();
    assert!(said.len() == 1 && said[0].contains("system.journal") && said[0].contains("byte "), "{said:?}");

    for end in [0, 100, 300, 4096, at] {
        fs::write(&file, &good[..end])?;
        let out = podctl.run(&["logs", &pod.uuid]);
        assert!(out.code == Some(0) && out.stderr.lines().count() <= 1, "{end}: {}", out.stderr);
        assert!(!out.stderr.contains("panicked"), "{end}: {}", out.stderr);
    }
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_hostile_journal_does_no_harm(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.run_app("a", &[], &["print", "mine"]);
    wait_for_line(&pod, "a", "mine");
    // as anybody could from inside who has got out of an app
    let inside = journal(&pod);
    symlink("/etc/passwd", inside.join("link.journal"))?;
    nix::unistd::mkfifo(&inside.join("fifo.journal"), nix::sys::stat::Mode::S_IRWXU)?;
    File::create(inside.join("sparse.journal"))?.set_len(1 << 31)?;
    File::create(inside.join("huge.journal"))?.set_len(1 << 42)?;
    let out = podctl.run(&["logs", &pod.uuid]);
    assert!(out.code == Some(0) && out.stdout == "a: mine\n", "{out}");
    let said = out.stderr.lines().count();
    assert!(said == 3 && ["link", "fifo", "huge"].iter().all(|name| out.stderr.contains(name)), "{out}");

    podctl.ok(&["stop", &pod.uuid]);
    let directory = inside.parent().and_then(|log| log.parent()).ok_or("no parent")?.to_owned();
    fs::rename(&directory, directory.with_extension("away"))?;
    symlink(directory.with_extension("away"), &directory)?;
    let line = podctl.fails(&["logs", &pod.uuid]);
    assert!(line.contains("journal of pod") && line.contains("var/log/journal"), "{line}");
    fs::remove_file(&directory)?;
    nix::unistd::mkfifo(&directory, nix::sys::stat::Mode::S_IRWXU)?;
    podctl.fails(&["logs", &pod.uuid]);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}
