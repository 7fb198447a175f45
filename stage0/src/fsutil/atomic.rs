//! Atomic writes: a file is written under a temporary name in the same directory, then renamed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, openat, renameat};
use stage1::error::{Context, Result};
use stage1::pod::{Directory, remove_if_there, write_atomic};

use crate::fsutil::remove;

/// Replaces the file `path` atomically, with the permissions `mode`. It survives a power cut once its directory is
/// synced.
///
/// # Errors
/// `path` has no UTF-8 file name, or the file can't be written.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).context(|| format!("{path:?} names no file"))?;
    write_atomic(Directory::Trusted(path.parent().unwrap_or(Path::new(""))), name, bytes, mode)
}

/// Metadata of a file that [`replace`] writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    /// Permissions, not reduced by the umask.
    pub(crate) mode: u32,
    /// UID and GID; those of this process if `None`.
    pub(crate) owner: Option<(u32, u32)>,
    /// Whether to fsync(2) it: then it survives a power cut once its directory is synced.
    pub(crate) synced: bool,
}

/// Replaces the file `name` of an open directory atomically. The caller must hold a lock: concurrent writers would use
/// the same [`temporary_name`].
///
/// # Errors
/// The file can't be written; the old file is unchanged then, and the temporary one removed.
pub(crate) fn replace(dir: impl AsFd, name: &OsStr, bytes: &[u8], attributes: Attributes) -> Result<()> {
    let dir = dir.as_fd();
    let temporary = temporary_name(name);
    // a killed writer may have left it
    remove::file(dir, &temporary)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, &temporary, flags, Mode::RUSR | Mode::WUSR).context(|| format!("create {temporary:?}"))?;
    let written = fill(file.into(), bytes, attributes)
        .and_then(|()| renameat(dir, &temporary, dir, name).context(|| format!("rename {temporary:?} to {name:?}")));
    written.or_else(|error| remove::file(dir, &temporary).and(Err(error)))
}

/// Replaces the symbolic link `name` of a directory atomically. The caller must hold a lock, as for [`replace`].
///
/// # Errors
/// The link can't be made; the old link is unchanged then.
pub(crate) fn replace_link(dir: &Path, name: &str, target: &str) -> Result<()> {
    let (new, link) = (dir.join(".new"), dir.join(name));
    // a killed writer may have left it
    remove_if_there(&new)?;
    std::os::unix::fs::symlink(target, &new).context(|| format!("symlink {new:?}"))?;
    std::fs::rename(&new, &link).context(|| format!("rename {new:?} to {link:?}"))
}

/// The name that [`replace`] writes to before it renames. It can't be an app's name, which has no dot.
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
