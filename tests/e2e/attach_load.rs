//! Attaching under load: much output, many clients, clients that do not read.

use std::io::Read;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Verdict;
use tests::harness::Context;
use tests::image;
use tests::podctl::{Pod, Podctl};
use tests::process::{Process, descendants, wait_for};
use tests::screen::Screen;

use crate::attach::{STREAMS, attach, monitor, pod, start};

tests::cases! {
    native a_gibibyte_with_one_reader_that_stopped 240;
    native readers_that_are_all_stopped_hold_nobody_up;
    native every_byte_of_an_app_without_a_log;
    native every_byte_of_an_app_with_a_log 180;
    native packets_of_an_app;
    native hundreds_of_attachments_leave_nothing 180;
}

const AMOUNT: u64 = 1 << 30;

/// Reads the probe's sequence to its end or to the first wrong byte; returns its length.
fn read_sequence(mut source: impl Read) -> std::io::Result<u64> {
    let period: Vec<u8> = (0..=1_u64 << 16).flat_map(u64::to_le_bytes).collect();
    let twice = period.repeat(2);
    let mut block = vec![0; 1 << 18];
    let mut count = 0;
    loop {
        let got = source.read(&mut block)?;
        let start = count % period.len();
        if got == 0 || block[..got] != twice[start..start + got] {
            return Ok(count as u64);
        }
        count += got;
    }
}

/// A client whose output is read by a thread.
struct Reader<T> {
    child: Child,
    reading: Option<JoinHandle<std::io::Result<T>>>,
}

impl<T> Reader<T> {
    fn new(pod: &Pod<'_>, app: &str) -> (Self, ChildStdout) {
        let mut command = attach(pod, app, &["--mode=stdout"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("podctl attach");
        let stdout = child.stdout.take().expect("stdout");
        (Self { child, reading: None }, stdout)
    }

    #[track_caller]
    fn end(mut self) -> (T, Option<i32>, String) {
        let read = self.reading.take().expect("a thread").join().expect("join").expect("read");
        let mut complaint = String::new();
        self.child.stderr.take().expect("stderr").read_to_string(&mut complaint).expect("read");
        let code = wait_for("the end", 20, || self.child.try_wait().expect("wait")).code();
        (read, code, complaint)
    }
}

/// A field of /proc/PID/status, in kB.
#[track_caller]
fn kilobytes(pid: i32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The checksum of a program's output, attached.
fn checksum(source: ChildStdout) -> std::io::Result<String> {
    let output = Command::new("sha256sum").stdin(source).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The checksum of the same output through a pipe, read in the same way, and the time that the writer takes.
fn through_a_pipe() -> (String, Duration) {
    let mut command = Command::new(image::probe());
    command.args(["flood", &AMOUNT.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the probe");
    let sum = checksum(child.stdout.take().expect("stdout")).expect("sha256sum");
    let mut text = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut text).expect("read");
    child.wait().expect("wait");
    (sum, Duration::from_millis(text.trim().parse().expect("milliseconds")))
}

fn a_gibibyte_with_one_reader_that_stopped(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    let (sum, plain) = through_a_pipe();
    let script = format!("read go; exec /probe flood {AMOUNT} 2>/out/time");
    start(&pod, "one", &STREAMS, &script);
    let mux = monitor(&pod);
    let (mut slow, slow_stdout) = Reader::<u64>::new(&pod, "one");
    let readers = [Reader::<String>::new(&pod, "one"), Reader::new(&pod, "one")];
    let clients = readers.iter().map(|(reader, _)| &reader.child).chain([&slow.child]);
    clients.for_each(wait_until_attached);
    let stopped = Pid::from_raw(slow.child.id() as i32);
    kill(stopped, Signal::SIGSTOP)?;
    let readers = readers.map(|(mut reader, stdout)| {
        reader.reading = Some(std::thread::spawn(move || checksum(stdout)));
        reader
    });
    let sent = tests::process::run_with_input(&mut attach(&pod, "one", &["--mode=stdin"]), "go\n");
    assert_eq!(sent.code, Some(0), "{sent}");
    let began = Instant::now();
    for reader in readers {
        assert_eq!(reader.end(), (sum.clone(), Some(0), String::new()));
    }
    let all = began.elapsed();
    let peak = kilobytes(mux, "VmHWM");
    assert!(peak < 8192, "the monitor took {peak} kB");
    // The client that stopped reading gets the beginning and an error.
    kill(stopped, Signal::SIGCONT)?;
    slow.reading = Some(std::thread::spawn(move || read_sequence(slow_stdout)));
    let (read, code, complaint) = slow.end();
    assert!(read < AMOUNT && code == Some(254), "{read} {code:?} {complaint}");
    assert!(complaint.contains("not read fast enough"), "{complaint}");
    let text = std::fs::read_to_string(podctl.out().join("time"))?;
    let took = Duration::from_millis(text.trim().parse()?);
    eprintln!(
        "1 GiB: plain pipe {plain:?}, multiplexed {took:?} (readers done after {all:?}), ratio {:.2}, VmHWM {peak} kB",
        plain.as_secs_f64() / took.as_secs_f64()
    );
    pod.end();
    Ok(())
}

/// A client asks the monitor several times, and only after the last answer makes its signalfd(2).
#[track_caller]
fn wait_until_attached(client: &Child) {
    let of_signals = |file: &std::fs::DirEntry| {
        std::fs::read_link(file.path()).is_ok_and(|to| to.ends_with("anon_inode:[signalfd]"))
    };
    wait_for("a client to be attached", 20, || {
        let files = std::fs::read_dir(format!("/proc/{}/fd", client.id())).ok()?;
        files.filter_map(Result::ok).find(of_signals).map(drop)
    });
}

/// The process's open descriptors.
fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or(0)
}

/// A single client may pace the app, but not stop it.
fn readers_that_are_all_stopped_hold_nobody_up(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &STREAMS, &format!("read go; /probe flood {}; echo >/out/done", 64 << 20));
    let mux = monitor(&pod);
    let idle = descriptors(mux);
    let (alone, stdout) = Reader::new(&pod, "one");
    wait_until_attached(&alone.child);
    kill(Pid::from_raw(alone.child.id() as i32), Signal::SIGSTOP)?;
    let sent = tests::process::run_with_input(&mut attach(&pod, "one", &["--mode=stdin"]), "go\n");
    assert_eq!(sent.code, Some(0), "{sent}");
    wait_for("the end of the app", 30, || podctl.out().join("done").exists().then_some(()));
    wait_for("the client to be dropped", 30, || (descriptors(mux) <= idle).then_some(()));
    kill(Pid::from_raw(alone.child.id() as i32), Signal::SIGCONT)?;
    let mut alone = alone;
    alone.reading = Some(std::thread::spawn(move || read_sequence(stdout)));
    assert_eq!(alone.end().1, Some(254));
    pod.end();
    Ok(())
}

const SOME: u64 = 48 << 20;

/// Output that only goes to clients is moved within the kernel while a client reads it; else the monitor keeps it.
fn every_byte_of_an_app_without_a_log(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &["--log-driver=none"]);
    every_byte(&podctl, &pod)?;
    pod.end();
    Ok(())
}

/// Output that also goes to a log is passed on within the kernel to a single client, and then read for the log.
fn every_byte_of_an_app_with_a_log(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &["--log-max-size=1Gi"]);
    every_byte(&podctl, &pod)?;
    // The last line has no newline: it is written at the end of the app.
    pod.app("stop", "one", &[]).ok();
    let log = pod.dir().join("logs/one/1.log");
    let file = std::io::BufReader::new(std::fs::File::open(log)?);
    let mut text = Vec::new();
    for line in std::io::BufRead::split(file, b'\n') {
        let line = line?;
        let words: Vec<&[u8]> = line.splitn(4, |byte| *byte == b' ').collect();
        match words[..] {
            [_, b"stdout", b"F", whole] => text.extend([whole, b"\n"].concat()),
            [_, b"stdout", _, part] => text.extend(part),
            _ => assert_eq!(words[1], b"stderr"),
        }
    }
    let floods = text.chunks(usize::try_from(SOME)?).map(read_sequence).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(floods, [SOME; 4]);
    pod.end();
    Ok(())
}

/// An app can have its pipe in packet mode: each read then gives one packet, however many were passed on before.
fn packets_of_an_app(t: &Context) -> Verdict {
    const BYTES: u64 = 30_000;
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &STREAMS, &format!("read go; exec /probe packets {BYTES}"));
    let (mut reader, stdout) = Reader::new(&pod, "one");
    wait_until_attached(&reader.child);
    reader.reading = Some(std::thread::spawn(move || read_sequence(stdout)));
    let sent = tests::process::run_with_input(&mut attach(&pod, "one", &["--mode=stdin"]), "go\n");
    assert_eq!(sent.code, Some(0), "{sent}");
    assert_eq!(reader.end(), (BYTES, Some(0), String::new()));
    pod.end();
    Ok(())
}

/// Checks what clients get of an app that floods them: one, a slow one, two at a time, and one that comes later.
fn every_byte(podctl: &Podctl, pod: &Pod<'_>) -> Verdict {
    let mux = monitor(pod);
    start(pod, "one", &STREAMS, &format!("while read go; do /probe flood {SOME}; echo >>/out/done; done"));
    let idle = descriptors(mux);
    let go = || {
        let sent = tests::process::run_with_input(&mut attach(pod, "one", &["--mode=stdin"]), "go\n");
        assert_eq!(sent.code, Some(0), "{sent}");
    };
    let floods = |count: u64| {
        let lines = || std::fs::read_to_string(podctl.out().join("done")).map_or(0, |text| text.len() as u64);
        wait_for("the end of a flood", 60, || (lines() >= count).then_some(()));
    };
    // Two clients, one of which reads everything at once and the other one in small pieces.
    for (pause, count) in [(Duration::ZERO, 1), (Duration::from_millis(2), 2)] {
        let (mut reader, mut stdout) = Reader::new(pod, "one");
        wait_until_attached(&reader.child);
        reader.reading = Some(std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut block = vec![0; 1 << 17];
            while (all.len() as u64) < SOME {
                let got = stdout.read(&mut block)?;
                if got == 0 {
                    break;
                }
                all.extend_from_slice(&block[..got]);
                std::thread::sleep(pause);
            }
            read_sequence(&all[..])
        }));
        go();
        floods(count);
        let read = reader.reading.take().expect("a thread").join().expect("join")?;
        assert_eq!(read, SOME, "with a pause of {pause:?}");
        kill(Pid::from_raw(reader.child.id() as i32), Signal::SIGTERM)?;
        reader.child.wait()?;
        wait_for("the client to be gone", 20, || (descriptors(mux) <= idle).then_some(()));
    }
    // Two clients get the same output; the end of later output is kept when both are gone.
    let readers = [Reader::<u64>::new(pod, "one"), Reader::new(pod, "one")];
    let readers = readers.map(|(mut reader, stdout)| {
        wait_until_attached(&reader.child);
        reader.reading = Some(std::thread::spawn(move || read_sequence(stdout.take(SOME))));
        reader
    });
    go();
    floods(3);
    for mut reader in readers {
        assert_eq!(reader.reading.take().expect("a thread").join().expect("join")?, SOME);
        kill(Pid::from_raw(reader.child.id() as i32), Signal::SIGTERM)?;
        reader.child.wait()?;
    }
    wait_for("the clients to be gone", 20, || (descriptors(mux) <= idle).then_some(()));
    go();
    floods(4);
    let (mut last, mut stdout) = Reader::<u64>::new(pod, "one");
    let mut kept = vec![0; 64 << 10];
    stdout.read_exact(&mut kept)?;
    let expected: Vec<u8> = (0..=1_u64 << 16).flat_map(u64::to_le_bytes).collect::<Vec<u8>>().repeat(2);
    let begin = usize::try_from((SOME - kept.len() as u64) % (expected.len() as u64 / 2))?;
    assert!(kept == expected[begin..begin + kept.len()], "what was kept is not the end");
    kill(Pid::from_raw(last.child.id() as i32), Signal::SIGTERM)?;
    last.child.wait()?;
    Ok(())
}

fn hundreds_of_attachments_leave_nothing(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    start(&pod, "one", &STREAMS, "while read a; do echo \"got $a\"; done");
    start(&pod, "two", &["--stdin=tty", "--stdout=tty", "--stderr=tty", "--env=PS1=in> "], "exec sh");
    let monitor = monitor(&pod);
    let state = || {
        let mut inside: Vec<String> = descendants(pod.pid()).iter().map(|p| format!("{} {}", p.pid, p.words)).collect();
        inside.sort();
        let mut files = Vec::new();
        for app in ["one", "two"] {
            let place = pod.dir().join("stage1/rootfs/rkt/iottymux").join(app);
            files.extend(std::fs::read_dir(place).expect("list").map(|e| e.expect("entry").path()));
        }
        files.sort();
        (inside, files, [pod.pid(), monitor].map(descriptors).to_vec(), sockets(monitor))
    };
    wait_for("the shell of the terminal", 20, || {
        descendants(pod.pid()).iter().any(|process| process.words == "sh").then_some(())
    });
    let before = state();
    let mut screen = Screen::new();
    let settings = screen.settings();
    for round in 0..500 {
        if round % 5 == 0 {
            let mut client = screen.start(&attach(&pod, "two", &[]), [None, None, None]);
            wait_for("raw mode", 10, || screen.is_raw().then_some(()));
            screen.types("\x10\x11");
            assert_eq!(screen.end_of(&mut client), 0);
            continue;
        }
        let mut command = attach(&pod, "one", &["--mode=stdin,stdout"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut byte = [0; 1];
        std::io::Write::write_all(child.stdin.as_mut().expect("stdin"), format!("{round}\n").as_bytes())?;
        child.stdout.as_mut().expect("stdout").read_exact(&mut byte)?;
        let by = if round % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
        kill(Pid::from_raw(child.id() as i32), by)?;
        child.wait()?;
    }
    assert_eq!(screen.settings(), settings);
    let mut after = state();
    let end = Instant::now() + Duration::from_secs(10);
    while after != before && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
        after = state();
    }
    assert_eq!((&after.2, after.3), (&before.2, before.3), "descriptors and sockets");
    assert_eq!(after, before);
    assert!(Process::lives(monitor));
    pod.end();
    Ok(())
}

/// The sockets in the network namespace of a process.
fn sockets(pid: i32) -> usize {
    std::fs::read_to_string(format!("/proc/{pid}/net/unix")).map(|text| text.lines().count()).unwrap_or(0)
}
