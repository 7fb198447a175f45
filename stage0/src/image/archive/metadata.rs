//! The metadata of an archive entry, and setting it on the file made from the entry.

use std::os::fd::BorrowedFd;

use rustix::fs::{self, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use stage1::error::{Context, Error, Result};

use super::entries::Entry;

/// The metadata to set on a file.
pub(super) struct Metadata {
    pub(super) mode: Mode,
    /// `None` leaves the owner as it is.
    pub(super) owner: Option<(Uid, Gid)>,
    pub(super) times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Metadata {
    /// The metadata of an entry. Calls `ignored` with the name of each extended attribute that is not supported.
    /// Without `privileged` the owner is left out.
    ///
    /// # Errors
    /// The UID or GID is not one, or an extended attribute is not allowed in an image.
    pub(super) fn of(entry: &Entry, privileged: bool, mut ignored: impl FnMut(&str)) -> Result<Self> {
        let id = |what: &str, value: u64| -> Result<u32> {
            u32::try_from(value).ok().filter(|id| *id != u32::MAX).context(|| format!("{what} {value} is not an id"))
        };
        let owner = (id("uid", entry.uid)?, id("gid", entry.gid)?);
        Ok(Self {
            mode: Mode::from_raw_mode(entry.mode & 0o7777),
            owner: privileged.then(|| (Uid::from_raw(owner.0), Gid::from_raw(owner.1))),
            times: same_times(Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() }),
            xattrs: entry
                .xattrs
                .iter()
                .filter_map(|(name, value)| xattr(name, value, &mut ignored).transpose())
                .collect::<Result<_>>()?,
        })
    }

    /// The metadata of a directory that no entry describes: mode 0755, times of 1970.
    pub(super) fn of_implied() -> Self {
        let times = same_times(Timespec { tv_sec: 0, tv_nsec: 0 });
        Self { mode: Mode::from_raw_mode(0o755), owner: None, times, xattrs: Vec::new() }
    }

    /// The mode and modification time of an existing directory of a lower layer.
    pub(super) fn of_existing(stat: &Stat) -> Self {
        let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        Self { mode, owner: None, times: same_times(time), xattrs: Vec::new() }
    }

    /// Sets the metadata, the owner first, because chown(2) clears set-user-ID bits and capabilities.
    pub(super) fn apply(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.set(fd, true, true)
    }

    /// [`Metadata::apply`] for a new file with the status `stat`; leaves out owner and mode where they are right
    /// already.
    pub(super) fn apply_to_new(&self, fd: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        let chown = self.owner.is_some_and(|wanted| wanted != owner);
        self.set(fd, chown, chown || stat.st_mode & 0o7777 != self.mode.as_raw_mode())
    }

    fn set(&self, fd: BorrowedFd<'_>, chown: bool, chmod: bool) -> Result<()> {
        if let Some((uid, gid)) = self.owner.filter(|_| chown) {
            fs::fchown(fd, Some(uid), Some(gid)).context(|| format!("fchown({uid}, {gid})"))?;
        }
        if chmod {
            fs::fchmod(fd, self.mode).context(|| format!("fchmod({:o})", self.mode))?;
        }
        for (name, value) in &self.xattrs {
            fs::fsetxattr(fd, name.as_str(), value, fs::XattrFlags::empty())
                .context(|| format!("fsetxattr({name:?})"))?;
        }
        fs::futimens(fd, &self.times).context(|| "futimens")
    }

    /// The memory that it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() + size_of::<Self>()
    }
}

fn same_times(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

/// The name and value of an extended attribute; `None` if it is not to be set.
fn xattr(name: &[u8], value: &[u8], ignored: &mut impl FnMut(&str)) -> Result<Option<(String, Vec<u8>)>> {
    let Ok(name) = std::str::from_utf8(name) else {
        ignored(&String::from_utf8_lossy(name));
        return Ok(None);
    };
    match name.split_once('.') {
        Some(("user", _)) | Some(("security", "capability")) => {}
        // the kernel computes or replaces these by its own policy
        Some(("security", _)) => return Ok(None),
        Some(("system", "posix_acl_access" | "posix_acl_default")) => {}
        // overlayfs would follow them out of the image
        Some(("trusted", rest)) if rest.starts_with("overlay.") => {
            return Err(Error::new(format!("extended attribute {name:?} is not allowed in an image")));
        }
        // attributes of other systems
        _ => {
            ignored(name);
            return Ok(None);
        }
    }
    Ok(Some((name.to_owned(), value.to_vec())))
}
