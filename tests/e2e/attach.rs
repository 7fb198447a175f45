//! Attaching to apps as users do: terminals, streams, and what happens to both when a client detaches.

#![allow(clippy::zombie_processes, reason = "the warden of a failed test reaps what it has left")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Verdict;
use tests::harness::Context;
use tests::image;
use tests::podctl::{Pod, Podctl};
use tests::process::{Output, Process, descendants, run, run_with_input, wait_for};
use tests::screen::Screen;

tests::cases! {
    native a_shell_on_its_own_terminal;
    native detached_by_keys_of_ones_own;
    native the_terminal_is_as_it_was_on_every_way_out;
    native a_terminal_fed_by_a_pipe;
    native streams_of_an_app;
    native several_clients_and_partial_lines;
    native input_of_several_and_its_end;
    native what_was_written_before_anybody_came;
    native apps_that_end_and_start_again;
    native apps_without_streams_are_attached_to_as_well;
    native a_killed_monitor_is_told;
    native an_immutable_pods_streams;
    native what_is_not_there_is_told;
}

const ALL: [Option<Stdio>; 3] = [None, None, None];

/// A pod with an image that has a shell.
#[track_caller]
pub fn pod<'a>(podctl: &'a Podctl, root: &Path, options: &[&str]) -> Pod<'a> {
    import_shell(podctl, root);
    let out = podctl.out();
    fs::create_dir_all(&out).expect("mkdir");
    podctl.sandbox(&[&["--net=none", &format!("--volume=out,kind=host,source={}", out.display())], options].concat())
}

#[track_caller]
pub fn import_shell(podctl: &Podctl, root: &Path) {
    image::rootfs(root);
    let busybox = root.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox).expect("/bin/busybox (of the package busybox-static)");
    for name in ["sh", "stty", "cat", "sleep", "tty", "head", "printf"] {
        symlink("busybox", root.join("bin").join(name)).expect("symlink");
    }
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "shell", "--exec", "/bin/sh"]);
}

/// Adds an app that runs a script of the shell, and starts it.
#[track_caller]
pub fn start(pod: &Pod<'_>, app: &str, options: &[&str], script: &str) {
    let args = [
        &["app", "add", pod.uuid.as_str(), "shell", "--name", app, "--mount=volume=out,target=/out"],
        options,
        &["--exec=/bin/sh", "--", "-c", script],
    ];
    pod.podctl.ok(&args.concat());
    pod.app("start", app, &[]).ok();
}

pub const STREAMS: [&str; 3] = ["--stdin=stream", "--stdout=stream", "--stderr=stream"];
const TTY: [&str; 3] = ["--stdin=tty", "--stdout=tty", "--stderr=tty"];

/// `podctl attach`
pub fn attach(pod: &Pod<'_>, app: &str, options: &[&str]) -> Command {
    pod.podctl.command(&[&["attach", pod.uuid.as_str(), "--app", app], options].concat())
}

/// The PID of the pod's monitor, which carries the streams of its apps.
#[track_caller]
pub fn monitor(pod: &Pod<'_>) -> i32 {
    Process::look_up(pod.pid()).expect("the pod").parent
}

fn a_shell_on_its_own_terminal(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &[&TTY[..], &["--env=PS1=in> "]].concat(), "exec sh");
    let mut screen = Screen::new();
    let before = screen.settings();
    screen.resize(33, 99);
    let mut client = screen.start(&attach(&pod, "one", &[]), ALL);
    // The app wrote the prompt before anyone attached.
    screen.shows("in> ");
    assert!(screen.is_raw(), "the caller's terminal would make lines and signals of its own");
    // The terminal echoes what is typed, and backspace removes it.
    screen.types("echo a''c\x7fb\n");
    screen.shows("\r\nab\r\nin> ");
    screen.types("tty; echo $TERM\n");
    screen.shows("\r\n/dev/pts/0\r\nvt100\r\nin> ");
    screen.types("stty size\n");
    screen.shows("33 99\r\n");
    // A new window size: the foreground program gets SIGWINCH.
    screen.tells_its_shell_of_a_resize("in> ");
    // Ctrl-C ends only the foreground program; Ctrl-Z stops it.
    screen.types("sleep 4242\n");
    let words = |words: &str| descendants(pod.pid()).into_iter().find(|p| p.words == words).map(|p| p.pid);
    let in_front = wait_for("sleep 4242", 10, || words("sleep 4242"));
    screen.types("\x03");
    screen.shows("^C");
    screen.shows("in> ");
    assert!(!Process::lives(in_front));
    screen.types("sleep 4343\n");
    let stopped = wait_for("sleep 4343", 10, || words("sleep 4343"));
    screen.types("\x1a");
    screen.shows("Stopped");
    screen.types("kill %1; kill -CONT %1\n");
    wait_for("the end of the job", 10, || (!Process::lives(stopped)).then_some(()));
    // After detaching the shell goes on; the next client sees its output.
    screen.types("kept=this; (while [ ! -e /out/go ]; do sleep 0.05; done; echo mean''while) & \n");
    screen.shows("in> ");
    screen.types("\x10\x11");
    assert_eq!(screen.end_of(&mut client), 0);
    screen.shows("detached from app one");
    assert_eq!(screen.settings(), before, "the terminal is not as it was");
    fs::write(podctl.out().join("go"), "")?;
    let mut screen = Screen::new();
    let mut client = screen.start(&attach(&pod, "one", &[]), ALL);
    screen.shows("meanwhile\r\n");
    screen.types("echo still $kept; stty size\n");
    screen.shows("still this\r\n24 80\r\n");
    // The end of the shell ends the attachment.
    screen.types("exit 7\n");
    assert_eq!(screen.end_of(&mut client), 7, "{}", screen.text());
    assert_eq!(pod.exit_code("one"), 7);
    pod.end();
    Ok(())
}

fn detached_by_keys_of_ones_own(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &[&TTY[..], &["--env=PS1=in> "]].concat(), "exec sh");
    let mut screen = Screen::new();
    let mut client = screen.start(&attach(&pod, "one", &["--detach-keys=ctrl-a,d"]), ALL);
    screen.shows("in> ");
    // Other key sequences reach the shell.
    screen.types("\x10\x11echo a''b\n");
    screen.shows("ab\r\n");
    screen.types("\x01d");
    assert_eq!(screen.end_of(&mut client), 0);
    // A client can also detach from an app that does not read its input.
    start(&pod, "deaf", &TTY, "stty raw; echo ready; exec sleep 1000");
    let mut screen = Screen::new();
    let mut client = screen.start(&attach(&pod, "deaf", &[]), ALL);
    screen.shows("ready");
    for _ in 0..16 {
        screen.types(&"x".repeat(4096));
    }
    screen.types("\x10\x11");
    assert_eq!(screen.end_of(&mut client), 0);
    let complaint = run(&mut attach(&pod, "one", &["--detach-keys=escape"])).complaint();
    assert!(complaint.contains("\"escape\""), "{complaint}");
    pod.end();
    Ok(())
}

fn the_terminal_is_as_it_was_on_every_way_out(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &[&TTY[..], &["--env=PS1=in> "]].concat(), "exec sh");
    let mut screen = Screen::new();
    let before = screen.settings();
    let raw = |screen: &mut Screen| wait_for("raw mode", 10, || screen.is_raw().then_some(()));
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut client = screen.start(&attach(&pod, "one", &[]), ALL);
        raw(&mut screen);
        kill(Pid::from_raw(client.id() as i32), signal)?;
        assert_eq!(screen.end_of(&mut client), 128 + signal as i32);
        assert_eq!(screen.settings(), before, "after {signal}");
    }
    // The client is stopped and continued.
    let mut client = screen.start(&attach(&pod, "one", &[]), ALL);
    raw(&mut screen);
    let pid = client.id() as i32;
    kill(Pid::from_raw(pid), Signal::SIGTSTP)?;
    wait_for("its stop", 10, || Process::look_up(pid).filter(|p| p.state == 'T'));
    assert_eq!(screen.settings(), before);
    kill(Pid::from_raw(pid), Signal::SIGCONT)?;
    raw(&mut screen);
    screen.types("echo a''b\n");
    screen.shows("ab\r\n");
    // The pod ends.
    podctl.ok(&["stop", "--force", &pod.uuid]);
    assert_ne!(screen.end_of(&mut client), 0);
    assert_eq!(screen.settings(), before);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_terminal_fed_by_a_pipe(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &TTY, "stty -echo; echo ready; cat; tty; exit 3");
    wait_for("no echo", 10, || {
        let out = run(&mut attach(&pod, "one", &["--mode=tty-out", "--list"]));
        assert_ne!(out.code, Some(0), "--list goes without --mode: {out}");
        Some(())
    });
    let out = run_with_input(&mut attach(&pod, "one", &["--eof"]), "a line\nand an open end");
    assert_eq!((out.code, out.stderr.as_str()), (Some(3), ""), "{out}");
    assert!(out.stdout.ends_with("a line\r\nand an open end/dev/pts/0\r\n"), "{out}");
    // Attach to output only, then to input only.
    start(&pod, "two", &TTY, "stty -echo; echo ready; read line; echo \"<$line>\"; exec sleep 1000");
    let mut output = attach(&pod, "two", &["--mode=tty-out"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut shown = BufReader::new(output.stdout.take().expect("stdout"));
    let mut line = String::new();
    shown.read_line(&mut line)?;
    assert_eq!(line, "ready\r\n");
    let mut input = attach(&pod, "two", &["--mode=tty-in"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    input.stdin.take().expect("stdin").write_all(b"typed\n")?;
    line.clear();
    shown.read_line(&mut line)?;
    assert_eq!(line, "<typed>\r\n");
    end(&mut input);
    let mut text = String::new();
    input.stdout.take().expect("stdout").read_to_string(&mut text)?;
    assert_eq!(text, "");
    end(&mut output);
    pod.end();
    Ok(())
}

/// Ends an attachment.
fn end(client: &mut Child) {
    kill(Pid::from_raw(client.id() as i32), Signal::SIGTERM).expect("kill");
    client.wait().expect("wait");
}

/// A client that is attached to the streams of an app.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    #[track_caller]
    fn new(pod: &Pod<'_>, app: &str, options: &[&str]) -> Self {
        let mut command = attach(pod, app, options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("podctl attach");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("stdout"));
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    #[track_caller]
    fn sends(&mut self, text: &str) {
        self.stdin.as_mut().expect("stdin").write_all(text.as_bytes()).expect("write");
    }

    /// Expects these bytes next.
    #[track_caller]
    fn gets(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        self.stdout.read_exact(&mut bytes).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }

    /// All output until the end, the exit status, and standard error.
    #[track_caller]
    fn end(mut self) -> (String, i32, String) {
        let (mut text, mut complaint) = (String::new(), String::new());
        self.stdout.read_to_string(&mut text).expect("read");
        self.child.stderr.take().expect("stderr").read_to_string(&mut complaint).expect("read");
        let code = wait_for("the end", 20, || self.child.try_wait().expect("wait")).code();
        (text, code.unwrap_or(-1), complaint)
    }
}

fn streams_of_an_app(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let script = "echo to out; echo to err >&2; read a; echo \"out $a\"; echo \"err $a\" >&2; exit 5";
    for (mode, out, err) in [
        ("auto", "to out\nout x\n", "to err\nerr x\n"),
        ("stdin,stdout,stderr", "to out\nout x\n", "to err\nerr x\n"),
        ("stdin,stdout", "to out\nout x\n", ""),
        ("stderr,stdin", "", "to err\nerr x\n"),
    ] {
        start(&pod, "one", &STREAMS, script);
        let got = run_with_input(&mut attach(&pod, "one", &["--mode", mode]), "x\n");
        assert_eq!((got.code, got.stdout.as_str(), got.stderr.as_str()), (Some(5), out, err), "{mode}");
        pod.app("rm", "one", &[]).ok();
        assert!(!pod.dir().join("stage1/rootfs/rkt/iottymux/one").exists());
    }
    // Attach to output only, then to input only.
    start(&pod, "one", &STREAMS, script);
    let out = Client::new(&pod, "one", &["--mode=stdout"]);
    let err = Client::new(&pod, "one", &["--mode=stderr"]);
    let sent = run_with_input(&mut attach(&pod, "one", &["--mode=stdin"]), "y\n");
    assert_eq!((sent.code, sent.stdout.as_str(), sent.stderr.as_str()), (Some(0), "", ""));
    assert_eq!(out.end(), ("to out\nout y\n".into(), 5, "".into()));
    assert_eq!(err.end(), ("".into(), 5, "to err\nerr y\n".into()));
    pod.app("rm", "one", &[]).ok();
    // Only some streams are attachable; the others are unchanged.
    start(&pod, "one", &["--stdout=stream", "--stderr=null"], "cat; echo to nobody >&2; echo done");
    let got = run(&mut attach(&pod, "one", &[]));
    assert_eq!((got.code, got.stdout.as_str()), (Some(0), "done\n"), "{got}");
    let list = podctl.json(&["attach", &pod.uuid, "--list"]);
    assert_eq!(list["targets"].as_array().map(Vec::len), Some(1), "{list}");
    pod.end();
    Ok(())
}

fn several_clients_and_partial_lines(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &STREAMS, "printf 'no line end'; while read a; do printf '%s' \"$a\"; done");
    let mut first = Client::new(&pod, "one", &[]);
    first.gets("no line end");
    first.sends("1\n");
    first.gets("1");
    // A later client does not get earlier output.
    let mut second = Client::new(&pod, "one", &["--mode=stdin,stdout"]);
    second.sends("2\n");
    second.gets("2");
    first.gets("2");
    let mut third = Client::new(&pod, "one", &["--mode=stdout"]);
    wait_for("the third client", 10, || {
        first.sends("x\n");
        first.gets("x");
        second.gets("x");
        // Not before the client is connected.
        Process::look_up(third.child.id() as i32).filter(|p| p.sleeps_in.contains("poll"))
    });
    first.sends("end\n");
    first.gets("end");
    second.gets("end");
    let mut text = String::new();
    while !text.ends_with("end") {
        let mut byte = [0];
        third.stdout.read_exact(&mut byte)?;
        text.push(byte[0].into());
    }
    assert!(text.trim_start_matches('x') == "end", "{text}");
    // One client detaches, the others stay.
    end(&mut first.child);
    second.sends("3\n");
    second.gets("3");
    third.gets("3");
    pod.app("stop", "one", &["--timeout=1"]).ok();
    assert_eq!(second.end().1, 143);
    assert_eq!(third.end().1, 143);
    pod.end();
    Ok(())
}

fn input_of_several_and_its_end(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &STREAMS, "cat >/out/input; echo end of input; exec sleep 1000");
    // The bytes that one client sends at once stay together.
    let clients: Vec<Client> = ('a'..='d')
        .map(|letter| {
            let mut client = Client::new(&pod, "one", &["--mode=stdin"]);
            for _ in 0..20 {
                client.sends(&(letter.to_string().repeat(1000) + "\n"));
            }
            client
        })
        .collect();
    for client in clients {
        let mut client = client;
        client.stdin = None;
        // The client detaches without asking to end the app's input.
        assert_eq!(client.end().1, 0);
    }
    let input = podctl.out().join("input");
    wait_for("all input", 20, || fs::read(&input).ok().filter(|bytes| bytes.len() == 4 * 20 * 1001));
    let text = fs::read_to_string(&input)?;
    let whole = |line: &str| line.len() == 1000 && line.bytes().all(|b| b == line.as_bytes()[0]);
    assert!(text.lines().all(whole), "lines are torn");
    for letter in ['a', 'b', 'c', 'd'] {
        assert_eq!(text.lines().filter(|line| line.starts_with(letter)).count(), 20);
    }
    let mut reader = Client::new(&pod, "one", &["--mode=stdout"]);
    assert_eq!(pod.state("one"), "running");
    let asked = run_with_input(&mut attach(&pod, "one", &["--mode=stdin", "--eof"]), "last");
    assert_eq!((asked.code, asked.stderr.as_str()), (Some(0), ""), "{asked}");
    reader.gets("end of input\n");
    assert!(fs::read_to_string(&input)?.ends_with("\nlast"));
    // The next run has an open input again.
    pod.app("stop", "one", &["--timeout=0"]).ok();
    pod.app("start", "one", &[]).ok();
    let asked = run_with_input(&mut attach(&pod, "one", &["--mode=stdin", "--eof"]), "anew");
    assert_eq!(asked.code, Some(0), "{asked}");
    wait_for("the input", 10, || fs::read_to_string(&input).ok().filter(|text| text == "anew"));
    pod.end();
    Ok(())
}

fn what_was_written_before_anybody_came(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let script = "i=10000; while [ $i -lt 30000 ]; do echo $i; i=$((i+1)); done; echo >/out/done; read a; echo $a";
    start(&pod, "one", &STREAMS, script);
    // The app is never blocked without a client.
    wait_for("all output", 20, || podctl.out().join("done").exists().then_some(()));
    let all: String = (10000..30000).map(|i| format!("{i}\n")).collect();
    let mut first = Client::new(&pod, "one", &[]);
    first.gets(&all[all.len() - (64 << 10)..]);
    // Output that one client got is not sent again; output that nobody got goes to the next client.
    first.sends("once\n");
    first.gets("once\n");
    assert_eq!(first.end(), ("".into(), 0, "".into()));
    let late = run(&mut attach(&pod, "one", &[]));
    assert_eq!((late.code, late.stdout.as_str()), (Some(0), ""), "{late}");
    // An app that ended before anyone attached.
    start(&pod, "two", &["--stdout=stream"], "echo short; exit 9");
    assert_eq!(pod.exit_code("two"), 9);
    let late = run(&mut attach(&pod, "two", &[]));
    assert_eq!((late.code, late.stdout.as_str()), (Some(9), "short\n"), "{late}");
    pod.end();
    Ok(())
}

fn apps_that_end_and_start_again(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &STREAMS, "echo began; read a; echo \"$a\"; exit 4");
    for round in 0..5 {
        let mut client = Client::new(&pod, "one", &[]);
        client.gets("began\n");
        client.sends(&format!("{round}\nnever read\n"));
        assert_eq!(client.end(), (format!("{round}\n"), 4, "".into()));
        pod.app("start", "one", &[]).ok();
    }
    // The stream of an app that can't be executed ends, too.
    pod.app("stop", "one", &["--timeout=0"]).ok();
    let add = ["app", "add", &pod.uuid, "shell", "--name=bad", "--stdout=stream", "--exec=/no/such/program"];
    podctl.ok(&add);
    let complaint = pod.app("start", "bad", &[]).complaint();
    assert!(complaint.contains("/no/such/program"), "{complaint}");
    assert_eq!(run(&mut attach(&pod, "bad", &[])).code, Some(127));
    // systemd restarts the app.
    start(&pod, "again", &["--stdout=stream", "--restart=always"], "echo up; sleep 0.3; exit 1");
    let got = run(&mut attach(&pod, "again", &[]));
    assert_eq!((got.code, got.stdout.as_str()), (Some(0), "up\n"), "{got}");
    let mut next = Client::new(&pod, "again", &[]);
    next.gets("up\n");
    end(&mut next.child);
    // Each run has a new terminal.
    start(&pod, "tty", &TTY, "stty -a | head -n 4; stty raw -echo; exit 6");
    let settings = |out: Output| {
        assert_eq!(out.code, Some(6), "{out}");
        out.stdout
    };
    let first = settings(run(&mut attach(&pod, "tty", &[])));
    assert!(first.contains("intr = ^C"), "{first}");
    pod.app("start", "tty", &[]).ok();
    assert_eq!(settings(run(&mut attach(&pod, "tty", &[]))), first);
    pod.end();
    Ok(())
}

/// The output of a logged app can be attached to, and streamed output is in the log.
fn apps_without_streams_are_attached_to_as_well(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(
        &pod,
        "plain",
        &[],
        "echo first; echo oops >&2; while [ ! -e /out/go ]; do sleep 0.05; done; echo last; exit 7",
    );
    let mut client = Client::new(&pod, "plain", &[]);
    client.gets("first\n");
    fs::write(podctl.out().join("go"), "")?;
    assert_eq!(client.end(), ("last\n".into(), 7, "oops\n".into()));
    assert_eq!(pod.exit_code("plain"), 7);
    start(&pod, "streams", &STREAMS, "read a; echo got $a; echo oops >&2");
    let got = run_with_input(&mut attach(&pod, "streams", &[]), "this\n");
    assert_eq!((got.code, got.stdout.as_str(), got.stderr.as_str()), (Some(0), "got this\n", "oops\n"), "{got}");
    assert_eq!(pod.exit_code("streams"), 0);
    let mut shown: Vec<String> = podctl.ok(&["logs", &pod.uuid, "--app=streams"]).lines().map(str::to_owned).collect();
    shown.sort();
    assert_eq!(shown, ["got this", "oops"]);
    start(&pod, "tty", &TTY, "stty -echo; echo shown");
    assert_eq!(pod.exit_code("tty"), 0);
    assert_eq!(podctl.ok(&["logs", &pod.uuid, "--app=tty"]), "shown");
    pod.end();
    Ok(())
}

/// The pod ends with its monitor, and attached clients are told.
fn a_killed_monitor_is_told(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &STREAMS, "while :; do echo tick; sleep 0.01; done");
    start(&pod, "two", &[&TTY[..], &["--env=PS1=in> "]].concat(), "exec sh");
    let mut client = Client::new(&pod, "one", &[]);
    client.gets("tick\ntick\n");
    let mut screen = Screen::new();
    let before = screen.settings();
    let mut terminal = screen.start(&attach(&pod, "two", &[]), ALL);
    screen.shows("in> ");
    kill(Pid::from_raw(monitor(&pod)), Signal::SIGKILL)?;
    let (text, code, complaint) = client.end();
    assert_eq!(code, 254, "{text} {complaint}");
    assert!(complaint.lines().count() == 1 && complaint.contains("monitor of the pod of app one"), "{complaint}");
    assert_eq!(screen.end_of(&mut terminal), 254);
    assert_eq!(screen.settings(), before);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn an_immutable_pods_streams(t: &Context) -> Verdict {
    let podctl = t.podctl();
    import_shell(&podctl, &t.dir.join("root"));
    let mut command = podctl.command(&["run", "--net=none", "shell", "--name=one"]);
    command.args(STREAMS).args(["--exec=/bin/sh", "--", "-c", "read a; echo \"got $a\"; exit 6"]);
    let mut pod = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let uuid = wait_for("the pod", 20, || {
        let pods = podctl.json(&["list", "--format=json"]);
        let uuid = pods[0]["name"].as_str()?.to_owned();
        podctl.run(&["attach", &uuid, "--list"]).code.filter(|code| *code == 0).map(|_| uuid)
    });
    let got = run_with_input(&mut podctl.command(&["attach", &uuid]), "this\n");
    assert_eq!(got.stdout, "got this\n", "{got}");
    assert_eq!(wait_for("the end of the pod", 20, || pod.try_wait().expect("wait")).code(), Some(6));
    podctl.ok(&["rm", &uuid]);
    Ok(())
}

fn what_is_not_there_is_told(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let refused = |options: &[&str], words: &str| {
        let complaint = podctl.fails(&[&["attach", pod.uuid.as_str()], options].concat());
        assert!(complaint.contains(words), "{complaint}");
    };
    refused(&[], "has no app");
    let nothing = ["--stdout=null", "--stderr=null"];
    start(&pod, "plain", &nothing, "exec sleep 1000");
    refused(&["--app=plain"], "nothing to attach to");
    refused(&["--app=other"], "no app other");
    refused(&["--mode=all"], "\"all\"");
    start(&pod, "one", &["--stdout=stream"], "exec sleep 1000");
    refused(&["--app=one", "--mode=stdin"], "no stdin to attach to; it has stdout, stderr");
    refused(&["--app=one", "--mode=tty"], "no tty to attach to; it has stdout, stderr");
    podctl.ok(&["app", "add", &pod.uuid, "shell", "--name=new", "--stdout=stream"]);
    refused(&["--app=new"], "not started yet");
    for (option, words) in [("--stdin=log", "stdin mode \"log\""), ("--stdout=file", "stdout mode \"file\"")] {
        let complaint = podctl.fails(&["app", "add", &pod.uuid, "shell", "--name=bad", option]);
        assert!(complaint.contains(words), "{complaint}");
    }
    pod.end();
    Ok(())
}
