//! Points in time as nanoseconds since 1970, and ages for tables and messages.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970 UTC; 0 for earlier times, `i64::MAX` after the year 2262.
pub fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A time in nanoseconds since 1970 as RFC 3339 in UTC: `2026-11-26T10:41:58.421221548Z`; empty for a time that has no
/// date.
pub fn rfc3339(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(nanoseconds.into()).map(|time| time.to_string()).unwrap_or_default()
}

/// The age of `at`, which is in nanoseconds since 1970, for tables: `5s`, `12m`, `30h`, `9d`.
pub fn age(at: i64) -> String {
    in_short(nanoseconds(SystemTime::now()).saturating_sub(at) / 1_000_000_000)
}

/// The age of `at`, which is in nanoseconds since 1970, for messages: `2 s ago`.
pub fn ago(at: i64) -> String {
    let short = age(at);
    let (number, unit) = short.split_at(short.len() - 1);
    let unit = if unit == "m" { "min" } else { unit };
    format!("{number} {unit} ago")
}

fn in_short(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ ..7200 => format!("{}m", seconds / 60),
        seconds @ ..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_for_programs() {
        assert_eq!(rfc3339(1_795_689_718_421_221_548), "2026-11-26T10:41:58.421221548Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn ages_are_short() {
        let ages = [-1, 0, 119, 120, 7199, 7200, 172_799, 172_800].map(in_short);
        assert_eq!(ago(nanoseconds(SystemTime::now()) - 7_200_000_000_000), "2 h ago");
        assert_eq!(ago(nanoseconds(SystemTime::now()) - 3_605_000_000_000), "60 min ago");
        assert_eq!(ages, ["0s", "0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
