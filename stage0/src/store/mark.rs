//! Recognising a store: a directory that has the mark file, or only entries that a store of an earlier version has.
//!
//! podctl removes files all over its store, so it must never take another directory, such as a home, for one.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use stage1::error::{Context, Error, Result};
use stage1::pod::Phase;

use crate::fsutil::dir::{PRIVATE, make_dir, names_in, sync_dir};

/// The name of the mark file.
const MARK: &str = "podctl-store";
/// The content of the mark file, for people.
const TEXT: &[u8] = b"This directory is podctl's: it makes, changes and removes what is in it.\n";
/// All entries that a store of an earlier version, which wrote no mark, can have before its first image and pod.
const FIRST_FILES: [&str; 7] = ["images.lck", "users.lck", "tmp", "images", "names", "trees", "pods"];

/// What a directory is, as far as the store is concerned.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Missing,
    Empty,
    Marked,
    /// A store made by an earlier version of podctl, or by another host manager with the same layout.
    Unmarked,
}

/// Fails unless the directory is a store, is empty or is missing.
///
/// # Errors
/// The path is not a directory, the directory holds other files, or it can't be read.
pub(super) fn check(dir: &Path) -> Result<()> {
    look(dir).map(drop)
}

/// Makes the directory if it is missing, closes it to other users, and writes the mark file; does nothing if it is
/// marked already.
///
/// # Errors
/// The directory or the mark can't be made, or [`check`] fails.
pub(super) fn set(dir: &Path) -> Result<()> {
    let found = look(dir)?;
    match found {
        Found::Marked => return Ok(()),
        Found::Missing => {
            if let Some(above) = dir.parent() {
                make_dir(above, 0o755)?;
            }
            match DirBuilder::new().mode(PRIVATE).create(dir) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::caused_by(format!("make directory {dir:?}"), error));
                }
                _ => {}
            }
        }
        Found::Empty | Found::Unmarked => {}
    }
    let marked = mark(dir);
    match marked {
        // a full disk must not keep users from stopping and removing pods of an earlier version's store
        Err(error) if found == Found::Unmarked => {
            log::debug!("{}", error.one_line());
            Ok(())
        }
        other => other,
    }
}

fn mark(dir: &Path) -> Result<()> {
    std::fs::set_permissions(dir, Permissions::from_mode(PRIVATE)).context(|| format!("chmod({dir:?})"))?;
    let path = dir.join(MARK);
    match File::options().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => file.write_all(TEXT).context(|| format!("write {path:?}"))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::caused_by(format!("create {path:?}"), error)),
    }
    sync_dir(dir)
}

fn look(dir: &Path) -> Result<Found> {
    match dir.metadata() {
        Ok(stat) if stat.is_dir() => {}
        Ok(_) => return Err(Error::new(format!("{dir:?} is not a directory; --dir names the data directory"))),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(Error::caused_by(format!("stat {dir:?}"), error)),
    }
    let names = names_in(dir)?;
    let has = |name: &str| names.iter().any(|other| other == name);
    if has(MARK) {
        return Ok(Found::Marked);
    }
    // mkfs makes lost+found
    let others: Vec<&OsString> = names.iter().filter(|name| *name != "lost+found").collect();
    let Some(first) = others.first() else { return Ok(Found::Empty) };
    let phases = Phase::ALL.map(Phase::dir);
    let only_first_files = |name: &&OsString| FIRST_FILES.iter().any(|file| *name == file);
    if holds(&dir.join("pods"), |name| phases.contains(&name))?
        || holds(&dir.join("images"), is_image)?
        || (has("images.lck") && others.iter().all(only_first_files))
    {
        return Ok(Found::Unmarked);
    }
    Err(Error::new(format!(
        "{dir:?} is not a data directory of podctl: it holds {first:?}{}, but no {MARK:?}; name a new or empty directory \
         with --dir",
        match others.len() {
            1 => String::new(),
            more => format!(" and {} more", more - 1),
        }
    )))
}

fn is_image(name: &str) -> bool {
    (name.starts_with("sha512-") && name.len() == 135) || (name.starts_with("sha256-") && name.len() == 71)
}

/// Whether `dir` is a directory with at least one entry, and `such` accepts the names of all of them.
fn holds(dir: &Path, such: impl Fn(&str) -> bool) -> Result<bool> {
    match dir.symlink_metadata() {
        Ok(stat) if stat.is_dir() => {}
        _ => return Ok(false),
    }
    let names = names_in(dir)?;
    Ok(!names.is_empty() && names.iter().all(|name| name.to_str().is_some_and(&such)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_directories_are_not_taken_for_stores() {
        let base = tempfile::tempdir().unwrap();
        let dir = |name: &str, inside: &[&str]| {
            let dir = base.path().join(name);
            inside.iter().for_each(|path| std::fs::create_dir_all(dir.join(path)).unwrap());
            dir
        };
        assert_eq!(look(&base.path().join("none")).unwrap(), Found::Missing);
        let image = format!("images/sha512-{}", "a".repeat(128));
        for inside in [&["pods/run", "pods/garbage", "x"][..], &[&image, "x"], &["images.lck", "tmp/x"]] {
            let old = dir("old", inside);
            assert_eq!(look(&old).unwrap(), Found::Unmarked, "{inside:?}");
            set(&old).unwrap();
            assert_eq!(look(&old).unwrap(), Found::Marked, "{inside:?}");
            std::fs::remove_dir_all(&old).unwrap();
        }
        let new = dir("new", &["lost+found"]);
        assert_eq!(look(&new).unwrap(), Found::Empty);
        set(&new).unwrap();
        set(&new).unwrap();

        for inside in [&["tmp/precious"][..], &["pods/mine"], &["pods"], &["images/cat.jpg", "tmp"]] {
            let home = dir("home", inside);
            for result in [check(&home), set(&home)] {
                let error = result.unwrap_err().one_line();
                assert!(error.contains("is not a data directory of podctl") && error.contains("--dir"), "{error}");
            }
            assert!(!home.join(MARK).exists());
            std::fs::remove_dir_all(&home).unwrap();
        }
    }
}
