//! What the README tells one to type works as it stands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tests::harness::Context;
use tests::process::run;
use tests::{Verdict, dist, source};

tests::cases! {
    native its_commands_work 180;
}

/// The shell blocks, in order, as one text.
fn commands(readme: &str) -> String {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in readme.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => lines.push(line),
            _ => {}
        }
    }
    lines.join("\n")
}

/// Scripts that would run this test again, or build what other tests are using, are looked at instead.
fn adapted(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().filter(|w| *w != "sudo").collect();
    match words.as_slice() {
        ["git", "clone", ..] | ["cd", ..] => String::new(),
        [script @ ("scripts/test" | "scripts/build" | ".ci/run"), ..] => {
            let runs = fs::metadata(source().join(script)).is_ok_and(|m| m.permissions().mode() & 0o111 != 0);
            assert!(runs, "the README names {script}, which can't be run");
            String::new()
        }
        ["scripts/demo"] => "scripts/demo --no-build".into(),
        _ => line.to_owned(),
    }
}

fn its_commands_work(t: &Context) -> Verdict {
    let readme = source().join("README.md");
    let text = fs::read_to_string(&readme).map_err(|e| format!("{}: {e}", readme.display()))?;
    let typed = commands(&text);
    for wanted in ["scripts/demo", "scripts/test", "podctl "] {
        assert!(typed.contains(wanted), "no shell block of the README has {wanted}");
    }
    let script: Vec<String> = typed.lines().map(adapted).collect();
    let script = format!("sudo() {{ \"$@\"; }}\nset -eu\n{}\n", script.join("\n"));

    // podctl's own default directory is there, but it is this test's.
    let data = t.dir.join("data");
    fs::create_dir(&data)?;
    let usual = Path::new("/var/lib/podctl");
    let made = !usual.exists();
    fs::create_dir_all(usual)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some(&data), usual, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let path = format!("{}:{}", dist().display(), std::env::var("PATH").unwrap_or_default());
    let out = run(Command::new("bash").args(["-c", &script]).env("PATH", path).current_dir(source()));
    assert!(out.code == Some(0), "{out}");
    nix::mount::umount2(usual, nix::mount::MntFlags::MNT_DETACH)?;
    if made {
        fs::remove_dir(usual)?;
    }
    Ok(())
}
