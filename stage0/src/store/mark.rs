//! Which directory is a store: one that says so by a file, or that has what only a store has.
//!
//! A store is swept and changed as a whole, so a directory of somebody else's is never taken for one.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use stage1::error::{Context, Error, Result};
use stage1::pod::Phase;

use crate::fsutil::dir::{PRIVATE, make_dir, names_in, sync_dir};

/// The file that says that a directory is a store.
const MARK: &str = "podctl-store";
/// What is in it, for people.
const TEXT: &[u8] = b"This directory is podctl's: it makes, changes and removes what is in it.\n";
/// All that a store of an earlier version, which has no mark, can have while it has no image and no pod.
const FIRST_FILES: [&str; 7] = ["images.lck", "users.lck", "tmp", "images", "names", "trees", "pods"];

/// What a directory is.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Missing,
    Empty,
    Marked,
    /// A store that another version, or another host manager of the family, has made.
    Unmarked,
}

/// Fails unless the directory is a store, or can become one.
///
/// # Errors
/// Something else is in it, or it can't be read.
pub(super) fn check(dir: &Path) -> Result<()> {
    look(dir).map(drop)
}

/// Makes the directory and marks it as a store, closed to others; nothing if it is marked already.
///
/// # Errors
/// It can't be made, or is something else.
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
        // on a full disk, too, what is in an earlier version's store can be stopped and removed
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
    // what a new file system has
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

/// Whether a directory is there and has entries, all of them such.
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
    fn stores_are_told_from_what_is_somebody_elses() {
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
