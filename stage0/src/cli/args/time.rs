//! Points in time on the command line.

use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, ZonedDateTime};

/// The accepted forms, for messages.
const FORMS: &str = "write 2026-11-24T20:30:00Z, \"2026-11-24 20:30:00\", 2026-11-24, 20:30, @1795552200, now, today, \
                     yesterday, 10m or \"2 hours ago\"";

/// Parses a time: with a zone (RFC 3339), without one in this machine's zone, seconds since 1970 after an `@`, a word,
/// or how long ago it was.
///
/// # Errors
/// The text has another form, or the time does not exist.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    parse_at(text, &ZonedDateTime::now())
}

fn parse_at(text: &str, now: &ZonedDateTime) -> Result<Timestamp, String> {
    let text = text.trim();
    let found = named(text, now)
        .or_else(|| text.strip_prefix('@').map(|seconds| seconds_since_1970(seconds).ok()))
        .unwrap_or_else(|| typed(text, now));
    found.ok_or_else(|| format!("{text:?} is not a time: {FORMS}"))
}

fn named(text: &str, now: &ZonedDateTime) -> Option<Option<Timestamp>> {
    let day = |days: i64| now.start_of_day().and_then(|day| day.checked_add(days.days())).ok();
    let moment = match text {
        "now" => Some(now.timestamp()),
        "today" => day(0).map(|day| day.timestamp()),
        "yesterday" => day(-1).map(|day| day.timestamp()),
        _ => return None,
    };
    Some(moment)
}

fn seconds_since_1970(text: &str) -> Result<Timestamp, ()> {
    Timestamp::from_second(text.parse().map_err(drop)?).map_err(drop)
}

fn typed(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let zone = |time: DateTime| zoned(time, now.time_zone());
    // First times with a zone: the other parsers would ignore the zone.
    if let Ok(moment) = Timestamp::from_str(text) {
        return Some(moment);
    }
    if text.contains(':')
        && let Ok(time) = Time::from_str(text)
    {
        return zone(now.date().to_datetime(time));
    }
    if let Ok(date) = Date::strptime("%Y-%m-%d", text) {
        return zone(date.to_datetime(Time::midnight()));
    }
    if let Ok(time) = DateTime::from_str(text) {
        return zone(time);
    }
    let ago = Span::from_str(text).ok()?.abs();
    now.checked_sub(ago).ok().map(|moment| moment.timestamp())
}

fn zoned(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> ZonedDateTime {
        "2026-11-24T20:30:00.5+02:00[+02:00]".parse().unwrap()
    }

    #[test]
    fn times_are_understood() {
        for (text, expected) in [
            ("now", "2026-11-24T18:30:00.5Z"),
            ("today", "2026-11-23T22:00:00Z"),
            ("yesterday", "2026-11-22T22:00:00Z"),
            ("@0", "1970-01-01T00:00:00Z"),
            ("2026-11-24T20:30:00Z", "2026-11-24T20:30:00Z"),
            ("2026-11-24 20:30:00Z", "2026-11-24T20:30:00Z"),
            ("2026-11-24T20:30:00.123456+01:00", "2026-11-24T19:30:00.123456Z"),
            ("2026-11-24 20:30:00", "2026-11-24T18:30:00Z"),
            ("2026-11-24T20:30", "2026-11-24T18:30:00Z"),
            ("2026-11-24", "2026-11-23T22:00:00Z"),
            ("20:15", "2026-11-24T18:15:00Z"),
            ("20:15:01", "2026-11-24T18:15:01Z"),
            ("10m", "2026-11-24T18:20:00.5Z"),
            ("-1h", "2026-11-24T17:30:00.5Z"),
            ("2h ago", "2026-11-24T16:30:00.5Z"),
            ("2 hours ago", "2026-11-24T16:30:00.5Z"),
            ("1h30m", "2026-11-24T17:00:00.5Z"),
            ("1d", "2026-11-23T18:30:00.5Z"),
            ("2 weeks ago", "2026-11-10T18:30:00.5Z"),
            ("90s", "2026-11-24T18:28:30.5Z"),
            (" 1.5 h ", "2026-11-24T17:00:00.5Z"),
        ] {
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(parse_at(text, &now()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", "soon", "10", "h", "2026-13-01", "2026-11-24 25:00:00", "@", "@x", "99999999999 years ago"] {
            let error = parse_at(bad, &now()).unwrap_err();
            assert!(error.contains("is not a time"), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_breaks_it(text in ".{0,40}", other in "[-+@ 0-9:.TZhmsdyago]{0,30}") {
            let _ = (parse_at(&text, &now()), parse_at(&other, &now()));
        }
    }
}
