//! Files that appear whole, or not at all: written beside their place, then renamed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, openat, renameat};
use stage1::error::{Context, Error, Result};
use stage1::pod::{Directory, remove_if_there, write_atomic};

use crate::fsutil::remove;

/// Writes a file with these permissions: it is never half there, and survives a power cut once its directory is synced.
///
/// # Errors
/// `path` names no file, or it can't be written.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).context(|| format!("{path:?} names no file"))?;
    write_atomic(Directory::Trusted(path.parent().unwrap_or(Path::new(""))), name, bytes, mode)
}

/// Writes a file for a person, which appears whole and on disk. One that is there is only replaced if `overwrite` is set.
///
/// # Errors
/// The file is there, or it can't be written; nothing is left of it then.
pub(crate) fn write_file(path: &Path, overwrite: bool, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let shown = || format!("write {path:?}");
    if !overwrite && path.symlink_metadata().is_ok() {
        return Err(Error::new(format!("{path:?} exists: --overwrite replaces it")));
    }
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = directory.join(format!(".podctl-export-{}", uuid::Uuid::new_v4()));
    let written = File::create_new(&temporary).context(shown).and_then(|file| {
        write(&file)?;
        file.sync_all().context(shown)?;
        std::fs::rename(&temporary, path).context(shown)
    });
    match written {
        Err(error) if temporary.exists() => {
            std::fs::remove_file(&temporary).context(|| format!("remove {temporary:?}"))?;
            Err(error)
        }
        written => written,
    }
}

/// What a file is to be besides its content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    /// Permissions, whatever the umask is.
    pub(crate) mode: u32,
    /// User and group; this process's if not set.
    pub(crate) owner: Option<(u32, u32)>,
    /// Whether it survives a power cut once its directory is synced.
    pub(crate) synced: bool,
}

/// Replaces the file `name` of an open directory. The caller holds a lock: two writers at once would meet at
/// [`temporary_name`].
///
/// # Errors
/// It can't be written; the old file is then still there, and no other one.
pub(crate) fn replace(dir: impl AsFd, name: &OsStr, bytes: &[u8], attributes: Attributes) -> Result<()> {
    let dir = dir.as_fd();
    let temporary = temporary_name(name);
    // left by a write that was killed
    remove::file(dir, &temporary)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, &temporary, flags, Mode::RUSR | Mode::WUSR).context(|| format!("create {temporary:?}"))?;
    let written = fill(file.into(), bytes, attributes)
        .and_then(|()| renameat(dir, &temporary, dir, name).context(|| format!("rename {temporary:?} to {name:?}")));
    written.or_else(|error| remove::file(dir, &temporary).and(Err(error)))
}

/// Replaces the symbolic link `name` of a directory. The caller holds a lock, as for [`replace`].
///
/// # Errors
/// It can't be made; the old link is then still there.
pub(crate) fn replace_link(dir: &Path, name: &str, target: &str) -> Result<()> {
    let (new, link) = (dir.join(".new"), dir.join(name));
    // left by one that was killed
    remove_if_there(&new)?;
    std::os::unix::fs::symlink(target, &new).context(|| format!("symlink {new:?}"))?;
    std::fs::rename(&new, &link).context(|| format!("rename {new:?} to {link:?}"))
}

/// What [`replace`] calls a file until it is whole; no app's name has a dot.
pub(crate) fn temporary_name(name: &OsStr) -> OsString {
    let mut temporary = name.to_owned();
    temporary.push(".new");
    temporary
}

fn fill(mut file: File, bytes: &[u8], attributes: Attributes) -> Result<()> {
    if let Some((uid, gid)) = attributes.owner {
        fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .context(|| format!("fchown to {uid}:{gid}"))?;
    }
    fchmod(&file, Mode::from_raw_mode(attributes.mode)).context(|| "fchmod")?;
    file.write_all(bytes).context(|| "write")?;
    if attributes.synced { file.sync_all().context(|| "fsync") } else { Ok(()) }
}
