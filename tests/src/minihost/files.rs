//! Files, directories, locks and mounts as a host manager makes them. Any failure ends the test.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use serde_json::Value;

/// Mounts an overlay, with its directories as in the contract.
#[track_caller]
pub(super) fn overlay(lower: &Path, pair: &Path, app: &str, at: &Path) {
    let (upper, work) = (pair.join("upper").join(app), pair.join("work").join(app));
    make(&upper);
    make(&work);
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount(Some("overlay"), at, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .unwrap_or_else(|e| panic!("mount(overlay, {}): {e}", at.display()));
}

/// Shifts the owners of a directory and everything below it to the ids of a user namespace.
pub(super) fn shift_owners(path: &Path, shift: u32) {
    let shown = |e| -> ! { panic!("{}: {e}", path.display()) };
    let stat = fs::symlink_metadata(path).unwrap_or_else(|e| shown(e));
    lchown(path, Some(shift + stat.uid()), Some(shift + stat.gid())).unwrap_or_else(|e| shown(e));
    if stat.is_dir() {
        for entry in fs::read_dir(path).unwrap_or_else(|e| shown(e)) {
            shift_owners(&entry.unwrap_or_else(|e| shown(e)).path(), shift);
        }
    }
}

pub(super) fn make(dir: &Path) {
    fs::create_dir_all(dir).unwrap_or_else(|e| panic!("mkdir {}: {e}", dir.display()));
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
}

pub(super) fn remove(dir: &Path) {
    fs::remove_dir_all(dir).unwrap_or_else(|e| panic!("rm -r {}: {e}", dir.display()));
}

pub(super) fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

pub(super) fn replace(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    write(&fresh, text, 0o640);
    rename(&fresh, path);
}

pub(super) fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap_or_else(|e| panic!("rename {} to {}: {e}", from.display(), to.display()));
}

/// Changes the mtime of a directory, so that overlayfs copies it to the upper layer.
pub(super) fn touch(dir: &Path) {
    let now = std::time::SystemTime::now();
    File::open(dir).and_then(|d| d.set_modified(now)).unwrap_or_else(|e| panic!("touch {}: {e}", dir.display()));
}

pub(super) fn json_file(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Locks a file or directory until all descriptors of the returned file, also inherited ones, are closed.
pub(super) fn lock(path: &Path) -> File {
    let file = File::open(path).unwrap_or_else(|e| panic!("open {}: {e}", path.display()));
    file.lock().unwrap_or_else(|e| panic!("flock {}: {e}", path.display()));
    file
}
