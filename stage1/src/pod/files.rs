//! Reading and replacing files with care.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};

use crate::error::{Context, Error, Result};
use crate::sys::dir;

/// Reads a regular file of at most `limit` bytes.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let describe = || format!("read {path:?}");
    let fd =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).context(describe)?;
    read_regular(fd, limit).context(describe)
}

/// Reads `name` below the directory `base`, no component of which may be a link: for places that
/// something less trusted can write. `None` if it does not exist.
pub(super) fn read_beneath(base: &OwnedFd, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    match dir::open_beneath(base, name, OFlags::RDONLY | OFlags::NONBLOCK) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        fd => read_regular(fd?, limit).context(|| format!("read {name:?}")).map(Some),
    }
}

fn read_regular(fd: OwnedFd, limit: u64) -> Result<Vec<u8>> {
    let stat = rustix::fs::fstat(&fd).context(|| "fstat")?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::new("not a regular file"));
    }
    let mut text = Vec::new();
    File::from(fd).take(limit + 1).read_to_end(&mut text).context(|| "read")?;
    if text.len() as u64 > limit {
        return Err(Error::new(format!("longer than {limit} bytes")));
    }
    Ok(text)
}

/// Replaces the file `name` in the directory `dir` at once: a temporary file beside it, synced,
/// renamed. An existing file's mode and owner are kept, a new one gets `mode`.
pub fn write_atomic(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let describe = || format!("write {:?}", dir.join(name));
    let fd = dir::open_dir(dir).context(describe)?;
    let temporary = format!(".{name}.{}", std::process::id());
    let written = write_new(&fd, &temporary, name, bytes, mode)
        .and_then(|()| rustix::fs::renameat(&fd, &temporary, &fd, name).context(|| "rename"));
    if let Err(error) = written {
        return match rustix::fs::unlinkat(&fd, &temporary, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Err(error),
            Err(errno) => Err(error).context(|| format!("{temporary:?} is left behind ({errno})")),
        }
        .context(describe);
    }
    Ok(())
}

fn write_new(dir: &OwnedFd, temporary: &str, name: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(dir, temporary, flags, Mode::from_raw_mode(mode & 0o700));
    let file = match open() {
        // Left by a process with our PID that was killed: nobody else's, so it goes.
        Err(rustix::io::Errno::EXIST) => {
            rustix::fs::unlinkat(dir, temporary, AtFlags::empty()).context(|| format!("remove {temporary:?}"))?;
            open()
        }
        other => other,
    }
    .context(|| format!("create {temporary:?}"))?;
    let mut file = File::from(file);
    file.write_all(bytes).context(|| "write")?;
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(old) if FileType::from_raw_mode(old.st_mode) == FileType::RegularFile => {
            rustix::fs::fchown(&file, Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)))
                .context(|| "fchown")?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(old.st_mode & 0o7777)).context(|| "fchmod")?;
        }
        Ok(_) | Err(rustix::io::Errno::NOENT) => {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).context(|| "fchmod")?;
        }
        Err(errno) => return Err(errno).context(|| format!("stat {name:?}")),
    }
    file.sync_all().context(|| "fsync")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn replacing_keeps_the_mode_and_leaves_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        write_atomic(tmp.path(), "pod", b"one", 0o640).unwrap();
        let mode = || std::fs::metadata(tmp.path().join("pod")).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o640);
        std::fs::set_permissions(tmp.path().join("pod"), PermissionsExt::from_mode(0o600)).unwrap();
        write_atomic(tmp.path(), "pod", b"two", 0o640).unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(std::fs::read(tmp.path().join("pod")).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 1);
        std::fs::create_dir(tmp.path().join("dir")).unwrap();
        assert!(write_atomic(tmp.path(), "dir", b"x", 0o644).is_err());
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_regular_files_of_a_bounded_size() {
        let tmp = tempfile::tempdir().unwrap();
        let base = dir::open_dir(tmp.path()).unwrap();
        std::fs::write(tmp.path().join("f"), "12345").unwrap();
        symlink("f", tmp.path().join("link")).unwrap();
        rustix::fs::mknodat(&base, "fifo", FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(read_beneath(&base, "f", 5).unwrap().unwrap(), b"12345");
        assert!(read_beneath(&base, "f", 4).is_err());
        assert!(read_beneath(&base, "link", 5).is_err());
        assert!(read_beneath(&base, "fifo", 5).is_err());
        assert!(read_beneath(&base, "none", 5).unwrap().is_none());
    }
}
