//! How long to wait, on the command line

use std::str::FromStr;
use std::time::{Duration, Instant};

use super::duration::duration;

/// How long to wait; `None` is for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience(pub(crate) Option<Duration>);

impl FromStr for Patience {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text {
            "forever" => Ok(Self(None)),
            text => duration(text).map(Some).map(Self),
        }
    }
}

impl Patience {
    /// The time when the wait ends, counted from now; `None` is never.
    pub(crate) fn deadline(self) -> Option<Instant> {
        self.0.and_then(|time| Instant::now().checked_add(time))
    }
}
