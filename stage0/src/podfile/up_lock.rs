//! The lock that `up` holds in a pod's directory: of two that make or change one pod, the second is refused.

use std::fs::File;
use std::path::Path;

use stage1::error::{Error, Result};

use crate::fsutil::lock;

/// The lock file, in the pod's directory.
const FILE: &str = "up.lock";

/// The lock of one pod, held while it lives.
#[derive(Debug)]
pub struct UpLock {
    _file: File,
}

impl UpLock {
    /// Takes the lock of the pod in the directory `pod`, without waiting.
    ///
    /// # Errors
    /// Another `up` holds it, or the pod's directory was moved or removed meanwhile; or flock(2) fails.
    pub fn take(pod: &Path) -> Result<Self> {
        let path = pod.join(FILE);
        let file = match lock::open_file(&path) {
            Err(error) if error.errno() == Some(nix::libc::ENOENT) => return Err(others_work()),
            opened => opened?,
        };
        if lock::try_take(&file, &path, lock::Kind::Exclusive)? { Ok(Self { _file: file }) } else { Err(others_work()) }
    }
}

/// The error for a pod that another process makes, changes or removes at this moment.
pub fn others_work() -> Error {
    Error::new(
        "another podctl makes, changes or removes this pod at this moment: when it has ended, run \"podctl up\" again, \
         which then compares the pod with the file",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let base = tempfile::tempdir().unwrap();
        let held = UpLock::take(base.path()).unwrap();
        assert!(UpLock::take(base.path()).unwrap_err().one_line().contains("run \"podctl up\" again"));
        drop(held);
        drop(UpLock::take(base.path()).unwrap());
        assert!(UpLock::take(&base.path().join("gone")).unwrap_err().one_line().contains("removes this pod"));
    }
}
