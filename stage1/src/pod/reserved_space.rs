//! Disk space reserved in advance for a file that must be written even when the disk is full. Pod side.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::files::{Directory, Durable, write_atomic};
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::dir;

/// The space that is reserved, in bytes: one block.
const SIZE: u64 = 4096;

/// Reserves an inode and a block for one [`write_kept`] of the file `name` in the directory `dir`: fallocate(2). Space
/// that is reserved already is kept.
///
/// # Errors
/// The disk is full, or `dir` can't be written to.
pub fn keep(dir: &Path, name: &str) -> Result<()> {
    let room = layout::room(name);
    let describe = || format!("reserve space for {:?}", dir.join(name));
    let dir = dir::open_dir(dir).context(describe)?;
    let file = open(&dir, &room, OFlags::CREATE).context(describe)?;
    let kept = match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
        // The file system can't reserve blocks without writing them.
        Err(Errno::OPNOTSUPP) => File::from(file).write_all(&[0; SIZE as usize]).context(|| "write"),
        done => done.context(|| "fallocate"),
    };
    kept.map_err(|error| match rustix::fs::unlinkat(&dir, &room, AtFlags::empty()) {
        Ok(()) => error,
        Err(errno) => Error::caused_by(format!("{room:?} is left behind ({errno})"), error),
    })
    .context(describe)
}

/// Replaces the file `name` in the directory `dir` atomically, using up the space that [`keep`] reserved. Without
/// reserved space it does the same as [`write_atomic`].
///
/// # Errors
/// As [`write_atomic`].
pub fn write_kept(dir: &Path, name: &str, bytes: &[u8], mode: u32, durable: Durable) -> Result<()> {
    match fill(dir, name, bytes, mode, durable) {
        Ok(()) => Ok(()),
        Err(error) => {
            if error.errno() != Some(libc::ENOENT) {
                log::warn!("{}", error.one_line());
            }
            write_atomic(Directory::Trusted(dir), name, bytes, mode)
        }
    }
}

fn fill(dir: &Path, name: &str, bytes: &[u8], mode: u32, durable: Durable) -> Result<()> {
    let room = layout::room(name);
    let describe = || format!("write {:?} to its reserved space", dir.join(name));
    let dir = dir::open_dir(dir).context(describe)?;
    let mut file = File::from(open(&dir, &room, OFlags::empty()).context(describe)?);
    file.write_all(bytes).context(describe)?;
    file.set_len(bytes.len() as u64).context(describe)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).context(describe)?;
    if durable == Durable::Yes {
        file.sync_all().context(describe)?;
    }
    rustix::fs::renameat(&dir, &room, &dir, name).context(describe)
}

/// Opens a file for writing, and checks that it is a regular file.
fn open(dir: &OwnedFd, room: &str, more: OFlags) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    let file = rustix::fs::openat(dir, room, flags, Mode::RUSR | Mode::WUSR).context(|| format!("open {room:?}"))?;
    let stat = rustix::fs::fstat(file.as_fd()).context(|| format!("fstat {room:?}"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file),
        _ => Err(Error::new(format!("{room:?} is not a regular file"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn room_is_used_once() {
        let tmp = tempfile::tempdir().unwrap();
        keep(tmp.path(), "a").unwrap();
        let room = tmp.path().join(layout::room("a"));
        let before = room.metadata().unwrap();
        assert!(before.blocks() * 512 >= SIZE);
        keep(tmp.path(), "a").unwrap();
        write_kept(tmp.path(), "a", b"7\n", 0o644, Durable::Yes).unwrap();
        let written = tmp.path().join("a");
        let after = written.metadata().unwrap();
        assert_eq!((after.ino(), after.mode() & 0o7777), (before.ino(), 0o644));
        assert_eq!(std::fs::read(&written).unwrap(), b"7\n");
        assert!(!room.exists());
        // No space is reserved any more.
        write_kept(tmp.path(), "a", b"8\n", 0o644, Durable::No).unwrap();
        assert_eq!(std::fs::read(&written).unwrap(), b"8\n");
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 1);
    }

    #[test]
    fn something_else_in_its_place_is_left_alone() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::write(tmp.path().join("other"), "kept").unwrap();
        let room = tmp.path().join(layout::room("a"));
        symlink("other", &room).unwrap();
        assert!(keep(tmp.path(), "a").is_err());
        write_kept(tmp.path(), "a", b"7\n", 0o644, Durable::No).unwrap();
        std::fs::remove_file(&room).unwrap();
        nix::unistd::mkfifo(&room, nix::sys::stat::Mode::S_IRWXU).unwrap();
        write_kept(tmp.path(), "a", b"8\n", 0o644, Durable::No).unwrap();
        assert_eq!(std::fs::read(tmp.path().join("a")).unwrap(), b"8\n");
        assert_eq!(std::fs::read(tmp.path().join("other")).unwrap(), b"kept");
    }
}
