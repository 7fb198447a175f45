//! The files about an app's streams that are made before its start. Host side, in the pod directory.
//!
//! The pod can write to `/rkt/iottymux`: everything there is opened by descriptors, and no link is followed. The file
//! that the monitor reads lies elsewhere, where the pod can't reach it.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode as FileMode, OFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{EndpointList, LogFile, NAMES, StreamMode, StreamModes, fifo};
use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::layout;
use crate::pod::{read_bounded, remove_if_there};
use crate::sys::dir;

const ENDPOINTS: &str = "endpoints";
const ENV: &str = "env";
/// The largest declaration that is read, in bytes.
const MAX: u64 = 64 << 10;

/// The declaration of an app's streams for the monitor, in a file that the pod can't reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredStreams {
    /// The streams' modes.
    pub modes: StreamModes,
    /// The log file that a kubelet reads, and its directory on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<(LogFile, String)>,
}

impl DeclaredStreams {
    /// Reads the declaration of `app`.
    ///
    /// # Errors
    /// The app was not added, or the file can't be read.
    pub fn load(app: &AcName) -> Result<Self> {
        let path = layout::app_streams(app);
        let text = read_bounded(&path, MAX)?;
        serde_json::from_slice(&text).context(|| format!("{path:?}"))
    }

    fn store(&self, app: &AcName) -> Result<()> {
        let path = layout::app_streams(app);
        let what = || format!("write {path:?}");
        let text = serde_json::to_vec(self).context(what)?;
        let (dir, name) = dir::split(&path)?;
        put(&dir::open_beneath(rustix::fs::CWD, dir, OFlags::PATH | OFlags::DIRECTORY)?, &name.to_string_lossy(), &text)
            .context(what)
    }
}

/// The text of the file `env`.
fn env(modes: StreamModes) -> String {
    let mut text = format!("STAGE2_TTY={}\nSTAGE1_DEBUG=false\n", modes.have_terminal());
    for (name, mode) in NAMES.iter().zip(modes.0) {
        let name = name.to_ascii_uppercase();
        writeln!(text, "STAGE2_{name}={}", mode == StreamMode::Stream).expect("a String takes all");
    }
    text
}

/// Replaces a file. It is not synced: it is of no use without the running pod.
fn put(place: &OwnedFd, name: &str, bytes: &[u8]) -> Result<()> {
    let what = || format!("write {name:?}");
    match rustix::fs::unlinkat(place, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).context(what),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(place, name, flags, FileMode::from_raw_mode(0o644)).context(what)?;
    std::io::Write::write_all(&mut std::fs::File::from(file), bytes).context(what)
}

/// Writes the declaration of an app's streams for the monitor, and the files for host managers in `/rkt/iottymux/APP`,
/// which belong to the pod's root (`owner`, as a UID of the host). Replaces existing files.
///
/// # Errors
/// A file can't be made.
pub fn prepare(app: &AcName, declared: &DeclaredStreams, owner: Option<u32>) -> Result<()> {
    declared.store(app)?;
    let modes = declared.modes;
    let path = layout::iottymux(app);
    let what = || format!("make {path:?}");
    let (parent, name) = dir::split(&path)?;
    let parent = open(parent).context(what)?;
    match rustix::fs::mkdirat(&parent, name, FileMode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).context(what),
    }
    let place = dir::open_beneath(&parent, name, OFlags::PATH | OFlags::DIRECTORY).context(what)?;
    for (name, mode) in NAMES.into_iter().zip(modes.0) {
        let fifo = fifo(name);
        match rustix::fs::unlinkat(&place, &fifo, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).context(what),
        }
        if mode == StreamMode::Stream {
            make_fifo(&place, &fifo, owner).context(what)?;
        }
    }
    put(&place, ENV, env(modes).as_bytes()).context(what)?;
    put(&place, ENDPOINTS, (EndpointList::new(app, modes.endpoints()).text() + "\n").as_bytes()).context(what)?;
    if let Some(owner) = owner {
        for name in [ENV, ENDPOINTS] {
            give(&place, name, owner).context(what)?;
        }
        give(&parent, app.as_ref(), owner).context(what)?;
    }
    Ok(())
}

fn make_fifo(place: &OwnedFd, name: &str, owner: Option<u32>) -> Result<()> {
    let mode = FileMode::from_raw_mode(0o600);
    rustix::fs::mknodat(place, name, FileType::Fifo, mode, 0).context(|| format!("mkfifo({name:?})"))?;
    owner.map_or(Ok(()), |owner| give(place, name, owner))
}

fn give(place: impl AsFd, name: &str, owner: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(owner), Gid::from_raw(owner));
    rustix::fs::chownat(place, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .context(|| format!("chown({name:?}, {owner})"))
}

fn open(path: &Path) -> Result<OwnedFd> {
    dir::open_beneath(rustix::fs::CWD, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Removes what [`prepare`] and the monitor have made, if it exists. Host side, in the pod directory.
///
/// # Errors
/// A file can't be removed, for example because the pod has made a directory there.
pub fn remove(app: &AcName) -> Result<()> {
    remove_if_there(&layout::app_streams(app))?;
    let path = layout::iottymux(app);
    let what = || format!("remove {path:?}");
    let (parent, name) = dir::split(&path)?;
    let parent = match open(parent) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        parent => parent.context(what)?,
    };
    let place = match dir::open_beneath(&parent, name, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        place => place.context(what)?,
    };
    for entry in Dir::read_from(&place).context(what)? {
        let entry = entry.context(what)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match rustix::fs::unlinkat(&place, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).context(|| format!("{}: unlink({name:?})", what())),
        }
    }
    rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::Format;

    #[test]
    fn declarations_are_read_as_they_are_written() {
        let modes = StreamModes([StreamMode::Stream, StreamMode::Log, StreamMode::Tty]);
        assert_eq!(
            env(modes),
            "STAGE2_TTY=true\nSTAGE1_DEBUG=false\nSTAGE2_STDIN=true\nSTAGE2_STDOUT=false\nSTAGE2_STDERR=false\n"
        );
        let log = Some((LogFile::new(Format::Cri, "web/0.log").unwrap(), "/var/log".to_owned()));
        for declared in [DeclaredStreams { modes, log }, DeclaredStreams::default()] {
            let text = serde_json::to_vec(&declared).unwrap();
            assert_eq!(serde_json::from_slice::<DeclaredStreams>(&text).unwrap(), declared);
        }
    }
}
