//! The data directory: podctl's own, closed to other users, and never another program's directory.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Podctl;
use tests::process::{picture, run, wait_for};

tests::cases! {
    native a_directory_of_somebody_elses_is_left_alone;
    native looking_makes_nothing;
    native no_other_user_can_hold_a_lock;
    native an_import_leaves_room_and_no_rests;
    native an_interrupted_import_leaves_no_rests;
}

/// podctl with another data directory.
fn over(t: &Context, data: &Path) -> Podctl {
    let mut podctl = t.podctl();
    podctl.data = data.to_owned();
    podctl
}

fn a_directory_of_somebody_elses_is_left_alone(t: &Context) -> Verdict {
    let home = t.dir.join("home");
    fs::create_dir_all(home.join("tmp/work"))?;
    fs::write(home.join("tmp/work/precious"), "x")?;
    fs::write(home.join("notes"), "x")?;
    let before = picture(&home);
    let podctl = over(t, &home);
    let tree = t.dir.join("tree");
    fs::create_dir_all(&tree)?;
    let tree = tree.display().to_string();
    for words in [&["image", "import", &tree][..], &["sandbox"], &["image", "gc"], &["list"], &["gc"]] {
        let line = podctl.fails(words);
        assert!(line.contains("is not a data directory of podctl") && line.contains("--dir"), "{words:?}: {line}");
    }
    assert_eq!(picture(&home), before);

    // in its own store podctl does not touch files that it did not make
    let podctl = t.podctl();
    podctl.ok(&["image", "import", &tree, "--name", "x"]);
    let mine = podctl.data.join("tmp/mine");
    fs::create_dir(&mine)?;
    fs::write(mine.join("precious"), "x")?;
    podctl.ok(&["image", "import", &tree, "--name", "y"]);
    assert!(mine.join("precious").exists());
    Ok(())
}

fn looking_makes_nothing(t: &Context) -> Verdict {
    let missing = t.dir.join("no/such/store");
    let podctl = over(t, &missing);
    for words in [&["list"][..], &["image", "list"], &["image", "verify"], &["gc"]] {
        podctl.ok(words);
    }
    for words in [&["status", "1234"][..], &["logs", "1234"], &["image", "show", "x"], &["stop", "1234"]] {
        podctl.fails(words);
    }
    assert!(!t.dir.join("no").exists());
    Ok(())
}

fn no_other_user_can_hold_a_lock(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    // in the state that an earlier version left it in
    let lock = podctl.data.join("images.lck");
    for above in podctl.data.ancestors().filter(|above| above.starts_with(&t.dir)) {
        fs::set_permissions(above, fs::Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644))?;
    fs::remove_file(podctl.data.join("podctl-store"))?;
    pod.add("a", &[], &["exit", "0"]);

    let nobody = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).uid(65534).gid(65534).stdin(Stdio::null());
        run(&mut command).code
    };
    let files = [lock, podctl.data.clone(), podctl.data.join("users.lck"), pod.dir(), pod.dir().join("pod.lck")];
    for path in files.iter().filter(|path| path.exists()) {
        let path = path.display().to_string();
        assert_ne!(nobody(&["flock", "--nonblock", "--shared", &path, "true"]), Some(0), "{path}");
    }
    assert_eq!(fs::metadata(&podctl.data)?.permissions().mode() & 0o7777, 0o700);
    assert_eq!(fs::metadata(&files[0])?.permissions().mode() & 0o7777, 0o600);
    pod.end();
    Ok(())
}

/// A directory with one sparse file of this many bytes.
fn large(t: &Context, bytes: u64) -> Result<String, Box<dyn std::error::Error>> {
    let tree = t.dir.join("large");
    fs::create_dir_all(&tree)?;
    fs::File::create(tree.join("file"))?.set_len(bytes)?;
    Ok(tree.display().to_string())
}

fn an_import_leaves_room_and_no_rests(t: &Context) -> Verdict {
    let data = t.dir.join("data");
    fs::create_dir(&data)?;
    mount(Some("none"), &data, Some("tmpfs"), MsFlags::empty(), Some("size=60m,mode=0755"))?;
    let podctl = t.podctl();
    let line = podctl.fails(&["image", "import", &large(t, 100 << 20)?]);
    assert!(line.contains("no space left on the file system") && line.contains("reserved for running pods"), "{line}");
    assert_eq!(fs::read_dir(data.join("tmp"))?.count(), 0);
    assert_eq!(podctl.ok(&["image", "list", "--format=json"]), "[]");
    umount2(&data, MntFlags::MNT_DETACH)?;
    Ok(())
}

fn an_interrupted_import_leaves_no_rests(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let tree = large(t, 8 << 30)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut child = podctl.command(&["image", "import", &tree]).stderr(Stdio::piped()).spawn()?;
        let tmp = podctl.data.join("tmp");
        wait_for("the import to write", 30, || {
            let dir = fs::read_dir(&tmp).ok()?.flatten().next()?;
            let mut files = fs::read_dir(dir.path()).ok()?.flatten();
            files.find(|file| file.metadata().is_ok_and(|stat| stat.is_file() && stat.len() > 1 << 20))
        });
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        let status = child.wait()?;
        let mut line = String::new();
        child.stderr.take().ok_or("no stderr")?.read_to_string(&mut line)?;
        assert_eq!(status.signal(), Some(signal as i32), "{line}");
        assert!(line.contains(&format!("interrupted by {signal}")) && line.lines().count() == 1, "{line}");
        assert_eq!(fs::read_dir(&tmp)?.count(), 0);
    }
    Ok(())
}
