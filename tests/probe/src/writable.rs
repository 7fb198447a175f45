//! What can be opened for writing: every file below some directories is tried, none is written to.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The files below `dirs` that open for writing, sorted. Of the processes in /proc only this one is looked at, as
/// `/proc/PID`, with its first thread as `task/TID`.
pub fn below(dirs: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    dirs.iter().for_each(|dir| walk(Path::new(dir), dir, &mut found));
    found.sort();
    found
}

fn walk(dir: &Path, shown: &str, found: &mut Vec<String>) {
    let own = std::process::id().to_string();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_number = name.bytes().all(|b| b.is_ascii_digit());
        let word = match shown {
            "/proc" if is_number && name != own => continue,
            "/proc" if is_number => "PID",
            "/proc/PID/task" => "TID",
            _ => &name,
        };
        let shown = format!("{shown}/{word}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), &shown, found),
            Ok(kind) if kind.is_symlink() => {}
            _ if opens(&entry.path()) => found.push(shown),
            _ => {}
        }
    }
}

fn opens(path: &Path) -> bool {
    OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY).open(path).is_ok()
}
