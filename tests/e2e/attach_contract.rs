//! Streams under a host manager that knows only docs/contract.md, and log files for kubelets.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::minihost::MiniPod;
use tests::process::{run, run_with_input, wait_for};

use crate::attach::{attach, pod, start};

tests::cases! {
    native every_switch_of_attach;
    native plain_clients_of_the_sockets;
    native hostile_places_and_annotations;
    native log_files_byte_by_byte;
    native log_files_renamed_outside;
    native with_ids_of_its_own;
}

/// Adds an app whose streams have these modes.
#[track_caller]
fn add(pod: &mut MiniPod<'_>, app: &str, exec: &[&str], modes: [&str; 3]) {
    try_add(pod, app, exec, &annotations(modes)).ok();
}

fn annotations(modes: [&str; 3]) -> Value {
    let names = ["stdin", "stdout", "stderr"];
    let all = names.iter().zip(modes).filter(|(_, mode)| !mode.is_empty());
    all.map(|(name, mode)| json!({"name": format!("coreos.com/rkt/stage2/{name}"), "value": mode})).collect()
}

#[track_caller]
fn try_add(pod: &mut MiniPod<'_>, app: &str, exec: &[&str], annotations: &Value) -> tests::process::Output {
    pod.stage(app, exec, &json!([]), &json!({}));
    let path = pod.dir().join("pod");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).expect("manifest")).expect("JSON");
    let apps = manifest["apps"].as_array_mut().expect("apps");
    apps.iter_mut().find(|a| a["name"] == app).expect("the app")["annotations"] = annotations.clone();
    fs::write(&path, manifest.to_string()).expect("write");
    let uuid = format!("--uuid={}", pod.uuid);
    pod.cross("app/add", &["--debug=false", &format!("--app={app}"), &uuid])
}

fn every_switch_of_attach(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&json!([]), &["--net=none"]);
    let say = ["/probe", "print", "to out", "+", "warn", "to err", "+", "sleep", "0.2", "+", "exit", "5"];
    for (switches, out, err) in [
        (&["--action=auto-attach"][..], "to out\n", "to err\n"),
        (&["-action", "auto-attach", "--stdin=false"], "to out\n", "to err\n"),
        (&["--action=custom-attach", "--stdout=true"], "to out\n", ""),
        (&["--action", "custom-attach", "-stderr"], "", "to err\n"),
        (&["--action=custom-attach", "--stdin=1", "--stdout=t", "--stderr=f"], "to out\n", ""),
        (
            &[
                "--action=custom-attach",
                "--tty-in=false",
                "--tty-out=false",
                "--stdin=false",
                "--stdout=true",
                "--stderr=true",
            ],
            "to out\n",
            "to err\n",
        ),
    ] {
        add(&mut pod, "one", &say, ["stream"; 3]);
        pod.start_app("one").ok();
        let args = [switches, &["--app=one", "--debug=false"]].concat();
        let got = pod.cross("attach", &args);
        assert_eq!((got.code, got.stdout.as_str(), got.stderr.as_str()), (Some(0), out, err), "{got}");
        pod.rm("one");
    }
    add(&mut pod, "tty", &say, ["tty"; 3]);
    for (switches, out) in [
        (&["--action=auto-attach"][..], "to out\r\nto err\r\n"),
        (&["--action=custom-attach", "--tty-in=true", "--tty-out=true"], "to out\r\nto err\r\n"),
        (&["--action=custom-attach", "--tty-out=true"], "to out\r\nto err\r\n"),
        (&["--action=custom-attach", "--tty-in=true"], ""),
    ] {
        pod.start_app("tty").ok();
        let got = pod.cross("attach", &[switches, &["--app=tty"]].concat());
        assert_eq!((got.code, got.stdout.as_str(), got.stderr.as_str()), (Some(0), out, ""), "{got}");
        wait_for("its end", 10, || (pod.state("tty") == ("exited", Some(5))).then_some(()));
    }
    // The list of endpoints, as the contract defines it.
    let list = pod.cross("attach", &["--action=list", "--app=tty"]).ok();
    assert_eq!(
        list,
        r#"{"version":1,"targets":[{"name":"tty","domain":"unix","address":"/rkt/iottymux/tty/sock-tty"}]}"#
    );
    add(&mut pod, "mixed", &["/probe", "sleep", "inf"], ["stream", "null", "stream"]);
    pod.start_app("mixed").ok();
    let list = pod.cross("attach", &["--action=list", "--app=mixed"]).ok();
    let place = pod.dir().join("stage1/rootfs/rkt/iottymux/mixed");
    assert_eq!(fs::read_to_string(place.join("endpoints"))?.trim_end(), list);
    assert_eq!(
        serde_json::from_str::<Value>(&list)?,
        json!({"version": 1, "targets": [
            {"name": "stdin", "domain": "unix", "address": "/rkt/iottymux/mixed/sock-stdin"},
            {"name": "stderr", "domain": "unix", "address": "/rkt/iottymux/mixed/sock-stderr"},
        ]})
    );
    for (name, is_fifo) in [("stage2-stdin", true), ("stage2-stderr", true), ("sock-stdin", false)] {
        let kind = fs::symlink_metadata(place.join(name))?.file_type();
        assert!(if is_fifo { kind.is_fifo() } else { kind.is_socket() }, "{name}");
    }
    assert!(!place.join("stage2-stdout").exists());
    let env = fs::read_to_string(place.join("env"))?;
    for line in ["STAGE2_TTY=false", "STAGE2_STDIN=true", "STAGE2_STDOUT=false", "STAGE2_STDERR=true"] {
        assert!(env.lines().any(|l| l == line), "{env}");
    }
    // Streams that the app does not have.
    for (switches, codes, words) in [
        (&["--action=custom-attach"][..], [2, 2], "no stream to attach to was named"),
        (&["--action=custom-attach", "--stdout"], [254, 254], "no stdout to attach to"),
        (&["--action=dance"], [1, 2], "dance"),
        (&["--action=list", "--stdin=perhaps"], [1, 2], "perhaps"),
        (&[], [1, 2], "action"),
    ] {
        let got = pod.cross("attach", &[switches, &["--app=mixed"]].concat());
        assert!(codes.contains(&got.code.unwrap_or(-1)) && got.stderr.contains(words), "{got}");
    }
    assert_eq!(pod.cross("attach", &["--action=list", "--app=none"]).code, Some(254));
    for app in ["tty", "mixed"] {
        pod.rm(app);
    }
    assert_eq!(fs::read_dir(pod.dir().join("stage1/rootfs/rkt/iottymux"))?.count(), 0);
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

/// Connects by path, however long the path is.
#[track_caller]
fn connect(place: &Path, name: &str) -> UnixStream {
    let dir = fs::File::open(place).unwrap_or_else(|e| panic!("{}: {e}", place.display()));
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    let stream = UnixStream::connect(&path).unwrap_or_else(|e| panic!("{name}: {e}"));
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("timeout");
    stream
}

fn plain_clients_of_the_sockets(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl, &t.dir.join("root"), &[]);
    // A name that makes the paths of the sockets longer than a socket address holds.
    let app = "x".repeat(120);
    start(&pod, &app, &crate::attach::STREAMS, "while read a; do echo \"got $a\"; done; echo end");
    let place = pod.dir().join("stage1/rootfs/rkt/iottymux").join(&app);
    let (mut stdin, mut stdout) = (connect(&place, "sock-stdin"), connect(&place, "sock-stdout"));
    let mut text = [0; 8];
    stdin.write_all(b"one\n")?;
    stdout.read_exact(&mut text)?;
    assert_eq!(&text, b"got one\n");
    // A client that disconnects leaves the input open; what it sent before is not lost.
    connect(&place, "sock-stdin").write_all(b"two\n")?;
    stdout.read_exact(&mut text)?;
    assert_eq!(&text, b"got two\n");
    // A client that shuts down its writing side asks for the end of the input, and is told when that was passed on.
    stdin.shutdown(std::net::Shutdown::Write)?;
    let mut told = Vec::new();
    stdin.read_to_end(&mut told)?;
    assert_eq!(told, [4]);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest)?;
    assert_eq!(rest, "end\n");

    start(&pod, "tty", &["--stdin=tty", "--stdout=tty", "--stderr=tty"], "stty -echo; echo ready; read a; echo $a");
    let place = pod.dir().join("stage1/rootfs/rkt/iottymux/tty");
    let mut tty = connect(&place, "sock-tty");
    let mut text = [0; 7];
    tty.read_exact(&mut text)?;
    assert_eq!(&text, b"ready\r\n");
    tty.write_all(b"typed\n")?;
    let mut rest = String::new();
    tty.read_to_string(&mut rest)?;
    assert_eq!(rest, "typed\r\n");
    pod.end();
    Ok(())
}

fn hostile_places_and_annotations(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&json!([]), &["--net=none"]);
    for (modes, words) in [
        (["log", "", ""], "stdin mode \"log\""),
        (["", "Stream", ""], "stdout mode \"Stream\""),
        (["", "", "stream\nExecStartPre=/bin/sh"], "stderr mode"),
    ] {
        let complaint = try_add(&mut pod, "bad", &["/probe"], &annotations(modes)).complaint();
        assert!(complaint.contains(words), "{complaint}");
        assert!(!pod.dir().join("stage1/rootfs/etc/systemd/system/app-bad.service").exists());
        pod.rm("bad");
    }
    // The pod can replace the files that the host reads and removes.
    let outside = t.dir.join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("endpoints"), r#"{"version":1,"targets":[]}"#)?;
    add(&mut pod, "one", &["/probe", "sleep", "inf"], ["stream"; 3]);
    pod.start_app("one").ok();
    let place = pod.dir().join("stage1/rootfs/rkt/iottymux/one");
    let list = || pod.cross("attach", &["--action=list", "--app=one"]);
    list().ok();
    // The files that the host relies on are out of the pod's reach.
    for name in ["endpoints", "sock-stdout"] {
        fs::remove_file(place.join(name))?;
        symlink(outside.join("endpoints"), place.join(name))?;
    }
    list().ok();
    // Removing the app follows none of these links.
    pod.cross("app/stop", &["--app=one"]).ok();
    pod.rm("one");
    add(&mut pod, "one", &["/probe", "print", "mine"], ["", "stream", "stream"]);
    pod.start_app("one").ok();
    assert_eq!(pod.cross("attach", &["--action=auto-attach", "--app=one"]).ok(), "mine");
    assert_eq!(fs::read_to_string(outside.join("endpoints"))?, r#"{"version":1,"targets":[]}"#);
    // The pod replaces the directory itself.
    pod.cross("app/stop", &["--app=one"]).ok();
    fs::rename(&place, place.with_file_name("aside"))?;
    symlink(&outside, &place)?;
    let rm = pod.cross("app/rm", &["--app=one"]);
    assert_eq!(rm.code, Some(254), "{rm}");
    assert!(outside.join("endpoints").exists(), "it was removed through a link");
    fs::remove_file(&place)?;
    fs::remove_dir_all(place.with_file_name("aside"))?;
    pod.rm("one");
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

/// A line of a log file without its time, which it checks.
#[track_caller]
fn without_time(line: &[u8]) -> &[u8] {
    let at = line.iter().position(|byte| *byte == b' ').unwrap_or_else(|| panic!("no time: {line:?}"));
    let time = std::str::from_utf8(&line[..at]).expect("ASCII");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000000000Z");
    let parsed = run(std::process::Command::new("date").args(["-u", "+%s", "-d", time])).ok();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs();
    let seconds: u64 = parsed.parse().expect("seconds");
    assert!(seconds <= now && seconds + 300 > now, "{time}");
    &line[at + 1..]
}

#[track_caller]
fn lines(path: &Path, count: usize) -> Vec<Vec<u8>> {
    let text = wait_for(&format!("{count} lines in {}", path.display()), 20, || {
        fs::read(path).ok().filter(|text| text.iter().filter(|byte| **byte == b'\n').count() >= count)
    });
    assert!(text.ends_with(b"\n"));
    text[..text.len() - 1].split(|byte| *byte == b'\n').map(|line| without_time(line).to_vec()).collect()
}

fn log_files_byte_by_byte(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for (mode, tag) in [("k8s-plain", ""), ("k8s-cri", "F ")] {
        let logs = t.dir.join(mode);
        fs::create_dir(&logs)?;
        let root = t.dir.join(format!("root-{mode}"));
        let dir = format!("--k8s-log-dir={}", logs.display());
        let pod = pod(&podctl, &root, &[&dir, &format!("--k8s-log-mode={mode}")]);
        let script =
            r#"printf 'one\n\ntwo \377\000\r\n  three'; printf ' goes on\n'; printf 'to err\n' >&2; printf 'open end'"#;
        // Also without a client, and for a terminal.
        start(&pod, "one", &["--k8s-log-path=one/0.log"], script);
        assert_eq!(pod.exit_code("one"), 0);
        let mut got = lines(&logs.join("one/0.log"), 6);
        let (out, err): (Vec<_>, Vec<_>) = got.drain(..).partition(|line| line.starts_with(b"stdout "));
        let line = |stream: &str, text: &[u8]| [stream.as_bytes(), b" ", tag.as_bytes(), text].concat();
        let texts: [&[u8]; 5] = [b"one", b"", b"two \xff\0\r", b"  three goes on", b"open end"];
        assert_eq!(out, texts.map(|text| line("stdout", text)));
        assert_eq!(err, [line("stderr", b"to err")]);
        // The lines are in the pod's own log as well.
        let wanted = [("stdout", "one"), ("stdout", "  three goes on"), ("stderr", "to err"), ("stdout", "open end")];
        wait_for("the app's lines in its log", 20, || {
            let shown = podctl.ok(&["logs", &pod.uuid, "--app=one", "--format=json"]);
            let entry = |line| serde_json::from_str::<serde_json::Value>(line).expect("an object a line");
            let entries: Vec<_> = shown.lines().map(entry).collect();
            let is_there = |(stream, text)| entries.iter().any(|e| e["stream"] == stream && e["message"] == text);
            wanted.into_iter().all(is_there).then_some(())
        });
        let tty = ["--stdin=tty", "--stdout=tty", "--stderr=tty", "--k8s-log-path=tty.log"];
        start(&pod, "tty", &tty, "echo shown; echo too >&2");
        assert_eq!(lines(&logs.join("tty.log"), 2), [line("stdout", b"shown\r"), line("stdout", b"too\r")]);
        // A long line is split into parts if the format has them.
        start(&pod, "long", &["--k8s-log-path=long.log"], "head -c 40000 /dev/zero; echo; echo next");
        let count = if mode == "k8s-cri" { 4 } else { 2 };
        let got = lines(&logs.join("long.log"), count);
        let text: Vec<u8> = got.iter().flat_map(|l| l["stdout ".len() + tag.len()..].to_vec()).collect();
        assert!(text == [&vec![0; 40000][..], b"next"].concat(), "{} bytes", text.len());
        assert_eq!(got.len(), count);
        if mode == "k8s-cri" {
            let tags: Vec<u8> = got.iter().map(|l| l["stdout ".len()]).collect();
            assert_eq!(tags, b"PPFF");
        }
        for bad in ["../out.log", "/tmp/out.log", "", "a/../../b"] {
            let option = format!("--k8s-log-path={bad}");
            let complaint = podctl.fails(&["app", "add", &pod.uuid, "shell", "--name=bad", &option]);
            assert!(complaint.contains("log file"), "{complaint}");
        }
        pod.end();
    }
    let complaint = podctl.fails(&["sandbox", "--k8s-log-dir=/no/such/dir"]);
    assert!(complaint.contains("--k8s-log-dir"), "{complaint}");
    Ok(())
}

fn log_files_renamed_outside(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let logs = t.dir.join("logs");
    fs::create_dir(&logs)?;
    let pod = pod(&podctl, &t.dir.join("root"), &[&format!("--k8s-log-dir={}", logs.display())]);
    let options = ["--stdin=stream", "--stdout=stream", "--k8s-log-path=one.log"];
    start(&pod, "one", &options, "while read a; do echo $a; done");
    let file = logs.join("one.log");
    let send = |text: &str| {
        let sent = run_with_input(&mut attach(&pod, "one", &["--mode=stdin"]), text);
        assert_eq!(sent.code, Some(0), "{sent}");
    };
    send("1\n");
    assert_eq!(lines(&file, 1), [b"stdout F 1"]);
    for round in 2..5 {
        let old = logs.join(format!("one.log.{round}"));
        fs::rename(&file, &old)?;
        // The monitor writes to the old file until it is told to reopen it.
        send("between\n");
        assert_eq!(lines(&old, 2).last().map(Vec::as_slice), Some(&b"stdout F between"[..]));
        assert!(!file.exists());
        pod.app("reopen-log", "one", &[]).ok();
        assert!(file.exists(), "the new file is there at once");
        send(&format!("{round}\n"));
        assert_eq!(lines(&file, 1), [format!("stdout F {round}").into_bytes()]);
    }
    // An app does not start if its log file can't be made.
    fs::create_dir(logs.join("taken"))?;
    podctl.ok(&["app", "add", &pod.uuid, "shell", "--name=taken", "--k8s-log-path=taken", "--exec=/bin/sh"]);
    let complaint = pod.app("start", "taken", &[]).complaint();
    assert!(complaint.contains("open log file \"taken\""), "{complaint}");
    // Links in the directory of log files do not lead out of it.
    fs::remove_file(&file)?;
    symlink(t.dir.join("victim"), &file)?;
    let complaint = pod.app("reopen-log", "one", &[]).complaint();
    assert!(complaint.contains("one.log"), "{complaint}");
    assert!(!t.dir.join("victim").exists());
    start(&pod, "two", &["--stdout=stream"], "exec sleep 1000");
    let complaint = pod.app("reopen-log", "two", &[]).complaint();
    assert!(complaint.contains("no log file"), "{complaint}");
    pod.end();
    Ok(())
}

/// A pod with its own user namespace: FIFOs, terminals and log files belong to its ids.
fn with_ids_of_its_own(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let logs = t.dir.join("logs");
    fs::create_dir(&logs)?;
    let dir = format!("--k8s-log-dir={}", logs.display());
    let pod = pod(&podctl, &t.dir.join("root"), &["--private-users", &dir]);
    let options = [&crate::attach::STREAMS[..], &["--user=1001", "--group=2001", "--k8s-log-path=a/b.log"]].concat();
    let script = "read a; echo \"got $a\"; echo by link >/dev/stdout; echo to err >/dev/stderr; exit 5";
    start(&pod, "one", &options, script);
    let got = run_with_input(&mut attach(&pod, "one", &[]), "this\n");
    assert_eq!((got.code, got.stdout.as_str(), got.stderr.as_str()), (Some(5), "got this\nby link\n", "to err\n"));
    assert_eq!(lines(&logs.join("a/b.log"), 3).len(), 3);
    let tty = ["--stdin=tty", "--stdout=tty", "--stderr=tty", "--user=1001", "--group=2001"];
    start(&pod, "two", &tty, "tty; echo again >$(tty); echo anew >/dev/tty; exit 6");
    let got = run(&mut attach(&pod, "two", &[]));
    assert_eq!((got.code, got.stdout.as_str()), (Some(6), "/dev/pts/0\r\nagain\r\nanew\r\n"), "{got}");
    pod.app("rm", "one", &[]).ok();
    pod.app("rm", "two", &[]).ok();
    pod.end();
    Ok(())
}
