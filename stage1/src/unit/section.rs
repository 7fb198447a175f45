//! The text of units.

use std::fmt::Write as _;
use std::time::Duration;

/// A section of a unit file.
pub(super) struct Section(pub(super) String);

impl Section {
    pub(super) fn new(name: &str) -> Self {
        Self(format!("[{name}]\n"))
    }

    pub(super) fn push(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{name}={value}").expect("a String takes all");
    }
}

/// Whole milliseconds, in a number that takes little code to write.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
