//! The range of host ids of a pod with a user namespace of its own: user_namespaces(7).

use crate::error::{Context, Error, Result};

/// The ids of a user namespace, the same for users and groups: id `n` inside is `first + n` on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UidRange {
    /// The host's id for id 0.
    pub first: u32,
    /// Number of ids.
    pub count: u32,
}

impl UidRange {
    /// The host's id for an id inside; `None` if the id is beyond the range.
    pub fn to_host(self, inside: u32) -> Option<u32> {
        (inside < self.count).then(|| self.first.checked_add(inside)).flatten()
    }

    /// The id inside for an id of the host.
    ///
    /// # Errors
    /// The id is not in the range.
    pub fn to_inside(self, host: u32) -> Result<u32> {
        host.checked_sub(self.first)
            .filter(|&inside| inside < self.count)
            .context(|| format!("owner {host} is not in the user namespace ({} ids from {})", self.count, self.first))
    }

    /// Checks that all `ids` (inside the namespace) are in the range; `what` names their kind in the message.
    ///
    /// # Errors
    /// An id is beyond the range; the message has the first such id.
    pub fn must_have(self, what: &str, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id >= self.count) {
            None => Ok(()),
            Some(id) => Err(Error::new(format!("{what} {id} is beyond the {} ids that the pod has", self.count))),
        }
    }
}

impl std::fmt::Display for UidRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.first, self.count)
    }
}

impl std::str::FromStr for UidRange {
    type Err = Error;

    /// Parses `SHIFT:COUNT`.
    ///
    /// ```
    /// use stage1::uid_range::UidRange;
    ///
    /// let range: UidRange = "1000000:65536".parse()?;
    /// assert_eq!(range.to_host(33), Some(1_000_033));
    /// assert_eq!(range.to_host(65536), None);
    /// assert_eq!(range.to_inside(1_000_033)?, 33);
    /// # Ok::<(), stage1::Error>(())
    /// ```
    ///
    /// # Errors
    /// Another form, a count of 0, or ids beyond 2^32 - 1.
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (first, count) = text.split_once(':')?;
            let (first, count) = (first.parse().ok()?, count.parse().ok()?);
            (count > 0 && u32::checked_add(first, count - 1).is_some()).then_some(Self { first, count })
        };
        parse().context(|| format!("{text:?} is not a UID range: write SHIFT:COUNT, e.g. 1000000:65536"))
    }
}
