//! The name that the user gives a pod: unique in its data directory, kept in the file `name` of the pod's directory.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use stage1::error::{Context, Error, Result};
use stage1::pod::read_bounded;
use uuid::Uuid;

use crate::fsutil::atomic::write;
use crate::fsutil::plain_word::{self, LONGEST};

/// The file in a pod's directory that holds its name.
const FILE: &str = "name";

/// A valid name of a pod: one plain word that is not a UUID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName(String);

impl FromStr for PodName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        plain_word::check(text, "pod")?;
        if Uuid::try_parse(text).is_ok() {
            return Err(Error::new(format!("{text:?} is a UUID: a pod can't be called so")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl PodName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Writes the name to the pod's directory, atomically.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn note(&self, pod: &Path) -> Result<()> {
        write(&pod.join(FILE), self.0.as_bytes(), 0o640)
    }
}

/// The name of the pod in the directory `pod`; `None` if the pod has no name or is gone.
///
/// # Errors
/// The file can't be read, or does not hold a valid name.
pub fn of(pod: &Path) -> Result<Option<PodName>> {
    let path = pod.join(FILE);
    match read_bounded(&path, LONGEST as u64) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).parse().context(|| format!("{path:?}")).map(Some),
        Err(error) if error.errno() == Some(rustix::io::Errno::NOENT.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_plain_word() {
        for good in ["web", "Web_1.2-x", "a", "0", &"x".repeat(64), "deadbeef"] {
            assert_eq!(good.parse::<PodName>().unwrap().as_str(), good);
        }
        let uuid = Uuid::new_v4();
        for bad in ["", "-a", ".a", "a b", "a/b", "../x", "ä", "a\n", &"x".repeat(65), &uuid.to_string()] {
            assert!(bad.parse::<PodName>().is_err(), "{bad:?}");
        }
        assert!(uuid.simple().to_string().parse::<PodName>().unwrap_err().one_line().contains("UUID"));
    }

    #[test]
    fn a_name_is_read_as_it_was_noted() {
        let base = tempfile::tempdir().unwrap();
        assert_eq!(of(base.path()).unwrap(), None);
        let name: PodName = "web".parse().unwrap();
        name.note(base.path()).unwrap();
        assert_eq!(of(base.path()).unwrap(), Some(name));
        std::fs::write(base.path().join(FILE), "../x").unwrap();
        assert!(of(base.path()).is_err());
    }
}
