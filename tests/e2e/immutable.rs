//! Pods that have all their apps from the start: `run`, `prepare`, `run-prepared`.

#![allow(clippy::zombie_processes, reason = "the warden of a failed test reaps what it has left")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Podctl;
use tests::process::{Process, descendants, mountinfo, run_with_input, wait_for};
use tests::screen::Screen;

tests::cases! {
    native every_exit_code_is_that_of_run 300;
    both signals_and_codes_of_run 120;
    both an_oom_kill_shows 120;
    both the_pod_ends_with_its_last_app;
    native what_stands_between_apps_can_be_an_argument;
    both the_first_that_fails_ends_the_pod;
    both sigterm_ends_it_in_order;
    both a_second_sigterm_ends_it_at_once;
    both a_killed_run_leaves_no_process;
    both an_interrupted_run_is_removed;
    both what_cant_be_added_is_one_line;
    both prepared_now_and_run_later;
    both what_apps_are_given;
    native the_app_has_the_callers_terminal;
    native keys_and_sizes_reach_the_app;
    native the_terminal_is_given_back_in_any_case;
    native input_that_is_not_typed;
}

/// An image with a shell: a script says what the app does, and it can send signals to itself.
fn import_shell(podctl: &Podctl, dir: &Path) {
    let root = dir.join("shell-root");
    fs::create_dir_all(root.join("bin")).expect("mkdir");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("/bin/busybox");
    for name in ["sh", "sleep", "stty", "cat", "tty", "id", "md5sum", "hostname"] {
        symlink("busybox", root.join("bin").join(name)).expect("symlink");
    }
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "sh", "--exec", "/bin/sh"]);
}

fn with_shell(t: &Context) -> Podctl {
    let podctl = t.podctl();
    import_shell(&podctl, &t.dir);
    podctl
}

/// The exit codes of pods that run these scripts, several at a time.
fn codes(podctl: &Podctl, scripts: &[String]) -> Vec<Option<i32>> {
    let start = |script: &String| {
        podctl
            .command(&["run", "--rm", "--net=none", "sh", "--", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("podctl")
    };
    let mut codes = Vec::new();
    for some in scripts.chunks(4) {
        let mut children: Vec<Child> = some.iter().map(start).collect();
        codes.extend(children.iter_mut().map(|child| child.wait().expect("wait").code()));
    }
    codes
}

/// Checks that there is no pod, no cgroup and no mount of one.
fn nothing_is_left(podctl: &Podctl) {
    assert_eq!(podctl.json(&["list", "--format", "json"]).as_array().map(Vec::len), Some(0));
    let data = podctl.data.display().to_string();
    let mounts: Vec<_> = mountinfo("self").into_iter().filter(|m| m[4].starts_with(&data)).collect();
    assert!(mounts.is_empty(), "{mounts:?}");
}

fn every_exit_code_is_that_of_run(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let scripts: Vec<String> = (0..=255).map(|code| format!("exit {code}")).collect();
    for (expected, code) in codes(&podctl, &scripts).into_iter().enumerate() {
        assert_eq!(code, Some(expected as i32));
    }
    nothing_is_left(&podctl);
    Ok(())
}

fn signals_and_codes_of_run(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    // All signals whose default action ends a process (signal(7)), and some real-time signals.
    // Not SIGQUIT, which the shell ignores.
    let fatal = (1..=16).filter(|n| *n != 3).chain([24, 25, 26, 27, 29, 30, 31, 34, 50, 64]);
    let mut table: Vec<(String, i32)> = fatal.map(|n| (format!("kill -{n} $$"), 128 + n)).collect();
    table.extend([0, 1, 2, 126, 127, 128, 137, 203, 254, 255].map(|code| (format!("exit {code}"), code)));
    // Ignored signals, and signals that the program handles, do not end it.
    table.push(("kill -28 $$; exit 5".into(), 5));
    table.push(("trap 'exit 9' TERM; kill $$".into(), 9));
    let scripts: Vec<String> = table.iter().map(|(script, _)| script.clone()).collect();
    for ((script, expected), code) in table.iter().zip(codes(&podctl, &scripts)) {
        assert_eq!(code, Some(*expected), "{script}");
    }
    let out = podctl.run(&["run", "--rm", "sh", "--exec", "/bin/none"]);
    assert_eq!(out.code, Some(127), "{out}");
    assert!(out.stderr.contains("/bin/none"), "it does not say what can't be executed: {out}");
    let out = podctl.run(&["run", "--rm", "sh", "--exec", "/bin"]);
    assert_eq!(out.code, Some(126), "{out}");
    podctl.import_probe();
    assert_eq!(podctl.run(&["run", "--rm", "probe", "--", "signal", "SIGQUIT"]).code, Some(131));
    nothing_is_left(&podctl);
    Ok(())
}

fn an_oom_kill_shows(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let out = podctl.run(&["run", "--net=none", "probe", "--memory=32Mi", "--exec=/probe", "--", "alloc", "100000000"]);
    if !t.has_controllers() {
        // Without a controller the limit can't be enforced; podctl says so.
        assert!(out.code == Some(0) && out.stderr.contains("memory"), "{out}");
    } else {
        assert_eq!(out.code, Some(137), "{out}");
        let uuid = only_pod(&podctl);
        let status = podctl.json(&["app", "status", &uuid, "probe", "--format", "json"]);
        assert_eq!((status["state"].as_str(), status["exit_code"].as_i64()), (Some("exited"), Some(137)), "{status}");
    }
    podctl.ok(&["rm", &only_pod(&podctl)]);
    Ok(())
}

/// The UUID of the only pod.
#[track_caller]
fn only_pod(podctl: &Podctl) -> String {
    let list = podctl.json(&["list", "--format", "json"]);
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    list[0]["name"].as_str().expect("a name").to_owned()
}

fn what_stands_between_apps_can_be_an_argument(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let last = podctl.run(&["run", "--rm", "--net=none", "sh", "--", "-c", "echo $0 $#", "---"]);
    assert_eq!(last.ok(), "--- 0");
    let words = "run --rm --net=none sh --name=a -- -c";
    let words: Vec<&str> =
        words.split(' ').chain(["echo $@", "", r"\---", r"\\---", "---", "sh", "--", "-c", "exit 0"]).collect();
    assert_eq!(podctl.run(&words).ok(), r"a | --- \---");
    Ok(())
}

fn the_pod_ends_with_its_last_app(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let began = Instant::now();
    let out = podctl.run(&[
        "run",
        "sh",
        "--name=at-once",
        "--",
        "-c",
        "echo one",
        "---",
        "sh",
        "--name=later",
        "--",
        "-c",
        "sleep 1.5; echo two; echo three >&2",
        "---",
        "sh",
        "--name=too",
        "--",
        "-c",
        "exit 0",
    ]);
    assert!(out.code == Some(0) && began.elapsed() > Duration::from_millis(1500), "{out}");
    for (said, name) in [("one", "at-once | "), ("two", "later | ")] {
        assert!(out.stdout.lines().any(|line| *line == format!("{name}{said}")), "{said}: {out}");
    }
    assert_eq!(out.stderr, "later | three\n", "{out}");
    let uuid = only_pod(&podctl);
    let list = podctl.json(&["app", "list", &uuid, "--format", "json"]);
    for app in list.as_array().expect("a list") {
        assert_eq!((app["state"].as_str(), app["exit_code"].as_i64()), (Some("exited"), Some(0)), "{app}");
    }
    assert_eq!(list.as_array().map(Vec::len), Some(3), "{list}");
    assert_eq!(podctl.json(&["status", &uuid, "--format", "json"])["state"], "exited");
    for _ in 0..2 {
        podctl.ok(&["gc", "--grace-period=0s"]);
    }
    nothing_is_left(&podctl);
    Ok(())
}

fn the_first_that_fails_ends_the_pod(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let began = Instant::now();
    let out = podctl.run(&[
        "run",
        "sh",
        "--name=lives",
        "--",
        "-c",
        "trap 'exit 5' TERM; while :; do sleep 0.1; done",
        "---",
        "sh",
        "--name=fails",
        "--",
        "-c",
        "sleep 0.5; exit 33",
        "---",
        "sh",
        "--name=done",
        "--",
        "-c",
        "exit 0",
    ]);
    assert!(out.code == Some(33) && began.elapsed() < Duration::from_secs(20), "{out}");
    let uuid = only_pod(&podctl);
    let code = |app: &str| podctl.json(&["app", "status", &uuid, app, "--format", "json"])["exit_code"].as_i64();
    assert_eq!(
        (code("lives"), code("fails"), code("done")),
        (Some(5), Some(33), Some(0)),
        "one was not stopped in order"
    );
    podctl.ok(&["rm", &uuid]);
    nothing_is_left(&podctl);
    Ok(())
}

/// A pod in the foreground that has written `up` to a file in its volume.
struct Running {
    child: Child,
    uuid: String,
    family: Vec<Process>,
}

impl Running {
    fn start(podctl: &Podctl, options: &[&str], script: &str) -> Self {
        let out = podctl.out();
        fs::create_dir_all(&out).expect("mkdir");
        let volume = format!("--volume=out,kind=host,source={}", out.display());
        let script = format!("{script}; echo up >/out/up; while :; do sleep 0.1; done");
        let words = ["run", &volume, "sh", "--name=app", "--mount=volume=out,target=/out"];
        let mut command = podctl.command(&[&words, options, &["--", "-c", &script]].concat());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("podctl");
        wait_for("the app", 40, || out.join("up").exists().then_some(()));
        let pid = i32::try_from(child.id()).expect("pid");
        let mut family = descendants(pid);
        family.extend(Process::look_up(pid));
        assert!(family.len() >= 3, "{family:?}");
        Self { child, uuid: only_pod(podctl), family }
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("kill");
    }

    /// Waits for its end; returns its exit code, and checks that none of its processes is left.
    #[track_caller]
    fn ended(mut self) -> Option<i32> {
        let code = self.child.wait().expect("wait").code();
        wait_for("the end of all processes", 10, || (!self.family.iter().any(|p| Process::lives(p.pid))).then_some(()));
        code
    }
}

fn sigterm_ends_it_in_order(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let running = Running::start(&podctl, &[], "trap 'exit 5' TERM");
        let uuid = running.uuid.clone();
        let state = podctl.json(&["app", "status", &uuid, "app", "--format", "json"]);
        assert_eq!(state["state"], "running", "{state}");
        assert_eq!(podctl.json(&["status", &uuid, "--format", "json"])["state"], "running");
        for verb in ["add", "stop", "start", "rm"] {
            let complaint = podctl.fails(&["app", verb, &uuid, if verb == "add" { "sh" } else { "app" }]);
            assert!(complaint.contains("immutable"), "{complaint}");
        }
        running.send(signal);
        // A requested end is an orderly one: the apps' statuses do not make it a failure.
        assert_eq!(running.ended(), Some(0), "{signal}");
        let status = podctl.json(&["app", "status", &uuid, "app", "--format", "json"]);
        assert_eq!((status["state"].as_str(), status["exit_code"].as_i64()), (Some("exited"), Some(5)), "{status}");
        podctl.ok(&["rm", &uuid]);
        fs::remove_file(podctl.out().join("up"))?;
    }
    nothing_is_left(&podctl);
    Ok(())
}

fn a_second_sigterm_ends_it_at_once(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let running = Running::start(&podctl, &[], "trap '' TERM");
    let uuid = running.uuid.clone();
    running.send(Signal::SIGTERM);
    Process::has_taken(running.child.id() as i32, Signal::SIGTERM as i32);
    assert!(Process::lives(running.child.id() as i32), "the app is stubborn: it can't have ended yet");
    let began = Instant::now();
    running.send(Signal::SIGTERM);
    assert_eq!(running.ended(), Some(137));
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    podctl.ok(&["rm", &uuid]);
    nothing_is_left(&podctl);
    Ok(())
}

fn a_killed_run_leaves_no_process(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    for options in [&[][..], &["--rm"]] {
        let running = Running::start(&podctl, options, "trap '' TERM");
        let uuid = running.uuid.clone();
        running.send(Signal::SIGKILL);
        assert_eq!(running.ended(), None);
        wait_for("the state exited", 10, || {
            (podctl.json(&["status", &uuid, "--format", "json"])["state"] == "exited").then_some(())
        });
        // A pod that is removed at its end need not write its files to disk.
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let overlays: Vec<_> =
            mounts.lines().filter(|line| line.contains(&uuid) && line.contains("upperdir=")).collect();
        assert_eq!(overlays.len(), 2, "{mounts}");
        let volatile =
            overlays.iter().filter(|line| line.split(',').any(|option| option.ends_with("volatile"))).count();
        assert_eq!(volatile, if options.is_empty() { 0 } else { 2 }, "{options:?}: {overlays:?}");
        podctl.ok(&["rm", &uuid]);
        fs::remove_file(podctl.out().join("up"))?;
    }
    nothing_is_left(&podctl);
    Ok(())
}

fn an_interrupted_run_is_removed(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let running = Running::start(&podctl, &["--rm"], "trap 'echo orderly >/out/end; exit 0' TERM");
    running.send(Signal::SIGTERM);
    assert_eq!(running.ended(), Some(0));
    assert!(podctl.out().join("end").exists(), "the app was not stopped in order");
    nothing_is_left(&podctl);
    Ok(())
}

fn what_cant_be_added_is_one_line(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let gone = t.dir.join("gone");
    fs::create_dir(&gone)?;
    let volume = format!("--volume=v,kind=host,source={}", gone.display());
    let cases: [(&[&str], &[&str], &str); 9] = [
        (&[], &["sh", "--user=nosuch"], "nosuch"),
        (&[], &["sh", "--user=1", "--group=nosuch"], "nosuch"),
        (&[], &["sh", "--mount=volume=w,target=/w"], "no volume w"),
        (&["--volume=w,kind=host,source=/no/such/place"], &["sh", "--mount=volume=w,target=/w"], "/no/such/place"),
        (&[], &["nothing"], "nothing"),
        (&[], &["sh", "--memory=64"], "write 64m"),
        (&[], &["sh", "---", "sh"], "already"),
        (&["--interactive"], &["sh", "---", "sh", "--name=b"], "one app"),
        (&["--dns-conf-mode=resolv=banana"], &["sh"], "banana"),
    ];
    for (options, apps, why) in cases {
        let out = podctl.run(&[&["run", "--rm"], options, apps].concat());
        assert_eq!(out.code, Some(125), "{out}");
        let complaint = out.complaint();
        assert!(complaint.contains(why), "{complaint}");
        nothing_is_left(&podctl);
    }
    // The second app can't be added: the first is not started.
    let out = podctl.run(&[
        "run",
        &volume,
        "sh",
        "--mount=volume=v,target=/v",
        "--",
        "-c",
        "echo x >/v/ran",
        "---",
        "sh",
        "--name=b",
        "--user=nosuch",
    ]);
    assert!(out.code == Some(125) && !gone.join("ran").exists(), "{out}");
    assert!(out.clone().complaint().contains("app b: "), "{out}");
    podctl.ok(&["rm", &only_pod(&podctl)]);
    // A volume's source that is gone before the pod is run.
    let uuid = podctl.ok(&["prepare", &volume, "sh", "--mount=volume=v,target=/v"]);
    fs::remove_dir(&gone)?;
    let out = podctl.run(&["run-prepared", "--rm", &uuid]);
    // rkt reports that by this exit code.
    assert_eq!(out.code, Some(1), "{out}");
    assert!(out.clone().complaint().contains("/gone"), "{out}");
    nothing_is_left(&podctl);
    Ok(())
}

fn prepared_now_and_run_later(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let prepare = ["prepare", "--hostname=h1", "--net=none", "sh", "--name=a", "--env=A=1"];
    let tell = "echo at $(hostname) $A; exit 6";
    let uuid = podctl.ok(&[&prepare[..], &["--", "-c", tell]].concat());
    let status = podctl.json(&["status", &uuid, "--format", "json"]);
    assert_eq!((status["state"].as_str(), status["apps"][0]["state"].as_str()), (Some("prepared"), Some("created")));
    assert!(podctl.data.join("pods/prepared").join(&uuid).join("appsinfo/a/manifest").exists());
    let mounts = mountinfo("self").into_iter().filter(|m| m[4].contains(&uuid)).count();
    assert_eq!(mounts, 0, "what only is prepared needs no mount");
    assert!(podctl.fails(&["app", "add", &uuid, "sh"]).contains("prepared"));
    let out = podctl.run(&["run-prepared", &uuid[..8]]);
    assert!(out.code == Some(6) && out.stdout.contains("at h1 1"), "{out}");
    assert_eq!(podctl.json(&["app", "status", &uuid, "a", "--format", "json"])["exit_code"], 6);
    assert!(podctl.fails(&["run-prepared", &uuid]).contains("exited, not prepared"));
    podctl.ok(&["rm", &uuid]);

    // The last option counts; and a pod that was not run can be removed.
    let uuid = podctl.ok(&[&prepare[..], &["--", "-c", tell]].concat());
    let out = podctl.run(&["run-prepared", "--rm", "--hostname=h2", &uuid]);
    assert!(out.code == Some(6) && out.stdout.contains("at h2 1"), "{out}");
    let uuid = podctl.ok(&prepare);
    podctl.ok(&["rm", &uuid]);
    nothing_is_left(&podctl);
    Ok(())
}

fn what_apps_are_given(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    podctl.import_probe();
    fs::create_dir_all(podctl.out())?;
    fs::set_permissions(podctl.out(), PermissionsExt::from_mode(0o777))?;
    let volume = format!("--volume=out,kind=host,source={}", podctl.out().display());
    let app = |name: &'static str, more: &[&'static str]| -> Vec<String> {
        let words = ["probe", "--name", name, "--mount=volume=out,target=/out", "--mount=volume=v,target=/shared"];
        let mut words: Vec<String> = words.iter().chain(more).map(|&word| word.to_owned()).collect();
        words.extend(["--", "report"].map(str::to_owned));
        words.push(format!("/out/{name}.json"));
        words
    };
    let mut words = vec!["run".to_owned(), "--rm".to_owned(), "--net=none".to_owned(), "--hostname=pod".to_owned()];
    words.extend([volume, "--volume=v,kind=empty".to_owned()]);
    words.extend(app("one", &["--user=web", "--caps-retain=CAP_KILL", "--env=A=b c"]));
    words.push("---".into());
    words.extend(app("two", &["--working-dir=/home", "--readonly-rootfs"]));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    podctl.ok(&words);
    let read = |name: &str| -> Result<serde_json::Value, Box<dyn std::error::Error>> {
        Ok(serde_json::from_str(&fs::read_to_string(podctl.out().join(format!("{name}.json")))?)?)
    };
    let (one, two) = (read("one")?, read("two")?);
    assert_eq!((&one["ids"]["uid"][0], &two["ids"]["uid"][0]), (&1001.into(), &0.into()));
    assert_eq!(one["capabilities"]["CapBnd"], "0000000000000020");
    assert_eq!(
        (&one["env"]["A"], &one["env"]["AC_APP_NAME"], &two["env"]["AC_APP_NAME"]),
        (&"b c".into(), &"one".into(), &"two".into())
    );
    assert_eq!((&two["cwd"], &one["hostname"], &two["hostname"]), (&"/home".into(), &"pod".into(), &"pod".into()));
    for report in [&one, &two] {
        assert_eq!(report["seccomp"], "2");
        assert_eq!(report["interfaces"], serde_json::json!(["lo"]));
        assert!(report["mountinfo"].to_string().contains("/shared"), "the volume is missing");
    }
    assert_eq!(one["namespaces"]["pid"], two["namespaces"]["pid"]);
    assert_ne!(one["namespaces"]["mnt"], two["namespaces"]["mnt"]);
    nothing_is_left(&podctl);
    Ok(())
}

const ALL: [Option<Stdio>; 3] = [None, None, None];

/// Starts a shell as the only app, on this terminal.
fn shell_at(screen: &Screen, podctl: &Podctl, options: &[&str]) -> Child {
    let words = [&["run", "--interactive", "--net=none"], options, &["sh", "--env=PS1=in> "]].concat();
    let mut command = podctl.command(&words);
    screen.start(command.env("TERM", "dumb-as-can-be"), ALL)
}

fn the_app_has_the_callers_terminal(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let mut screen = Screen::new();
    screen.resize(33, 99);
    let before = screen.settings();
    for options in [&[][..], &["--rm"]] {
        let mut shell = shell_at(&screen, &podctl, options);
        screen.shows("in> ");
        assert!(screen.is_raw(), "the caller's terminal would make lines and signals of its own");
        // The output is shown once, with line ends converted once.
        screen.types("echo a''b\n");
        screen.shows("echo a''b\r\nab\r\nin> ");
        screen.types("stty size; tty; echo $TERM\n");
        screen.shows("33 99\r\n/dev/pts/0\r\ndumb-as-can-be\r\n");
        // The app has its own terminal, and nothing of the host's.
        screen.types("ls -l /proc/self/fd /proc/1/fd 2>/dev/null; exec 3<>/dev/tty; echo op''en\n");
        screen.shows("open\r\nin> ");
        screen.types("exit 7\n");
        assert_eq!(screen.end_of(&mut shell), 7);
        assert_eq!(screen.settings(), before);
    }
    let uuid = only_pod(&podctl);
    assert_eq!(podctl.json(&["app", "status", &uuid, "sh", "--format", "json"])["exit_code"], 7);
    podctl.ok(&["rm", &uuid]);

    // Prepared for a terminal and run by another user; all output before its end is shown.
    let uuid = podctl.ok(&[
        "prepare",
        "--interactive",
        "sh",
        "--user=1001",
        "--group=1001",
        "--",
        "-c",
        "id -u >/dev/tty; i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo line $i; done; echo last >/dev/stdout",
    ]);
    let mut command = podctl.command(&["run-prepared", "--rm", &uuid]);
    let mut child = screen.start(command.stdin(Stdio::null()), ALL);
    screen.shows("1001\r\nline 1\r\n");
    screen.shows("line 5000\r\nlast\r\n");
    assert_eq!(screen.end_of(&mut child), 0);
    assert_eq!(screen.settings(), before);
    nothing_is_left(&podctl);
    Ok(())
}

fn keys_and_sizes_reach_the_app(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let mut screen = Screen::new();
    let mut shell = shell_at(&screen, &podctl, &["--rm"]);
    screen.shows("in> ");
    // Ctrl-C ends the foreground program, not the pod.
    screen.types("sleep 4242\n");
    screen.shows("sleep 4242\r\n");
    wait_for("the sleeper", 10, || tests::process::all().into_iter().find(|p| p.words == "sleep 4242"));
    screen.types("\x03");
    screen.shows("in> ");
    screen.tells_its_shell_of_a_resize("in> ");
    screen.types("echo o''k\n");
    screen.shows("ok\r\nin> ");
    // The end of the input ends the shell.
    screen.types("\x04");
    assert_eq!(screen.end_of(&mut shell), 0);
    nothing_is_left(&podctl);
    Ok(())
}

fn the_terminal_is_given_back_in_any_case(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let mut screen = Screen::new();
    let before = screen.settings();
    let run = |child: &Child| -> Pid {
        wait_for("the process of the pod", 10, || {
            let family = descendants(child.id() as i32);
            let me = Process::look_up(child.id() as i32);
            me.into_iter().chain(family).find(|p| p.words.contains("/bin/run ")).map(|p| Pid::from_raw(p.pid))
        })
    };
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut shell = shell_at(&screen, &podctl, &["--rm"]);
        screen.shows("in> ");
        kill(run(&shell), signal)?;
        assert_eq!(screen.end_of(&mut shell), 0, "{signal}");
        assert_eq!(screen.settings(), before, "{signal}");
    }
    // Stopped, the caller's shell has the terminal; continued, the app has it again.
    let mut shell = shell_at(&screen, &podctl, &["--rm"]);
    screen.shows("in> ");
    let pid = run(&shell);
    kill(pid, Signal::SIGTSTP)?;
    wait_for("the terminal as it was", 10, || (screen.settings() == before).then_some(()));
    kill(pid, Signal::SIGCONT)?;
    wait_for("the terminal in raw mode", 10, || screen.is_raw().then_some(()));
    screen.types("exit 3\n");
    assert_eq!(screen.end_of(&mut shell), 3);
    assert_eq!(screen.settings(), before);
    // A pod that does not start its app.
    let mut command = podctl.command(&["run", "--rm", "--interactive", "sh", "--user=nosuch"]);
    let mut child = screen.start(command.stdin(Stdio::null()), ALL);
    screen.shows("nosuch");
    assert_eq!(screen.end_of(&mut child), 125);
    assert_eq!(screen.settings(), before);
    nothing_is_left(&podctl);
    Ok(())
}

fn input_that_is_not_typed(t: &Context) -> Verdict {
    let podctl = with_shell(t);
    let with = |input: &str, script: &str| {
        let words = ["run", "--rm", "--interactive", "--net=none", "sh", "--", "-c", script];
        run_with_input(&mut podctl.command(&words), input)
    };
    let out = with("one\ntwo", "read a; echo first $a; cat; echo; echo end; exit 4");
    assert_eq!((out.code, out.stdout.as_str()), (Some(4), "first one\ntwo\nend\n"), "{out}");
    let out = with("", "cat; echo end");
    assert_eq!((out.code, out.stdout.as_str()), (Some(0), "end\n"), "{out}");
    // Bytes that a terminal would turn into signals or line ends.
    let odd = "\x03\x1a\x1c\x11\x13\r\x7f\x15\x16 \u{e9}\n";
    let out = with(odd, "cat");
    assert_eq!((out.code, out.stdout.as_str()), (Some(0), odd), "{out}");
    // More than any buffer holds, to a reader that is slow at first.
    let many: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let out = with(&many, "sleep 0.5; md5sum");
    let expected = run_with_input(&mut Command::new("md5sum"), &many);
    assert_eq!((out.code, &out.stdout), (Some(0), &expected.stdout), "{out}");
    nothing_is_left(&podctl);
    Ok(())
}
