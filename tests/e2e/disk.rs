//! The state of the disk after a power cut, and running out of disk space.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tests::harness::Context;
use tests::podctl::Podctl;
use tests::process::wait_for;
use tests::tracer::{self, Call, Traced};
use tests::{Verdict, dist};

tests::cases! {
    native what_appears_has_been_synced;
    native no_room_for_an_image;
    native no_room_for_a_pod;
    native no_room_for_an_app;
    native no_room_for_an_end;
    native no_room_for_the_end_of_an_immutable_pod;
    native no_room_for_a_removal;
}

/// The files that a run has written and not synced.
#[derive(Default)]
struct Unsynced {
    files: BTreeSet<PathBuf>,
    /// Files that were renamed before they were synced.
    wrong: Vec<String>,
    renames: usize,
}

impl Unsynced {
    fn look(&mut self, call: &Call, wanted: &impl Fn(&Path) -> bool) {
        match call.number {
            libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_ftruncate => {
                self.files.insert(call.descriptor(0));
            }
            libc::SYS_fsync | libc::SYS_fdatasync => {
                self.files.remove(&call.descriptor(0));
            }
            libc::SYS_syncfs => self.files.clear(),
            libc::SYS_rename => self.rename(&PathBuf::from(call.text(0)), &PathBuf::from(call.text(1)), wanted),
            libc::SYS_renameat | libc::SYS_renameat2 => self.rename(&call.path(0, 1), &call.path(2, 3), wanted),
            _ => {}
        }
    }

    fn rename(&mut self, from: &Path, to: &Path, wanted: &impl Fn(&Path) -> bool) {
        let moved: Vec<PathBuf> = self.files.iter().filter(|file| file.starts_with(from)).cloned().collect();
        if wanted(to) {
            self.renames += 1;
            self.wrong.extend(moved.iter().map(|file| format!("{} as {}", file.display(), to.display())));
        }
        for file in moved {
            self.files.remove(&file);
            self.files.insert(file.strip_prefix(from).map_or_else(|_| to.into(), |rest| to.join(rest)));
        }
    }
}

/// Every file that a command renames to its final name was synced before.
#[track_caller]
fn is_synced(podctl: &Podctl, words: &[&str], wanted: impl Fn(&Path) -> bool) {
    let mut unsynced = Unsynced::default();
    let ended = tracer::watch(&podctl.command(words), |call| unsynced.look(call, &wanted));
    assert_eq!(ended, Traced::Ended(0), "{words:?}");
    assert!(unsynced.renames > 0, "{words:?} renames nothing");
    assert!(unsynced.wrong.is_empty(), "{words:?}: not synced: {:#?}", unsynced.wrong);
}

fn what_appears_has_been_synced(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let data = podctl.data.clone();
    let root = t.dir.join("root");
    fs::create_dir_all(root.join("bin"))?;
    fs::write(root.join("bin/app"), "an app")?;
    let root = root.display().to_string();
    let in_store = |to: &Path| to.starts_with(&data) && !to.starts_with(data.join("tmp"));
    is_synced(&podctl, &["image", "import", &root, "--name", "example.com/a"], in_store);
    let words = ["prepare", "--net=none", "probe", "--name=a", "--exec=/probe", "--", "exit", "0"];
    is_synced(&podctl, &words, |to| to.starts_with(data.join("pods/prepared")));
    let manifest = pod.dir().join("pod");
    is_synced(&podctl, &["app", "add", &pod.uuid, "probe", "--name=a"], |to| to == manifest);
    is_synced(&podctl, &["app", "rm", &pod.uuid, "a"], |to| to == manifest);
    pod.end();
    podctl.ok(&["gc", "--expire-prepared=0s"]);
    Ok(())
}

/// A small file system, with a file that takes up the rest of the space.
struct Small {
    at: PathBuf,
}

/// A file system of this size, and podctl with its data directory on it.
fn on_little_room(t: &Context, size: &str) -> (Small, Podctl) {
    let small = Small::new(&t.dir.join("small"), size);
    let podctl = Podctl::new(&dist().join("podctl"), &small.at.join("data"), &t.dir);
    (small, podctl)
}

impl Small {
    fn new(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).expect("mkdir");
        let options = format!("size={size}");
        mount(Some("none"), at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).expect("mount a tmpfs");
        Self { at: at.to_owned() }
    }

    /// Takes up every byte and every inode.
    fn fill_up(&self) {
        self.fill(0);
        let dir = self.at.join("inodes");
        fs::create_dir_all(&dir).ok();
        (0..).take_while(|n| File::create(dir.join(format!("{n}"))).is_ok()).last();
        assert!(fs::write(self.at.join("more"), "x").is_err(), "there is room left");
    }

    /// Leaves this many KiB free.
    fn fill(&self, but: usize) {
        let path = self.at.join("filler");
        let mut file = File::create(&path).expect("create a filler");
        let chunk = [1; 4096];
        while file.write_all(&chunk).is_ok() {}
        let size = file.metadata().expect("stat").len();
        file.set_len(size.saturating_sub(but as u64 * 1024)).expect("truncate");
    }

    fn make_room(&self) {
        fs::remove_file(self.at.join("filler")).expect("rm the filler");
        match fs::remove_dir_all(self.at.join("inodes")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("rm inodes: {error}"),
            _ => {}
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if let Err(errno) = umount2(&self.at, MntFlags::empty()) {
            eprintln!("umount {}: {errno}", self.at.display());
        }
    }
}

#[track_caller]
fn says_no_room(line: &str) {
    // The error of the kernel, or of podctl, which keeps some space free.
    assert!(line.to_lowercase().contains("no space left"), "{line}");
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, Iterator::count)
}

fn no_room_for_an_image(t: &Context) -> Verdict {
    let (small, podctl) = on_little_room(t, "4m");
    let root = t.dir.join("root");
    fs::create_dir_all(&root)?;
    fs::write(root.join("file"), vec![7; 1 << 20])?;
    let import = ["image", "import", root.to_str().unwrap_or_default(), "--name", "example.com/a"];
    // No space for the archive; for the tree; for the tree's list and record.
    for room in [0, 512, 1100, 1500, 2056] {
        small.fill(room);
        says_no_room(&podctl.fails(&import));
        assert_eq!(podctl.json(&["image", "list", "--format=json"]).as_array().map(Vec::len), Some(0));
        podctl.ok(&["image", "verify"]);
        assert_eq!(entries(&podctl.data.join("tmp")), 0, "room for {room} KiB");
        small.make_room();
    }
    podctl.ok(&import);
    podctl.ok(&["image", "verify"]);
    Ok(())
}

fn no_room_for_a_pod(t: &Context) -> Verdict {
    let (small, podctl) = on_little_room(t, "96m");
    small.fill(8192);
    // No space for the stage1 image.
    says_no_room(&podctl.fails(&["sandbox", "--net=none"]));
    small.make_room();
    podctl.sandbox(&["--net=none"]).end();
    for room in [0, 4, 12, 24, 512] {
        small.fill(room);
        let made = podctl.run(&["sandbox", "--net=none"]);
        if made.code == Some(0) {
            podctl.ok(&["stop", made.stdout.trim()]);
            podctl.ok(&["rm", made.stdout.trim()]);
        } else {
            assert!(room < 512, "there was room for a pod: {made}");
            says_no_room(&made.complaint());
        }
        podctl.ok(&["list"]);
        let left: usize = ["embryo", "prepare", "prepared", "run", "exited-garbage", "garbage"]
            .iter()
            .map(|phase| entries(&podctl.data.join("pods").join(phase)))
            .sum();
        assert_eq!(left, 0, "room for {room} KiB");
        small.make_room();
    }
    podctl.sandbox(&["--net=none"]).end();
    Ok(())
}

fn no_room_for_an_end(t: &Context) -> Verdict {
    let (small, podctl) = on_little_room(t, "96m,nr_inodes=4000");
    let pod = podctl.pod(&["--net=none"]);
    let out = podctl.out();
    let ends: [(&str, &[&str], i64); 4] = [
        ("plain", &["exit", "7"], 7),
        ("fine", &["exit", "0"], 0),
        ("killed", &["signal", "SIGSEGV"], 139),
        ("told", &["orderly", "9"], 9),
    ];
    for round in ["first", "again"] {
        for (app, end, _) in ends {
            if round == "first" {
                let up = format!("/out/{app}");
                pod.add(app, &[], &[&["write", &up, "x", "+", "wait", "/out/go", "+"], end].concat());
            }
            pod.app("start", app, &[]).ok();
            wait_for("the app", 10, || out.join(app).exists().then_some(()));
        }
        // An app that is restarted again and again on a full disk.
        pod.add("loops", &["--restart=always"], &["exit", "3"]);
        pod.app("start", "loops", &[]).ok();
        small.fill_up();
        fs::write(out.join("go"), "")?;
        pod.app("stop", "told", &[]).ok();
        let as_it_was = |when: &str| {
            for (app, _, code) in ends {
                assert_eq!(pod.exit_code(app), code, "{app}, {when}, {round}: {}", pod.status(app));
            }
            assert_eq!(pod.status("killed")["exit_signal"], "SIGSEGV", "{when}");
        };
        as_it_was("while the disk is full");
        pod.app("stop", "loops", &[]).ok();
        assert_eq!(pod.exit_code("loops"), 3, "{}", pod.status("loops"));
        small.make_room();
        as_it_was("when there is room");
        fs::remove_file(out.join("go"))?;
        for (app, ..) in ends {
            fs::remove_file(out.join(app))?;
        }
        pod.app("rm", "loops", &[]).ok();
    }
    for (app, ..) in ends {
        pod.app("rm", app, &[]).ok();
    }
    assert_eq!(entries(&pod.dir().join("stage1/rootfs/rkt/status")), 0, "files of removed apps are left");
    pod.end();
    Ok(())
}

fn no_room_for_the_end_of_an_immutable_pod(t: &Context) -> Verdict {
    let (small, podctl) = on_little_room(t, "96m,nr_inodes=4000");
    podctl.import_probe();
    let out = podctl.out();
    fs::create_dir_all(&out)?;
    let volume = format!("--volume=out,kind=host,source={}", out.display());
    let words = ["run", "--net=none", &volume, "probe", "--name=a", "--mount=volume=out,target=/out", "--exec=/probe"];
    let actions = ["--", "write", "/out/up", "x", "+", "wait", "/out/go", "+", "exit", "7"];
    let pod = std::thread::scope(|scope| {
        let running = scope.spawn(|| podctl.run(&[&words[..], &actions].concat()));
        wait_for("the app", 20, || out.join("up").exists().then_some(()));
        small.fill_up();
        fs::write(out.join("go"), "").expect("write go");
        let ended = running.join().expect("run");
        assert_eq!(ended.code, Some(7), "{ended}");
        podctl.json(&["list", "--format=json"])[0].clone()
    });
    let uuid = pod["name"].as_str().unwrap_or_default();
    let code = || podctl.json(&["status", uuid, "--format=json"])["apps"][0]["exit_code"].clone();
    assert_eq!(code(), 7);
    small.make_room();
    assert_eq!(code(), 7);
    podctl.ok(&["rm", uuid]);
    Ok(())
}

fn no_room_for_a_removal(t: &Context) -> Verdict {
    let (small, podctl) = on_little_room(t, "96m,nr_inodes=4000");
    let pod = podctl.pod(&["--net=none"]);
    pod.add("a", &[], &["exit", "7"]);
    pod.app("start", "a", &[]).ok();
    assert_eq!(pod.exit_code("a"), 7);
    small.fill_up();
    pod.app("rm", "a", &[]).ok();
    assert!(pod.manifest_apps().is_empty());
    small.make_room();
    pod.run_app("a", &[], &["exit", "0"]);
    pod.end();
    Ok(())
}

fn no_room_for_an_app(t: &Context) -> Verdict {
    let (small, podctl) = on_little_room(t, "96m");
    let pod = podctl.pod(&["--net=none"]);
    pod.run_app("a", &[], &["exit", "0"]);
    for room in [0, 4, 8, 16, 24] {
        small.fill(room);
        let added = pod.try_add("probe", "a", &[], &["orderly", "7"]);
        if added.code != Some(0) {
            added.complaint();
            assert!(pod.manifest_apps().is_empty(), "room for {room} KiB");
            podctl.ok(&["app", "list", &pod.uuid]);
        } else {
            pod.app("rm", "a", &[]).ok();
        }
        small.make_room();
        pod.run_app("a", &[], &["exit", "0"]);
    }
    // An app that ends without space for its exit status.
    pod.add("a", &[], &["write", "/out/up", "x", "+", "orderly", "7"]);
    pod.app("start", "a", &[]).ok();
    wait_for("the app", 10, || podctl.out().join("up").exists().then_some(()));
    small.fill(0);
    pod.app("stop", "a", &[]).ok();
    podctl.ok(&["app", "list", &pod.uuid]);
    assert_eq!(pod.exit_code("a"), 7);
    small.make_room();
    pod.app("stop", "a", &[]).ok();
    assert_eq!(pod.exit_code("a"), 7);
    pod.app("rm", "a", &[]).ok();
    pod.run_app("a", &[], &["exit", "0"]);
    pod.end();
    Ok(())
}
