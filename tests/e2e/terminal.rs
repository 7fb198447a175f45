//! Commands that are run in an app from a terminal, and what they may do with it.

#![allow(clippy::zombie_processes, reason = "the warden of a failed test reaps what it has left")]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::image;
use tests::podctl::{Pod, Podctl};
use tests::process::{Output, Process, all, descendants, run, wait_for};
use tests::screen::Screen;

tests::cases! {
    native the_terminal_is_as_large_as_that_of_who_typed_last;
    native a_shell_on_a_terminal;
    native a_shell_in_the_pod_itself;
    native a_terminal_for_some_streams_only;
    native a_terminal_on_demand_or_not_at_all;
    native the_callers_terminal_is_out_of_reach;
    native nothing_shown_is_lost;
    native the_end_of_the_input_reaches_a_terminal;
    native a_signal_ends_a_shell_on_a_terminal;
    native bytes_go_through_exactly;
    native stopped_and_continued;
    native without_a_terminal_the_callers_keys_still_count;
    native killed_outright_it_leaves_nothing;
}

/// A pod whose app `one` idles in an image that has a shell.
#[track_caller]
pub fn pod<'a>(podctl: &'a Podctl, root: &Path, options: &[&str]) -> Pod<'a> {
    image::rootfs(root);
    let busybox = root.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox).expect("/bin/busybox (of the package busybox-static)");
    for name in ["sh", "stty", "cat", "sleep", "id", "tty", "head", "md5sum", "rm", "mv", "true"] {
        symlink("busybox", root.join("bin").join(name)).expect("symlink");
    }
    let evil = root.join("bin/evil");
    fs::write(&evil, "#!/proc/self/exe\n").expect("write");
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).expect("chmod");
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "shell", "--exec", "/probe"]);
    let out = podctl.out();
    fs::create_dir_all(&out).expect("mkdir");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).expect("chmod");
    let pod = podctl.sandbox(&[&format!("--volume=out,kind=host,source={}", out.display())]);
    pod.try_add("shell", "one", options, &["sleep", "inf"]).ok();
    pod.app("start", "one", &[]).ok();
    pod
}

/// `podctl app exec` in that app.
pub fn exec(pod: &Pod<'_>, options: &[&str], words: &[&str]) -> Command {
    let args = [&["app", "exec", pod.uuid.as_str(), "--app=one"], options, &["--"], words].concat();
    pod.podctl.command(&args)
}

#[track_caller]
pub fn run_in(pod: &Pod<'_>, options: &[&str], words: &[&str]) -> Output {
    run(&mut exec(pod, options, words))
}

pub const ALL: [Option<Stdio>; 3] = [None, None, None];

/// A process below this one or in the pod, found by its command line.
#[track_caller]
fn find(pod: &Pod<'_>, words: &str) -> i32 {
    wait_for(words, 10, || {
        let family = descendants(std::process::id() as i32).into_iter().chain(descendants(pod.pid()));
        family.into_iter().find(|p| p.words == words).map(|p| p.pid)
    })
}

fn a_shell_on_a_terminal(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let mut screen = Screen::new();
    let before = screen.settings();
    screen.resize(33, 99);
    let mut shell = screen.start(&exec(&pod, &["--env=PS1=in> "], &["sh"]), ALL);
    screen.shows("in> ");
    assert!(screen.is_raw(), "the caller's terminal would make lines and signals of its own");
    screen.types("echo a''b\n");
    screen.shows("echo a''b\r\nab\r\nin> ");
    screen.types("stty size\n");
    screen.shows("33 99\r\n");
    screen.types("tty\n");
    screen.shows("\r\n/dev/pts/0\r\n");
    // A new window size.
    screen.tells_its_shell_of_a_resize("in> ");
    // Ctrl-C ends only the foreground program.
    screen.types("sleep 4141 &\n");
    screen.shows("in> ");
    let behind = find(&pod, "sleep 4141");
    screen.types("sleep 4242\n");
    let in_front = find(&pod, "sleep 4242");
    screen.types("\x03");
    screen.shows("^C");
    screen.shows("in> ");
    assert!(!Process::lives(in_front) && Process::lives(behind));
    // Ctrl-Z is handled by the inner shell.
    screen.types("sleep 4343\n");
    let stopped = find(&pod, "sleep 4343");
    screen.types("\x1a");
    screen.shows("Stopped");
    assert_eq!(Process::look_up(stopped).map(|p| p.state), Some('T'));
    screen.types("kill %2; kill %1; kill -CONT %2\n");
    screen.shows("in> ");
    wait_for("the jobs to end", 10, || (!Process::lives(behind) && !Process::lives(stopped)).then_some(()));
    // Ctrl-D ends the shell.
    screen.types("(exit 7)\n");
    screen.shows("in> ");
    screen.types("\x04");
    assert_eq!(screen.end_of(&mut shell), 7, "{}", screen.text());
    assert_eq!(screen.settings(), before, "the terminal is not as it was");
    pod.end();
    Ok(())
}

fn a_shell_in_the_pod_itself(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let mut screen = Screen::new();
    let before = screen.settings();
    // The stage1 has no shell: an enter of its own reports what it sees.
    let mut child = screen.start(&podctl.command(&["enter", &pod.uuid, "--", "/opt/stage1/bin/enter", "--help"]), ALL);
    assert_eq!(screen.end_of(&mut child), 0);
    assert!(screen.text().contains("--workdir"), "{}", screen.text());
    assert_eq!(screen.settings(), before);
    pod.end();
    Ok(())
}

fn a_terminal_for_some_streams_only(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let report = |output: &str| -> Value { serde_json::from_str(output).expect("a report") };

    // Standard output to a file: typed characters are still echoed.
    let mut screen = Screen::new();
    let before = screen.settings();
    let file = t.dir.join("stdout");
    let mut child = screen.start(
        &exec(&pod, &[], &["sh", "-c", "cat; /probe report"]),
        [None, Some(Stdio::from(File::create(&file)?)), None],
    );
    wait_for("raw mode", 10, || screen.is_raw().then_some(()));
    screen.types("one\n");
    screen.shows("one\r\n");
    screen.types("\x04");
    assert_eq!(screen.end_of(&mut child), 0);
    let text = fs::read_to_string(&file)?;
    let seen = report(text.strip_prefix("one\n").unwrap_or_else(|| panic!("not byte by byte: {text:?}")));
    assert_eq!(
        seen["tty"],
        json!({"stdin": true, "stdout": false, "stderr": true, "name": "/dev/pts/0", "controlling": true})
    );
    assert!(seen["fds"]["1"].as_str().is_some_and(|name| name.starts_with("pipe:")), "{}", seen["fds"]);
    assert_eq!(screen.settings(), before);

    // Standard input from a file: the caller's terminal still converts line ends and makes signals.
    let mut screen = Screen::new();
    let source = t.dir.join("source");
    fs::write(&source, "from the file\n")?;
    let command = exec(&pod, &[], &["sh", "-c", "cat; exec sleep 4242"]);
    let mut child = screen.start(&command, [Some(Stdio::from(File::open(&source)?)), None, None]);
    screen.shows("from the file\r\n");
    assert!(!screen.text().contains("\r\r\n") && !screen.is_raw());
    find(&pod, "sleep 4242");
    screen.types("\x03");
    assert_eq!(screen.end_of(&mut child), 130);
    pod.end();
    Ok(())
}

fn a_terminal_on_demand_or_not_at_all(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    // `always`, with the end of the input passed on.
    let mut command = exec(&pod, &["-t"], &["sh", "-c", "tty; cat; tty >&2"]);
    let out = tests::process::run_with_input(&mut command, "a line\nand an open end");
    let text = out.ok();
    // The echo of characters typed ahead may come first.
    assert!(text.contains("/dev/pts/0\r\n") && text.ends_with("/dev/pts/0"), "{text:?}");
    assert!(text.contains("a line\r\nand an open end"), "{text:?}");
    // `never`: pipes.
    let mut screen = Screen::new();
    let before = screen.settings();
    let mut child = screen.start(&exec(&pod, &["--tty=never"], &["sh", "-c", "tty; read x; echo got $x; cat"]), ALL);
    screen.shows("not a tty\r\n");
    assert!(!screen.is_raw());
    screen.types("this\n");
    screen.shows("got this");
    screen.types("\x04");
    assert_eq!(screen.end_of(&mut child), 0);
    assert_eq!(screen.settings(), before);
    let script = "echo by link >/dev/stdout; echo by link too >/dev/stderr";
    let mut child = screen.start(&exec(&pod, &["--tty=never", "--user=web"], &["sh", "-c", script]), ALL);
    screen.shows("by link\r\n");
    screen.shows("by link too\r\n");
    assert_eq!(screen.end_of(&mut child), 0);
    assert!(run_in(&pod, &["--tty=maybe"], &["true"]).complaint().contains("maybe"));
    pod.end();
    Ok(())
}

fn the_callers_terminal_is_out_of_reach(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let mut screen = Screen::new();
    let mut child = screen.start(&exec(&pod, &[], &["/probe", "report", "/out/seen.json"]), ALL);
    assert_eq!(screen.end_of(&mut child), 0);
    let seen = pod.read("seen");
    assert_eq!(seen["fds"], json!({"0": "/dev/pts/0", "1": "/dev/pts/0", "2": "/dev/pts/0"}));
    assert_eq!(seen["sid"], seen["pid"], "the session is the caller's");
    assert_eq!(seen["tty"]["controlling"], true);
    // Without a terminal among the streams, /dev/tty is not the caller's.
    let null = || Some(Stdio::null());
    let mut child = screen.start(&exec(&pod, &[], &["/probe", "report", "/out/none.json"]), [null(), null(), null()]);
    assert_eq!(screen.end_of(&mut child), 0);
    let seen = pod.read("none");
    assert_eq!((&seen["sid"], &seen["tty"]["controlling"]), (&seen["pid"], &false.into()));
    // A directory of the host would be a way out.
    let directory = || Some(Stdio::from(File::open("/").expect("open /")));
    let mut child = screen.start(&exec(&pod, &[], &["true"]), [directory(), null(), None]);
    assert_eq!(screen.end_of(&mut child), 125);
    screen.shows("standard descriptor 0 is a directory");
    pod.end();
    Ok(())
}

fn nothing_shown_is_lost(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    for round in 0..10 {
        let mut screen = Screen::new();
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exec /probe print the-end";
        let mut child = screen.start(&exec(&pod, &[], &["sh", "-c", script]), ALL);
        assert_eq!(screen.end_of(&mut child), 0);
        let text = screen.text();
        let expected: String = (0..2000).map(|i| format!("line {i}\r\n")).collect();
        assert!(text.contains(&expected) && text.ends_with("the-end\r\n"), "round {round}: {} bytes", text.len());
    }
    pod.end();
    Ok(())
}

fn bytes_go_through_exactly(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let source = t.dir.join("ten-megabytes");
    let mut random = Vec::new();
    File::open("/dev/urandom")?.take(10 << 20).read_to_end(&mut random)?;
    fs::write(&source, &random)?;
    // A file in, a pipe out.
    let mut child = exec(&pod, &[], &["cat"]).stdin(File::open(&source)?).stdout(Stdio::piped()).spawn()?;
    let mut back = Vec::new();
    child.stdout.take().ok_or("no pipe")?.read_to_end(&mut back)?;
    assert!(child.wait()?.success() && back == random, "{} bytes came back", back.len());
    // Pipes for input and output, and a terminal for the errors.
    let screen = Screen::new();
    let mut child = screen.start(&exec(&pod, &[], &["cat"]), [Some(Stdio::piped()), Some(Stdio::piped()), None]);
    let (mut into, mut from) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
    let bytes = random.clone();
    let writer = std::thread::spawn(move || into.write_all(&bytes));
    let mut back = Vec::new();
    from.read_to_end(&mut back)?;
    writer.join().map_err(|_| "the writer panicked")??;
    assert!(child.wait()?.success() && back == random, "{} bytes came back", back.len());
    pod.end();
    Ok(())
}

/// The output of a program and its exit code, or 128 + signal; it has forty seconds.
#[track_caller]
fn ended(what: &str, mut child: Child) -> (String, i32) {
    let status = wait_for(&format!("the end of {what}"), 40, || child.try_wait().expect("wait"));
    let mut shown = String::new();
    child.stdout.take().map(|mut out| out.read_to_string(&mut shown).expect("read"));
    (shown, status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// As of cron or CI: a terminal for the command, and input that ends.
fn the_end_of_the_input_reaches_a_terminal(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let lines = t.dir.join("lines");
    fs::write(&lines, "echo $((6 * 7)) it is\nsleep 1\n(exit 7)")?;
    let enter = ["enter", &pod.uuid, "one", "-it", "--", "sh"];
    let null = || Ok::<_, std::io::Error>(Stdio::null());
    let file = || File::open(&lines).map(Stdio::from);
    let on = |words: &[&str]| exec(&pod, &["-it"], words);
    let all = "cat; cat; cat; read x; echo $? at last";
    let mut children = Vec::new();
    for (what, mut command, input, words, code) in [
        ("exec, /dev/null", on(&["sh"]), null()?, "", 0),
        ("enter, /dev/null", podctl.command(&enter), null()?, "", 0),
        ("exec, nothing to read", on(&["sh"]), File::create(t.dir.join("written"))?.into(), "", 0),
        // The last line has no newline.
        ("exec, a file", on(&["sh"]), file()?, "42 it is\r\n", 7),
        ("enter, a file", podctl.command(&enter), file()?, "42 it is\r\n", 7),
        // Every read gets it, as it does at the end of a file.
        ("many reads", on(&["sh", "-c", all]), null()?, "1 at last\r\n", 0),
        ("another character", on(&["sh", "-c", &format!("stty eof ^X; {all}")]), null()?, "1 at last\r\n", 0),
        // Nothing but a hang-up tells these the end. An end may have come before the character was disabled.
        ("raw mode", on(&["sh", "-c", "stty raw; exec cat"]), null()?, "", 129),
        ("no character", on(&["sh", "-c", "stty eof undef; while :; do cat; done"]), null()?, "", 129),
    ] {
        let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        children.push((what, child, words, code));
    }
    for (what, child, words, code) in children {
        let (shown, end) = ended(what, child);
        assert!(end == code && shown.contains(words), "{what}: {end}, {shown:?}");
    }
    pod.end();
    Ok(())
}

/// An interactive shell ignores SIGTERM; what asks podctl to end wants the shell to end.
fn a_signal_ends_a_shell_on_a_terminal(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let enter = ["enter", &pod.uuid, "one", "-it", "--env=PS1=in> ", "--", "sh"];
    let on = |words: &[&str]| exec(&pod, &["-it", "--env=PS1=in> "], words);
    // Its own end by the signal is not cut short.
    let ends = "trap 'sleep 1; echo or\"\"derly; exit 5' TERM; echo 'in> '; while :; do sleep 0.1; done";
    let mut children = Vec::new();
    for (what, mut command, signal, words, code) in [
        ("exec", on(&["sh"]), Signal::SIGTERM, "", 129),
        ("exec, SIGHUP", on(&["sh"]), Signal::SIGHUP, "", 129),
        ("enter", podctl.command(&enter), Signal::SIGTERM, "", 129),
        ("a command that ends in order", on(&["sh", "-c", ends]), Signal::SIGTERM, "orderly\r\n", 5),
    ] {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        // Its input stays open.
        let input = child.stdin.take();
        let mut shown = Vec::new();
        while !shown.ends_with(b"in> ") {
            let mut byte = [0; 1];
            child.stdout.as_mut().ok_or("no output")?.read_exact(&mut byte)?;
            shown.extend(byte);
        }
        children.push((what, child, input, signal, words, code));
    }
    for (_, child, _, signal, ..) in &children {
        kill(Pid::from_raw(child.id() as i32), *signal)?;
    }
    for (what, child, _input, _, words, code) in children {
        let (shown, end) = ended(what, child);
        assert!(end == code && shown.contains(words), "{what}: {end}, {shown:?}");
    }
    wait_for("no shell inside", 20, || descendants(pod.pid()).iter().all(|p| p.words != "sh").then_some(()));
    pod.end();
    Ok(())
}

/// A shell of the host on a terminal, which runs the command as one of its jobs.
fn host_shell(screen: &Screen) -> Child {
    let mut shell = Command::new("env");
    // As on a terminal, however the tests were started: background processes ignore these signals.
    shell.args(["--default-signal=INT,QUIT", "bash", "--norc", "--noprofile", "--noediting", "-i"]);
    shell.env("PS1", "host> ").env_remove("PROMPT_COMMAND");
    screen.start(&shell, ALL)
}

fn words(command: &Command) -> String {
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
    let all: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    all.join(" ")
}

fn stopped_and_continued(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let mut screen = Screen::new();
    let mut host = host_shell(&screen);
    screen.shows("host> ");
    screen.types(&format!("{}\n", words(&exec(&pod, &["--env=PS1=in> "], &["sh"]))));
    screen.shows("in> ");
    let enter = wait_for("enter", 10, || {
        descendants(host.id() as i32)
            .into_iter()
            .find(|p| p.words.contains("--appname=one") && p.parent == host.id() as i32)
    });
    let shell = wait_for("the shell", 10, || descendants(enter.pid).into_iter().find(|p| p.words == "sh")).pid;
    let state = |pid: i32| Process::look_up(pid).map(|p| p.state);
    for round in 0..2 {
        assert!(screen.is_raw());
        match round {
            // The one process or the other is stopped.
            0 => kill(Pid::from_raw(enter.pid), Signal::SIGTSTP)?,
            _ => kill(Pid::from_raw(shell), Signal::SIGSTOP)?,
        }
        screen.shows("Stopped");
        screen.shows("host> ");
        assert_eq!((state(enter.pid), state(shell)), (Some('T'), Some('T')));
        assert!(!screen.is_raw(), "the terminal was not given back");
        screen.types("echo in bet''ween\n");
        screen.shows("in between\r\nhost> ");
        // In the background it continues, and leaves the terminal alone.
        screen.types("bg\n");
        screen.shows("host> ");
        wait_for("the shell to continue", 10, || (state(shell) == Some('S')).then_some(()));
        assert!(!screen.is_raw());
        screen.types("fg\n");
        screen.shows("\r\n");
        wait_for("raw mode", 10, || screen.is_raw().then_some(()));
        screen.types("echo a''live\n");
        screen.shows("alive\r\n");
        screen.shows("in> ");
    }
    // SIGSTOP can't be caught; the changes that the host's shell made to the terminal meanwhile are kept.
    kill(Pid::from_raw(enter.pid), Signal::SIGSTOP)?;
    screen.shows("host> ");
    screen.types("fg\n");
    wait_for("raw mode", 10, || screen.is_raw().then_some(()));
    screen.types("exit 9\n");
    screen.shows("host> ");
    screen.types("echo st''atus $?\n");
    screen.shows("status 9\r\n");
    // Started in the background it runs, and does not touch the terminal.
    screen.types(&format!("{} &\n", words(&exec(&pod, &[], &["/probe", "print", "from behind"]))));
    screen.shows("from behind");
    screen.types("\nexit\n");
    screen.end_of(&mut host);
    pod.end();
    Ok(())
}

/// Without a terminal as the command's input, the caller's terminal makes the signals.
fn without_a_terminal_the_callers_keys_still_count(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let mut screen = Screen::new();
    let mut host = host_shell(&screen);
    screen.shows("host> ");
    let command = words(&exec(&pod, &[], &["sh", "-c", "trap 'echo caught; exit 5' INT; sleep 4242 & wait; wait"]));
    screen.types(&format!("{command} </dev/null 2>&1 | cat\n"));
    find(&pod, "sleep 4242");
    std::thread::sleep(Duration::from_millis(100));
    screen.types("\x1a");
    screen.shows("Stopped");
    // Wait for each prompt: ctrl-C may discard what was typed ahead of the next one.
    screen.shows("host> ");
    screen.types("fg\n");
    std::thread::sleep(Duration::from_millis(100));
    screen.types("\x03");
    screen.shows("host> ");
    screen.types("exit\n");
    screen.end_of(&mut host);
    wait_for("the command to end", 10, || all().iter().all(|p| !p.words.contains("exit 5")).then_some(()));
    let left = find(&pod, "sleep 4242");
    kill(Pid::from_raw(left), Signal::SIGKILL)?;
    pod.end();
    Ok(())
}

fn killed_outright_it_leaves_nothing(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    for user in ["0", "web"] {
        for terminal in [true, false] {
            let screen = Screen::new();
            let user = format!("--user={user}");
            let streams = if terminal { ALL } else { [Some(Stdio::null()), Some(Stdio::null()), Some(Stdio::null())] };
            // With a terminal, its foreground program ends, too.
            let inner = if terminal { "sleep 4242; exit" } else { "exec sleep 4242" };
            let mut child = screen.start(&exec(&pod, &[&user], &["sh", "-c", inner]), streams);
            let inside = find(&pod, "sleep 4242");
            kill(Pid::from_raw(child.id() as i32), Signal::SIGKILL)?;
            child.wait()?;
            wait_for("everything to end", 5, || (!Process::lives(inside)).then_some(()));
            // The pod's own output and the app's, separately.
            let own = |p: &Process| p.words.starts_with("/usr/lib/systemd/") || p.words == "/probe sleep inf";
            wait_for(&format!("the pod as it was, with {user}, terminal: {terminal}"), 5, || {
                descendants(pod.pid()).iter().all(own).then_some(())
            });
        }
    }
    pod.end();
    Ok(())
}

/// Several clients attach to one terminal, with windows of different sizes.
fn the_terminal_is_as_large_as_that_of_who_typed_last(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = crate::attach::pod(&podctl, &t.dir.join("root"), &[]);
    let modes = ["--stdin=tty", "--stdout=tty", "--stderr=tty", "--env=PS1=in> "];
    crate::attach::start(&pod, "one", &modes, "exec sh");
    let attach = || crate::attach::attach(&pod, "one", &[]);
    let [mut first, mut second] = [Screen::new(), Screen::new()];
    let asks = |screen: &mut Screen, size: &str| {
        screen.types("echo $(stty size) is it\n");
        screen.shows(&format!("{size} is it\r\n"));
        screen.shows("in> ");
    };
    first.resize(30, 90);
    second.resize(40, 120);
    let mut clients = vec![first.start(&attach(), [None, None, None])];
    first.shows("in> ");
    asks(&mut first, "30 90");
    clients.push(second.start(&attach(), [None, None, None]));
    wait_for("raw mode", 10, || second.is_raw().then_some(()));
    asks(&mut second, "40 120");
    // Resizing another client's window has no effect for the one that types.
    first.resize(31, 91);
    for _ in 0..10 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        asks(&mut second, "40 120");
    }
    asks(&mut first, "31 91");
    // Resizing its own window has.
    first.resize(32, 92);
    wait_for("the new size", 10, || {
        // Read to the end of the answer, so that no typed characters are still on their way.
        first.types("echo $(stty size) do''ne\n");
        first.shows("done\r\n");
        first.text().contains("32 92 done").then_some(())
    });
    asks(&mut second, "40 120");
    for (screen, client) in [&mut first, &mut second].into_iter().zip(&mut clients) {
        screen.types("\x10\x11");
        assert_eq!(screen.end_of(client), 0);
    }
    pod.end();
    Ok(())
}
