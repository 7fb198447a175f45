//! The file `net/ethN.leaving` in a pod's directory: it is there from the first DEL of a network until all have succeeded.
//! It stands beside the network's record, which has all that a DEL needs and is not touched. Host side.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::layout;
use crate::pod::remove_if_there;

/// The file for one network.
pub struct LeavingMark {
    path: PathBuf,
    /// Whether it was there before: an earlier DEL failed or was interrupted.
    pub is_old: bool,
}

impl LeavingMark {
    /// Makes the file for the network of this interface, for the pod in the directory `dir`. If it can't be made, as on a
    /// full disk, the network has to be left all the same.
    pub fn make(dir: &Path, interface: &str) -> Self {
        let path = dir.join(layout::network_dir()).join(format!("{interface}.leaving"));
        let is_old = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => false,
            Err(error) => {
                log::debug!("create {path:?}: {error}");
                error.kind() == ErrorKind::AlreadyExists
            }
        };
        Self { path, is_old }
    }

    /// Removes the file.
    ///
    /// # Errors
    /// unlink(2) fails.
    pub fn remove(self) -> Result<()> {
        remove_if_there(&self.path)
    }
}
