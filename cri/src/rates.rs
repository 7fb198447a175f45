//! The current use of processor time, from two readings of a counter. Readings are kept in memory: after a restart of the
//! server a rate is known again from the second reading on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The shortest time between two readings that a rate is computed from, in nanoseconds.
const SHORTEST: i64 = 1_000_000_000;
/// How long a reading is kept, in nanoseconds.
const KEPT: i64 = 600_000_000_000;

/// The latest readings, by the ids of containers and sandboxes.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<String, Reading>>);

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: i64,
    total: u64,
    rate: Option<u64>,
}

impl Rates {
    /// The processor time per second of `id`, in nanoseconds: between this reading of its total processor time and the
    /// previous one, or for a second after a reading the rate of that one. `None` for the first reading.
    /// `now` is in nanoseconds since 1970.
    pub fn of(&self, id: &str, now: i64, total: u64) -> Option<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = all.get(id).copied().filter(|last| last.total <= total && last.at <= now && now - last.at <= KEPT);
        if let Some(last) = last.filter(|last| now - last.at < SHORTEST) {
            return last.rate;
        }
        let rate = last.and_then(|last| {
            let spent = u128::from(total - last.total) * 1_000_000_000;
            u64::try_from(spent / u128::from((now - last.at).unsigned_abs())).ok()
        });
        all.retain(|_, reading| (now - reading.at).abs() <= KEPT);
        all.insert(id.to_owned(), Reading { at: now, total, rate });
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_two_readings() {
        let rates = Rates::default();
        let second = |number: i64| number * SHORTEST;
        assert_eq!(rates.of("a", second(10), 5_000), None, "the first reading");
        assert_eq!(rates.of("a", second(10) + 5, 7_000), None, "the second is too early");
        assert_eq!(rates.of("a", second(12), 9_000), Some(2_000));
        assert_eq!(rates.of("a", second(12) + 5, 9_500), Some(2_000), "the rate of the last reading");
        assert_eq!(rates.of("a", second(14), 9_000), Some(0));
        assert_eq!(rates.of("b", second(14), 1), None);
        assert_eq!(rates.of("a", second(16), 3), None, "a smaller total is another cgroup's");
        assert_eq!(rates.of("a", second(1000), 5), None, "the last reading is too old");
        assert_eq!(rates.of("a", second(900), 5), None, "the clock was put back");
        assert_eq!(rates.0.lock().unwrap().len(), 1, "b is forgotten");
    }
}
