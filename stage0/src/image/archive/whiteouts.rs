//! overlayfs's marks for files that a layer removes from lower layers.

use rustix::fs::{FileType, Stat};

/// The extended attribute, with the value `y`, of a directory that hides the same directory of lower layers.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// Whether a file is a whiteout, which hides the file of the same name in lower layers: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
