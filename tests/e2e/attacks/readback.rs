//! What the host reads back from a pod, or removes, when the pod's root has replaced it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::Mode;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::wait_for;

tests::cases! {
    native anything_in_the_place_of_what_is_read 240;
    native anything_in_the_place_of_what_is_removed 120;
}

/// A text that no file of the pod has.
const SECRET: &str = "7e57-of-the-host";
/// More memory than podctl and its entrypoints ever need, in kB.
const MEMORY: i64 = 200_000;

const KINDS: [&str; 5] = ["link", "FIFO", "socket", "directory", "10 GB"];

fn put(kind: &str, at: &Path, secret: &Path) -> std::io::Result<()> {
    match kind {
        "link" => symlink(secret, at),
        "FIFO" => nix::unistd::mkfifo(at, Mode::S_IRWXU).map_err(Into::into),
        "socket" => {
            // A socket's path must be short: bind it in a short directory.
            let parent = File::open(at.parent().unwrap_or(at))?;
            let name = at.file_name().unwrap_or_default();
            let short = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&parent));
            UnixListener::bind(Path::new(&short).join(name)).map(drop)
        }
        "directory" => fs::create_dir(at).and_then(|()| fs::write(at.join("inside"), "")),
        _ => File::create(at)?.set_len(10 << 30),
    }
}

fn remove(at: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(at) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(at),
        Ok(_) => fs::remove_file(at),
        Err(_) => Ok(()),
    }
}

/// All files, links and sockets below a directory, and all directories that have any.
fn places(below: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        if entry.file_type().expect("a type").is_dir() {
            places(&entry.path(), into);
        }
        into.push(entry.path());
    }
}

/// A pod with an app that has ended and one that runs, and all files that the pod's root may change and the host reads.
fn made(podctl: &Podctl) -> (Pod<'_>, Vec<PathBuf>) {
    let pod = podctl.pod(&[]);
    pod.add("ended", &["--env=COLOUR=green"], &["exit", "3"]);
    pod.add("runs", &["--stdout=stream"], &["sleep", "inf"]);
    pod.app("start", "ended", &[]).ok();
    pod.app("start", "runs", &[]).ok();
    wait_for("the end", 10, || (pod.state("ended") == "exited").then_some(()));
    let root = pod.dir().join("stage1/rootfs");
    let mut found = Vec::new();
    places(&root.join("rkt"), &mut found);
    // Files in a place that only the pod's PID 1 could make writable.
    for app in ["ended", "runs"] {
        found.push(root.join(format!("etc/systemd/system/app-{app}.service")));
        found.extend(["launch", "manifest"].map(|name| root.join("opt/stage2").join(app).join(name)));
    }
    for place in ["rkt/status/ended", "rkt/env/ended", "rkt/supervisor-status", "rkt/iottymux/runs/sock-stdout"] {
        assert!(found.contains(&root.join(place)), "{place} is not in {found:?}");
    }
    assert!(found.iter().all(|place| place.symlink_metadata().is_ok()), "{found:?}");
    (pod, found)
}

/// A command that hangs is killed, with exit code 124.
fn impatient(t: &Context) -> Podctl {
    t.podctl().called_after("set -- timeout 20 \"$@\"")
}

/// Runs a command, which may fail with one line, but must not hang or show secrets of the host.
#[track_caller]
fn ask(podctl: &Podctl, words: &[&str], when: &str) {
    let out = podctl.run(words);
    assert!(out.code.is_some_and(|code| code != 124 && code != 137), "{when}: {out}");
    assert!(!out.stdout.contains(SECRET) && !out.stderr.contains(SECRET), "{when}: {out}");
    assert!(!out.stderr.contains("panicked"), "{when}: {out}");
    if out.code != Some(0) {
        let (complaints, _): (Vec<&str>, Vec<&str>) =
            out.stderr.lines().partition(|line| !line.starts_with("warning") && !line.starts_with("podctl: warning"));
        assert_eq!(complaints.len(), 1, "{when}: {out}");
    }
}

#[track_caller]
fn memory_is_bounded() {
    let most = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage").max_rss();
    assert!(most < MEMORY, "{most} kB");
}

fn anything_in_the_place_of_what_is_read(t: &Context) -> Verdict {
    let secret = t.dir.join("secret");
    fs::write(&secret, format!("{SECRET}\n"))?;
    let podctl = impatient(t);
    let (pod, found) = made(&podctl);
    let uuid = pod.uuid.as_str();
    for place in &found {
        for kind in KINDS {
            let aside = place.with_extension("aside");
            match fs::rename(place, &aside) {
                // A directory of the stage1 image, which an overlay does not let the pod move.
                Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices && place.is_dir() => break,
                done => done?,
            }
            put(kind, place, &secret)?;
            for words in [
                &["list"][..],
                &["status", uuid],
                &["app", "list", uuid],
                &["app", "status", uuid, "--app=ended"],
                &["app", "status", uuid, "--app=runs"],
                &["logs", uuid, "--app=ended"],
                &["attach", uuid, "--app=runs", "--list"],
                &["enter", uuid, "--app=runs", "--", "/probe", "print", "x"],
            ] {
                ask(&podctl, words, &format!("{} is a {kind}", place.display()));
            }
            remove(place)?;
            fs::rename(&aside, place)?;
        }
    }
    // The pod works as before.
    assert_eq!(pod.exit_code("ended"), 3);
    assert_eq!(pod.enter("runs", &["/probe", "print", "x"]).ok(), "x");
    pod.end();
    assert_eq!(fs::read_to_string(&secret)?, format!("{SECRET}\n"));
    memory_is_bounded();
    Ok(())
}

fn anything_in_the_place_of_what_is_removed(t: &Context) -> Verdict {
    let secret = t.dir.join("secret");
    fs::write(&secret, format!("{SECRET}\n"))?;
    let podctl = impatient(t);
    for kind in KINDS {
        let (pod, found) = made(&podctl);
        let uuid = pod.uuid.as_str();
        for place in found.iter().filter(|place| !place.is_dir()) {
            remove(place)?;
            put(kind, place, &secret)?;
        }
        let what = format!("everything is a {kind}");
        ask(&podctl, &["app", "start", uuid, "--app=ended"], &what);
        ask(&podctl, &["app", "stop", uuid, "--app=runs"], &what);
        for app in ["ended", "runs"] {
            ask(&podctl, &["app", "rm", uuid, "--app", app], &what);
        }
        podctl.ok(&["stop", uuid]);
        podctl.ok(&["gc", "--grace-period=0s"]);
        assert_eq!(podctl.json(&["list", "--format=json"]), serde_json::json!([]), "{what}");
        assert_eq!(fs::read_to_string(&secret)?, format!("{SECRET}\n"), "{what}");
    }
    memory_is_bounded();
    Ok(())
}
