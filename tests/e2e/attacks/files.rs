//! Files of the caller that are the standard descriptors of a command in a pod: CVE-2024-21626 and CVE-2016-9962. A
//! process that may look at the command could open them again, for writing too, through `/proc/PID/fd`.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use serde_json::Value;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::run;

tests::cases! {
    native files_stay_outside;
    native what_is_copied_is_exact;
    native the_rest_of_a_file_is_for_the_next;
    native a_full_disk_is_told;
    native a_fifo_ends_at_both_ends;
    native odd_descriptors_are_their_end;
}

fn pod(podctl: &Podctl) -> Pod<'_> {
    let pod = podctl.pod(&[]);
    pod.add("one", &[], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    pod
}

fn enter(pod: &Pod<'_>, words: &[&str]) -> Command {
    pod.podctl.command(&[&["enter", pod.uuid.as_str(), "--app", "one", "--", "/probe"], words].concat())
}

/// Seen to fail when the wiring handed files in as it does unnamed pipes: the script was rewritten.
fn files_stay_outside(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl);
    let at = |name: &str| t.dir.join(name);
    fs::write(at("script"), "the script\n")?;
    fs::write(at("log"), "an old line\n")?;
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU)?;
    let fifo = || OpenOptions::new().read(true).write(true).open(at("fifo"));
    let log = || OpenOptions::new().append(true).open(at("log"));
    for words in [
        ["append", "/proc/self/fd/0", "echo hijacked"],
        ["write", "/proc/self/fd/1", "hijacked"],
        ["fill", "/proc/self/fd/1", "0"],
        ["fill", "/proc/self/fd/2", "0"],
    ] {
        let mut command = enter(&pod, &words);
        command.stdin(File::open(at("script"))?).stdout(log()?).stderr(log()?).status()?;
    }
    assert_eq!(fs::read_to_string(at("script"))?, "the script\n");
    assert!(fs::read_to_string(at("log"))?.starts_with("an old line\n"), "{}", fs::read_to_string(at("log"))?);

    // No name of the host is visible.
    fs::write(at("report.json"), "")?;
    let devices = ["/dev/zero", "/dev/full", "/dev/null"];
    let others = devices.map(|path| File::open(path).expect(path));
    for stdin in [File::open(at("script"))?, fifo()?].into_iter().chain(others) {
        let out = File::create(at("report.json"))?;
        assert!(enter(&pod, &["report"]).stdin(stdin).stdout(out).stderr(fifo()?).status()?.success());
        let report: Value = serde_json::from_str(&fs::read_to_string(at("report.json"))?)?;
        let names: Vec<&str> = ["0", "1", "2"].iter().filter_map(|n| report["fds"][n].as_str()).collect();
        assert!(names.iter().all(|name| name.starts_with("pipe:") || *name == "/dev/null"), "{names:?}");
        assert_eq!(report["fds"].as_object().map(serde_json::Map::len), Some(3), "{}", report["fds"]);
    }
    pod.end();
    Ok(())
}

fn what_is_copied_is_exact(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl);
    let at = |name: &str| t.dir.join(name);
    let bytes: Vec<u8> = (0..20_000_003_u32).map(|n| (n ^ n >> 8 ^ n >> 15) as u8).collect();
    fs::write(at("from"), &bytes)?;
    let cat = ["cat", "/proc/self/fd/0"];
    let status = enter(&pod, &cat).stdin(File::open(at("from"))?).stdout(File::create(at("to"))?).status()?;
    assert!(status.success() && fs::read(at("to"))? == bytes);

    // Appended output comes after what others append; other output begins at the file's offset.
    let append = OpenOptions::new().append(true).create(true).open(at("log"))?;
    let mut place = File::create(at("place"))?;
    place.write_all(b"before ")?;
    for n in 0..3 {
        let n = n.to_string();
        let words = ["lines", "1000", &n, "+", "exit", "7"];
        let status = enter(&pod, &words).stdin(Stdio::null()).stdout(append.try_clone()?).status()?;
        assert_eq!(status.code(), Some(7));
        (&append).write_all(b"mine\n")?;
        let words = ["print", &n];
        assert!(enter(&pod, &words).stdin(Stdio::null()).stdout(place.try_clone()?).status()?.success());
    }
    place.write_all(b"after")?;
    let expected: String =
        (0..3).map(|n| (0..1000).map(|l| format!("{n} {l}\n")).collect::<String>() + "mine\n").collect();
    assert!(fs::read_to_string(at("log"))? == expected);
    assert_eq!(fs::read_to_string(at("place"))?, "before 0\n1\n2\nafter");
    pod.end();
    Ok(())
}

/// As in `while read word; do podctl enter …; done <list`.
fn the_rest_of_a_file_is_for_the_next(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl);
    let list = t.dir.join("list");
    let text: String = (0..100_000).map(|n| format!("{n:04}\n")).collect();
    fs::write(&list, &text)?;
    let file = File::open(&list)?;
    let entered = |words: &[&str]| {
        let out = enter(&pod, words).stdin(file.try_clone().expect("dup")).output().expect("podctl");
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(entered(&["print", "reads nothing"]), "reads nothing\n");
    assert_eq!(entered(&["take", "4"]), "0000\n");
    assert_eq!(entered(&["take", "5"]), "\n0001\n");
    assert!(entered(&["cat", "/proc/self/fd/0"]) == text[9..], "not the rest");
    assert_eq!(entered(&["cat", "/proc/self/fd/0"]), "");
    pod.end();
    Ok(())
}

fn a_full_disk_is_told(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl);
    let small = t.dir.join("small");
    fs::create_dir(&small)?;
    mount(Some("none"), &small, Some("tmpfs"), MsFlags::empty(), Some("size=256k"))?;
    let out = enter(&pod, &["flood", "8000000"])
        .stdin(Stdio::null())
        .stdout(File::create(small.join("full"))?)
        .stderr(Stdio::piped())
        .output()?;
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(125), "{words}");
    assert!(words.lines().any(|line| line.starts_with("enter: ") && line.contains("No space left")), "{words}");
    let out = enter(&pod, &["print", "x"]).stdin(Stdio::null()).stdout(File::create("/dev/full")?).output()?;
    assert_eq!(out.status.code(), Some(125));
    umount2(&small, MntFlags::empty())?;
    pod.end();
    Ok(())
}

fn a_fifo_ends_at_both_ends(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl);
    let fifo = t.dir.join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU)?;
    // The writer is gone before the command reads.
    let both = OpenOptions::new().read(true).write(true).open(&fifo)?;
    let reader = File::open(&fifo)?;
    (&both).write_all(b"through the fifo")?;
    drop(both);
    let out = enter(&pod, &["cat", "/proc/self/fd/0"]).stdin(reader).output()?;
    assert_eq!(String::from_utf8_lossy(&out.stdout), "through the fifo");
    // The reader stops reading early.
    let both = OpenOptions::new().read(true).write(true).open(&fifo)?;
    let reader = File::open(&fifo)?;
    let writer = OpenOptions::new().write(true).open(&fifo)?;
    drop(both);
    let mut child = enter(&pod, &["lines", "10000000", "x"]).stdin(Stdio::null()).stdout(writer).spawn()?;
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line)?;
    assert_eq!(line, "x 0\n");
    assert!(!child.wait()?.success(), "the command did not hear that nobody reads");
    pod.end();
    Ok(())
}

/// Descriptors that are opened in the wrong direction, or closed.
fn odd_descriptors_are_their_end(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl);
    let file = t.dir.join("file");
    fs::write(&file, "")?;
    let odd = |how: &str, words: &str| {
        let script = format!("exec \"$@\" {how}");
        let podctl = podctl.command(&["enter", &pod.uuid, "--app=one", "--", "/probe"]);
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(podctl.get_program()).args(podctl.get_args()).args(words.split(' '));
        run(&mut command)
    };
    let path = file.display();
    assert_eq!(odd(&format!("0>{path}"), "print x").ok(), "x");
    assert_eq!(odd(&format!("0>{path}"), "cat /proc/self/fd/0").ok(), "");
    assert_eq!(odd("0<&-", "cat /proc/self/fd/0").ok(), "");
    assert_eq!(odd("0<&- 1>&- 2>&-", "exit 3").code, Some(3));
    assert_eq!(odd(&format!("1<{path}"), "exit 3").code, Some(3));
    assert_eq!(odd(&format!("2<{path}"), "exit 3").code, Some(3));
    pod.end();
    Ok(())
}
