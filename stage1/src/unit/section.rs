//! Writing the text of unit files: systemd.syntax(7).

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

/// A time in whole milliseconds, as a u64, whose formatting needs less code than that of a u128.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
