//! What is known of a layer that was unpacked alone, and how it marks what it removes of lower ones, as overlayfs does.

use std::collections::HashMap;

use rustix::fs::{FileType, Stat};

/// The attribute of a directory that hides all that is below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Whether a file stands for nothing, and hides what is below it.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Hashes of files that were computed when they were written, by inode.
#[derive(Debug, Default)]
pub struct Hashes(HashMap<u64, [u8; 32]>);

impl Hashes {
    /// So many are kept in memory: others are computed again.
    const MOST: usize = 200_000;

    /// The SHA-256 of a file, if it is known.
    pub(crate) fn get(&self, inode: u64) -> Option<&[u8; 32]> {
        self.0.get(&inode)
    }

    /// Notes, or forgets, the SHA-256 of a file.
    pub(crate) fn set(&mut self, inode: u64, hash: Option<[u8; 32]>) {
        match hash {
            Some(hash) if self.0.len() < Self::MOST => drop(self.0.insert(inode, hash)),
            _ => drop(self.0.remove(&inode)),
        }
    }
}
