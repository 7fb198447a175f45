//! Facts about files, found while a layer is unpacked.

use std::collections::HashMap;

/// Facts about a file, recorded when it was written.
#[derive(Debug)]
pub(crate) struct Known {
    /// The SHA-256 of its content.
    pub(crate) hash: [u8; 32],
    /// Whether it has none of the extended attributes that images may have.
    pub(crate) is_bare: bool,
}

/// The facts about files recorded when they were written, by inode number.
#[derive(Debug, Default)]
pub struct Hashes(HashMap<u64, Known>);

impl Hashes {
    /// The most files in memory; the hashes of further files are computed from disk.
    const MOST: usize = 200_000;

    /// The facts about a file.
    pub(crate) fn get(&self, inode: u64) -> Option<&Known> {
        self.0.get(&inode)
    }

    /// Records the facts about a file; `None` removes them.
    pub(crate) fn set(&mut self, inode: u64, known: Option<Known>) {
        match known {
            Some(known) if self.0.len() < Self::MOST => drop(self.0.insert(inode, known)),
            _ => drop(self.0.remove(&inode)),
        }
    }
}
