//! The harness detects what it must detect.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use tests::Verdict;
use tests::harness::Context;
use tests::process::{all, mountinfo, patience, run};

tests::cases! {
    both leaks_and_failures_are_noticed;
    both a_mount_left_behind_is_noticed;
}

/// Tests that must fail; only the tests above run them.
pub const DECOYS: &[tests::harness::Case] = {
    tests::cases! {
        native leaves_a_process;
        native leaves_a_mount;
        native leaves_a_cgroup;
        native panics;
        native gives_an_error;
        native never_ends 1;
    }
    CASES
};

/// The name of a pod that never existed, another one for each layout, as both may be tested at once.
fn pod() -> String {
    format!("00000000-0000-4000-8000-0000000000{}", layout())
}

/// How long the orphan sleeps; another time for each layout, likewise.
fn nap() -> String {
    layout().replace('v', "3141592")
}

fn leaves_a_process(_: &Context) -> Verdict {
    // The parent ends at once: an orphan, in its own session.
    let started = Command::new("setsid").args(["-f", "sleep", &nap()]).stdout(Stdio::null()).status()?;
    assert!(started.success());
    Ok(())
}

fn leaves_a_mount(t: &Context) -> Verdict {
    let at = t.dir.join("mounted");
    fs::create_dir(&at)?;
    mount(Some("none"), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    Ok(())
}

fn leaves_a_cgroup(t: &Context) -> Verdict {
    fs::create_dir_all(t.dir.join("data/pods/run").join(pod()))?;
    fs::create_dir_all(some_hierarchy().join("pods").join(pod()))?;
    Ok(())
}

fn some_hierarchy() -> &'static Path {
    ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].iter().map(Path::new).find(|p| p.exists()).expect("a cgroup hierarchy")
}

fn panics(_: &Context) -> Verdict {
    panic!("out of cheese");
}

fn gives_an_error(_: &Context) -> Verdict {
    Err("not a number".into())
}

fn never_ends(_: &Context) -> Verdict {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

fn verdict(decoy: &str) -> String {
    let me = std::env::current_exe().expect("current_exe");
    let out = run(Command::new(me).args(["--warden", &format!("{}::harness::{decoy}", layout())]));
    assert_eq!(out.code, Some(1), "{out}");
    out.stderr
}

fn layout() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1" }
}

fn leaks_and_failures_are_noticed(_: &Context) -> Verdict {
    let said = verdict("leaves_a_process");
    assert!(said.contains("left behind") && said.contains(&format!("sleep {}", nap())), "{said}");
    assert!(!all().iter().any(|p| p.words.contains(&nap())), "the orphan still runs");

    let said = verdict("leaves_a_cgroup");
    assert!(said.contains("left behind") && said.contains(&pod()), "{said}");
    assert!(!some_hierarchy().join("pods").join(pod()).exists(), "the cgroup is still there");

    let said = verdict("panics");
    assert!(said.contains("out of cheese"), "{said}");
    let said = verdict("gives_an_error");
    assert!(said.contains("not a number"), "{said}");
    let said = verdict("never_ends");
    let limit = format!("not done after {} s", patience());
    assert!(said.contains(&limit) && said.contains("--body"), "{said}");
    Ok(())
}

fn a_mount_left_behind_is_noticed(_: &Context) -> Verdict {
    let said = verdict("leaves_a_mount");
    assert!(said.contains("left behind") && said.contains("/mounted"), "{said}");
    let still = mountinfo("self").iter().any(|m| m[4].contains("leaves_a_mount"));
    assert!(!still, "the mount is still there");
    Ok(())
}
