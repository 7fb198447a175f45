//! What is known of a layer that was unpacked alone, and how it marks what it removes of lower ones, as overlayfs does.

use std::collections::HashMap;

use rustix::fs::{FileType, Stat};

/// The attribute of a directory that hides all that is below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Whether a file stands for nothing, and hides what is below it.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// What is known of a file since it was written.
#[derive(Debug)]
pub(crate) struct Known {
    /// SHA-256 of its content.
    pub(crate) hash: [u8; 32],
    /// It has no extended attribute that an image brings.
    pub(crate) is_bare: bool,
}

/// Hashes of files that were computed when they were written, by inode.
#[derive(Debug, Default)]
pub struct Hashes(HashMap<u64, Known>);

impl Hashes {
    /// So many are kept in memory: others are computed again.
    const MOST: usize = 200_000;

    /// What is known of a file.
    pub(crate) fn get(&self, inode: u64) -> Option<&Known> {
        self.0.get(&inode)
    }

    /// Notes, or forgets, what is known of a file.
    pub(crate) fn set(&mut self, inode: u64, known: Option<Known>) {
        match known {
            Some(known) if self.0.len() < Self::MOST => drop(self.0.insert(inode, known)),
            _ => drop(self.0.remove(&inode)),
        }
    }
}
