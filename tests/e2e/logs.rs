//! All output of apps is in their logs, and `podctl logs` shows it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::{Process, descendants, run, wait_for};

tests::cases! {
    both ten_thousand_lines_of_ten_apps 120;
    native lines_are_followed_to_the_pods_end;
    native lines_are_chosen_by_number_and_time;
    native every_byte_of_odd_lines;
    both the_two_outputs_are_told_apart;
    native pods_of_every_kind_have_logs;
    both nothing_is_lost_at_the_end 120;
    both all_is_there_when_an_app_has_exited 120;
    native run_shows_every_byte 120;
    native every_byte_in_file_and_console 120;
    both outputs_are_opened_anew_by_anybody;
    native syslog_goes_to_the_same_log;
    native lines_are_followed_across_rotations;
    native the_logs_and_the_console_are_bounded;
    native other_log_drivers;
    native a_debug_run_of_a_terminal_starts_at_once;
}

/// The lines that a command shows.
#[track_caller]
pub fn lines(podctl: &Podctl, args: &[&str]) -> Vec<String> {
    let out = podctl.run(&[&["logs"], args].concat());
    assert!(out.code == Some(0) && out.stderr.is_empty(), "{}: {:?} {}", out.command, out.code, out.stderr);
    out.stdout.lines().map(str::to_owned).collect()
}

/// The lines that a command shows, as JSON.
#[track_caller]
pub fn records(podctl: &Podctl, args: &[&str]) -> Vec<Value> {
    let lines = lines(podctl, &[args, &["--format", "json"]].concat());
    lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect()
}

/// Waits until a pod's app has written this line, as `logs` shows it.
#[track_caller]
pub fn wait_for_line(pod: &Pod, app: &str, line: &str) {
    let args = [pod.uuid.as_str(), "--app", app];
    wait_for(&format!("{line:?} of {app}"), 20, || lines(pod.podctl, &args).iter().any(|l| l == line).then_some(()));
}

/// The directory of an app's log.
pub fn log(pod: &Pod, app: &str) -> PathBuf {
    pod.dir().join("logs").join(app)
}

fn ten_thousand_lines_of_ten_apps(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let apps: Vec<String> = (0..10).map(|n| format!("app{n}")).collect();
    for app in &apps {
        // two of the lines are the same
        let text = if app == "app9" { "app8" } else { app };
        pod.add(app, &[], &["wait", "/out/go", "+", "lines", "1000", text]);
        pod.app("start", app, &[]).ok();
    }
    fs::write(podctl.out().join("go"), "")?;
    for app in &apps {
        assert_eq!(pod.exit_code(app), 0);
    }
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
pub struct Follower {
    pub child: Child,
    pub lines: Receiver<String>,
}

impl Follower {
    pub fn start(podctl: &Podctl, args: &[&str]) -> Self {
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
    pub fn shows(&self, line: &str) {
        let shown = self.lines.recv_timeout(Duration::from_secs(20));
        assert_eq!(shown.as_deref().unwrap_or("nothing"), line);
    }

    /// Waits until it ends by itself, and checks the lines that it has shown.
    #[track_caller]
    pub fn ends(mut self, last: &[&str]) {
        let status = wait_for("the follower's end", 20, || self.child.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
        assert_eq!(self.lines.iter().collect::<Vec<_>>(), last);
    }
}

fn lines_are_followed_to_the_pods_end(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    // before the log exists
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

    // the reader of the output is gone
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
    let pause = || std::thread::sleep(Duration::from_millis(20));
    pause();
    let between = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%9NZ"])).ok();
    pause();
    pod.run_app("late", &[], &["lines", "5", "late"]);

    assert_eq!(lines(&podctl, &[&pod.uuid, "-n", "2"]), ["late: late 3", "late: late 4"]);
    assert_eq!(lines(&podctl, &[&pod.uuid, "-n", "1", "--app", "early"]), ["early 4"]);
    assert_eq!(lines(&podctl, &[&pod.uuid, "-n", "0"]), [""; 0]);
    pod.run_app("third", &[], &["print", "third"]);
    let two = lines(&podctl, &[&pod.uuid, "--app", "early", "--app", "third", "-n", "2"]);
    assert_eq!(two, ["early: early 4", "third: third"]);
    assert_eq!(lines(&podctl, &[&pod.uuid, "--since", &between]).len(), 6);
    assert_eq!(lines(&podctl, &[&pod.uuid, "--until", &between, "-n", "3"])[0], "early: early 2");
    assert_eq!(lines(&podctl, &[&pod.uuid, "--since", &between, "--until", &between]), [""; 0]);
    assert_eq!(lines(&podctl, &[&pod.uuid, "--since", "10m", "--until", "now"]).len(), 11);
    assert_eq!(lines(&podctl, &[&pod.uuid, "--until", "1h ago"]), [""; 0]);
    let stamped = lines(&podctl, &[&pod.uuid, "--timestamps", "--since", &between]);
    let (time, rest) = stamped[0].split_once(' ').ok_or("no time")?;
    assert!(time > between.as_str() && time.len() == between.len() && rest == "late: late 0", "{stamped:?}");

    let line = podctl.fails(&["logs", &pod.uuid, "--since", "noon-ish"]);
    assert!(line.contains("noon-ish") && line.contains("is not a time"), "{line}");
    assert_eq!(podctl.run(&["logs", &pod.uuid, "--until", "x"]).code, Some(2));
    for (app, why) in [("No App", "app name"), ("lat", "has no app lat")] {
        // with -f as well, which would wait for such an app in vain
        for words in [&["logs", &pod.uuid, "--app", app][..], &["logs", "-f", &pod.uuid, "early", app]] {
            let line = podctl.fails(words);
            assert!(line.contains(why), "{line}");
        }
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
    pod.run_app("blanks", &[], &["raw", &text(b"\n\n  \t \n")]);
    let of = |app: &str| -> Vec<(Value, Value)> {
        let records = records(&podctl, &[&pod.uuid, "--app", app]);
        records.into_iter().map(|mut line| (line["message"].take(), line["line_break"].take())).collect()
    };
    let none = Value::Null;
    assert_eq!(of("end"), [("one".into(), none.clone()), ("no newline".into(), "eof".into())]);
    assert_eq!(of("nul"), [("a\0b".into(), none.clone())]);
    assert_eq!(of("bytes"), [(serde_json::json!(b"\xff\xfe \xc3\xa4"), none.clone())]);
    assert_eq!(of("blanks"), [("".into(), none.clone()), ("".into(), none.clone()), ("  \t ".into(), none.clone())]);
    assert_eq!(of("spaces"), [("   <3>spaces".into(), none)]);
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
    // for an immutable pod, while it runs and afterwards
    let out = podctl.run(&[
        "run",
        "--log-max-size=8Mi",
        "--log-max-files=2",
        "probe",
        "--name=a",
        "--",
        "print",
        "ran",
        "+",
        "exit",
        "3",
    ]);
    assert!(out.code == Some(3) && out.stdout == "ran\n", "{out}");
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

/// As soon as the exit status exists, the log has all earlier output.
fn all_is_there_when_an_app_has_exited(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let expected: Vec<String> = (0..50_000).map(|n| format!("line {n}")).collect();
    for round in 0..3 {
        let app = format!("a{round}");
        let words = ["lines", "50000", "line", "+", "warn", "fatal", "+", "exit", "9"];
        pod.add(&app, &[], &words);
        pod.app("start", &app, &[]).ok();
        assert_eq!(pod.exit_code(&app), 9);
        let shown = lines(&podctl, &[&pod.uuid, "--app", &app]);
        let (out, err): (Vec<String>, Vec<String>) = shown.into_iter().partition(|line| line != "fatal");
        assert!(out == expected && err == ["fatal"], "{app}: {} lines", out.len());
    }
    // A process that outlives the app with its output still open is not waited for.
    pod.run_app("parent", &[], &["print", "mine", "+", "spawn", "sleep", "100"]);
    assert_eq!(lines(&podctl, &[&pod.uuid, "--app", "parent"]), ["mine"]);
    pod.end();
    Ok(())
}

/// A pod's image with a shell.
pub fn with_shell(podctl: &Podctl, t: &Context) {
    crate::attach::import_shell(podctl, &t.dir.join("root"));
}

fn run_shows_every_byte(t: &Context) -> Verdict {
    let podctl = t.podctl();
    with_shell(&podctl, t);
    let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); printf '%s \\000\\377 \\n' $i; done; \
                  head -c 3000000 /dev/zero; echo FATAL >&2; printf x; exit 5";
    let local = Command::new("/bin/busybox").args(["sh", "-c", script]).output()?;
    for round in 0..3 {
        let out = podctl.command(&["run", "--rm", "--net=none", "shell", "--", "-c", script]).output()?;
        assert_eq!(out.status.code(), Some(5));
        assert!(out.stdout == local.stdout, "round {round}: {} of {} bytes", out.stdout.len(), local.stdout.len());
        assert_eq!(out.stderr, b"FATAL\n");
    }
    // With several apps `run` shows whole lines with their names.
    let words = "run --rm --net=none shell --name=one -- -c";
    let mut words: Vec<&str> = words.split(' ').collect();
    words.extend(["echo a; printf b", "---", "shell", "--name=two", "--", "-c", "echo c; echo d >&2"]);
    let out = podctl.run(&words);
    let mut shown: Vec<&str> = out.stdout.lines().collect();
    shown.sort_unstable();
    assert_eq!((shown, out.stderr.as_str()), (vec!["one | a", "one | b", "two | c"], "two | d\n"));
    Ok(())
}

/// Random bytes, a line longer than any buffer, empty lines, and no newline at the end.
fn every_byte_in_file_and_console(t: &Context) -> Verdict {
    let podctl = t.podctl();
    with_shell(&podctl, t);
    let out = podctl.out();
    fs::create_dir_all(&out)?;
    let mut random = vec![0; 4 << 20];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let long = vec![b'x'; 12 << 20];
    let data =
        [b"\n\n \t \nblanks   \n\r\n\0\0\n", &random[..], b"\n", &long, b"\n \n", &[0; 100_000], b"end"].concat();
    fs::write(out.join("data"), &data)?;
    let volume = format!("--volume=out,kind=host,source={}", out.display());
    let words =
        ["run", "--net=none", &volume, "shell", "--name=a", "--mount=volume=out,target=/out", "--exec=/bin/cat"];
    let shown = podctl.command(&[&words[..], &["--", "/out/data"]].concat()).output()?;
    assert_eq!(shown.status.code(), Some(0), "{}", String::from_utf8_lossy(&shown.stderr));
    assert!(shown.stdout == data, "{} of {} bytes", shown.stdout.len(), data.len());
    let uuid = podctl.json(&["list", "--format", "json"])[0]["name"].as_str().unwrap_or_default().to_owned();
    let kept = podctl.command(&["logs", &uuid, "--app=a"]).output()?.stdout;
    assert!(kept == [&data[..], b"\n"].concat(), "{} of {} bytes", kept.len(), data.len() + 1);
    // The last lines, found from the end, are the same.
    let last = podctl.command(&["logs", &uuid, "--app=a", "-n", "3"]).output()?.stdout;
    assert!(kept.ends_with(&last) && last.len() > long.len() + 100_000, "{} bytes", last.len());
    podctl.ok(&["rm", &uuid]);
    Ok(())
}

/// Images whose logs are links to /dev/stdout.
fn outputs_are_opened_anew_by_anybody(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = crate::attach::pod(&podctl, &t.dir.join("root"), &[]);
    let script =
        "echo 1 >/dev/stdout; echo 2 >>/proc/self/fd/1; sh -c 'exec 2>/dev/stderr; echo 3 >&2'; echo 4 <>/dev/stdout";
    for user in ["--user=0", "--user=1001"] {
        crate::attach::start(&pod, "one", &[user, "--group=2001"], script);
        assert_eq!(pod.exit_code("one"), 0);
        let shown = records(&podctl, &[&pod.uuid, "--app", "one", "-n", "4"]);
        let mut shown: Vec<String> =
            shown.iter().map(|line| format!("{} {}", line["message"], line["stream"]).replace('"', "")).collect();
        shown.sort();
        assert_eq!(shown, ["1 stdout", "2 stdout", "3 stderr", "4 stdout"], "{user}");
        pod.app("rm", "one", &[]).ok();
    }
    pod.end();
    Ok(())
}

fn syslog_goes_to_the_same_log(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &["--env=NOTIFY_SOCKET=/dev/log", "--user=1001", "--group=2001"], &["notify", "<12>tag: by syslog"]);
    for _ in 0..2 {
        pod.app("start", "a", &[]).ok();
        assert_eq!(pod.exit_code("a"), 0);
        let line = &records(&podctl, &[&pod.uuid, "--app", "a", "-n", "1"])[0];
        assert_eq!(
            (line["stream"].as_str(), line["message"].as_str()),
            (Some("stderr"), Some("tag: by syslog")),
            "{line}"
        );
    }
    assert_eq!(lines(&podctl, &[&pod.uuid]).len(), 2);
    assert!(!descendants(pod.pid()).iter().any(|process| process.words.contains("journald")));
    pod.end();
    Ok(())
}

fn lines_are_followed_across_rotations(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--log-max-size=256Ki"]);
    pod.add("a", &[], &["lines", "20000", "line"]);
    // before the log exists
    let follower = Follower::start(&podctl, &[&pod.uuid, "--app", "a"]);
    pod.app("start", "a", &[]).ok();
    // a reader meanwhile sees all lines so far
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
    assert!(fs::read_dir(log(&pod, "a"))?.count() > 2, "nothing was rotated");
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn the_logs_and_the_console_are_bounded(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--log-max-size=256Ki", "--log-max-files=3"]);
    pod.run_app("a", &[], &["lines", "60000", "line"]);
    podctl.ok(&["stop", &pod.uuid]);
    let shown = lines(&podctl, &[&pod.uuid, "--app", "a"]);
    assert!((5000..50_000).contains(&shown.len()), "{} lines", shown.len());
    let expected: Vec<String> = (60_000 - shown.len()..60_000).map(|n| format!("line {n}")).collect();
    assert!(shown == expected, "{} to {}", shown[0], shown[shown.len() - 1]);
    let size = |path: &Path| path.metadata().map_or(0, |m| m.len());
    let sizes: Vec<u64> = fs::read_dir(log(&pod, "a"))?.filter_map(|f| Some(size(&f.ok()?.path()))).collect();
    assert!(sizes.len() <= 3 && sizes.iter().sum::<u64>() <= 3 * (1 << 20), "{sizes:?} bytes");
    assert!(size(&pod.dir().join("console")) <= 260 << 10);
    podctl.ok(&["rm", &pod.uuid]);
    for bad in ["--log-max-size=1k", "--log-max-size=x", "--log-max-size=9Ti", "--log-max-files=0", "--log-driver=tape"]
    {
        let out = podctl.run(&["sandbox", bad]);
        let option = bad.split('=').next().unwrap_or_default();
        assert!(out.code == Some(2) && out.stderr.contains(option), "{out}");
    }
    Ok(())
}

/// A stand-in for the host's journald, for one test.
struct Journald(std::os::unix::net::UnixDatagram, PathBuf);

impl Journald {
    const SOCKET: &str = "/run/systemd/journal/socket";

    /// The received entries, each with its fields.
    fn entries(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count) = self.0.recv(&mut buffer) {
            all.push(buffer[..count].to_vec());
        }
        all
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.1);
    }
}

fn other_log_drivers(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    for (driver, why) in [("none", "driver none keeps none"), ("passthrough", "driver passthrough keeps none")] {
        let option = format!("--log-driver={driver}");
        let words =
            ["run", &option, "--net=none", "probe", "--name=a", "--", "print", "one", "---", "probe", "--name=b"];
        let out = podctl.run(&[&words[..], &["--", "print", "two"]].concat());
        let mut shown: Vec<&str> = out.stdout.lines().collect();
        shown.sort_unstable();
        let expected = if driver == "none" { ["a | one", "b | two"] } else { ["one", "two"] };
        assert_eq!(shown, expected, "{driver}");
        let uuid = podctl.json(&["list", "--format", "json"])[0]["name"].as_str().unwrap_or_default().to_owned();
        let line = podctl.fails(&["logs", &uuid]);
        assert!(line.contains(why), "{line}");
        podctl.ok(&["rm", &uuid]);
    }
    let socket = Path::new(Journald::SOCKET);
    if socket.exists() {
        // This machine's own journald must not get these entries.
        return Ok(());
    }
    fs::create_dir_all(socket.parent().ok_or("no parent")?)?;
    let journald = Journald(std::os::unix::net::UnixDatagram::bind(socket)?, socket.to_owned());
    journald.0.set_nonblocking(true)?;
    let words = ["run", "--log-driver=journald", "--net=none", "probe", "--name=a", "--"];
    let out = podctl.run(&[&words[..], &["print", "one", "+", "warn", "two"]].concat());
    assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (Some(0), "one\n", "two\n"), "{out}");
    let uuid = podctl.json(&["list", "--format", "json"])[0]["name"].as_str().unwrap_or_default().to_owned();
    let entries = journald.entries();
    for (priority, message) in [("6", "one"), ("3", "two")] {
        let head = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=a\nCONTAINER_NAME=a\n");
        let tail = [&b"MESSAGE\n\x03\0\0\0\0\0\0\0"[..], message.as_bytes(), b"\n"].concat();
        let found = entries.iter().find(|entry| entry.starts_with(head.as_bytes()) && entry.ends_with(&tail));
        let found = String::from_utf8_lossy(found.unwrap_or_else(|| panic!("{message}: {entries:?}"))).into_owned();
        assert!(found.contains(&format!("CONTAINER_ID_FULL={uuid}\n")), "{found}");
    }
    let line = podctl.fails(&["logs", &uuid]);
    assert!(line.contains("journalctl CONTAINER_ID_FULL="), "{line}");
    podctl.ok(&["rm", &uuid]);
    Ok(())
}

/// The monitor always reads the output of PID 1, so that PID 1 never waits for it.
fn a_debug_run_of_a_terminal_starts_at_once(t: &Context) -> Verdict {
    let podctl = t.podctl();
    with_shell(&podctl, t);
    let began = std::time::Instant::now();
    let mut command = podctl.command(&["--debug", "run", "--rm", "--interactive", "--net=none", "shell", "--", "-c"]);
    let out = tests::process::run_with_input(command.arg("read a; echo got $a"), "this\n");
    assert_eq!((out.code, out.stdout.as_str()), (Some(0), "got this\n"), "{out}");
    assert!(out.stderr.contains("systemd"), "its PID 1 says nothing in debug mode");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    Ok(())
}
