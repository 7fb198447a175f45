//! The commands in the README and the pages in docs work as they are written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tests::harness::Context;
use tests::process::run;
use tests::{Verdict, dist, source};

tests::cases! {
    native its_commands_work 600;
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

/// Scripts that would run this test again, or build what other tests use: only check that they exist.
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

/// The pages of docs that have commands, by name.
fn pages() -> std::io::Result<Vec<PathBuf>> {
    let mut pages = fs::read_dir(source().join("docs"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    Ok(pages)
}

/// Links to files of this repository exist.
fn links_lead_somewhere(page: &Path, text: &str) {
    for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        let file = page.parent().expect("a folder").join(link.split('#').next().unwrap_or(link));
        assert!(link.starts_with("https://") || file.exists(), "{} links to {link}", page.display());
    }
}

fn its_commands_work(t: &Context) -> Verdict {
    let readme = source().join("README.md");
    let typed = commands(&fs::read_to_string(&readme)?);
    for wanted in ["scripts/demo", "scripts/test", "podctl "] {
        assert!(typed.contains(wanted), "no shell block of the README has {wanted}");
    }
    // podctl's default directory exists, but is this test's.
    let data = t.dir.join("data");
    fs::create_dir(&data)?;
    let usual = Path::new("/var/lib/podctl");
    let made = !usual.exists();
    fs::create_dir_all(usual)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    mount(Some(&data), usual, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let path = format!("{}:{}", dist().display(), std::env::var("PATH").unwrap_or_default());
    let mut with_commands = 0;
    // The README first: the pages use the image that it imports.
    for page in [readme].into_iter().chain(pages()?) {
        let text = fs::read_to_string(&page).map_err(|e| format!("{}: {e}", page.display()))?;
        links_lead_somewhere(&page, &text);
        let script: Vec<String> = commands(&text).lines().map(adapted).collect();
        with_commands += usize::from(script.iter().any(|line| line.contains("podctl ")));
        let script = format!("sudo() {{ \"$@\"; }}\nset -eu\n{}\n", script.join("\n"));
        let out = run(Command::new("bash").args(["-c", &script]).env("PATH", &path).current_dir(source()));
        assert!(out.code == Some(0), "{}: {out}", page.display());
        let left = run(Command::new("podctl").arg("list").args(["--format", "json"]).env("PATH", &path)).ok();
        assert_eq!(left.trim(), "[]", "{} leaves pods", page.display());
    }
    assert!(with_commands > 5, "{with_commands} pages have commands");
    for page in ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| source().join(name)) {
        links_lead_somewhere(&page, &fs::read_to_string(&page).map_err(|e| format!("{}: {e}", page.display()))?);
    }
    nix::mount::umount2(usual, nix::mount::MntFlags::MNT_DETACH)?;
    if made {
        fs::remove_dir(usual)?;
    }
    Ok(())
}
