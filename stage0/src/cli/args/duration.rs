//! Durations on the command line, with one syntax for all options.

use std::time::Duration;

/// Parses a duration: a number of seconds (`10`, `0.5`), or numbers with units (`90s`, `1500ms`, `5m`, `1h 30m`).
///
/// # Errors
/// The text has another form.
pub fn duration(text: &str) -> Result<Duration, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let found = match text.parse::<f64>() {
        Ok(seconds) if plain => Duration::try_from_secs_f64(seconds).ok(),
        _ => humantime::parse_duration(text).ok(),
    };
    found.ok_or_else(|| "expected seconds, or a number with a unit: 10, 90s, 1500ms, 5m, 1h30m".to_owned())
}

/// [`duration`] in whole seconds, rounded up.
///
/// # Errors
/// The text is not a duration, or has more than `u32::MAX` seconds, the limit of a unit file.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    match u32::try_from(whole) {
        Ok(_) => Ok(Duration::from_secs(whole)),
        Err(_) => Err(format!("expected at most {} seconds", u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_seconds_and_units_are_understood() {
        let ms = |text| duration(text).map(|time| time.as_millis());
        assert_eq!((ms("1"), ms("0"), ms("0.5")), (Ok(1000), Ok(0), Ok(500)));
        assert_eq!((ms("1s"), ms("5m"), ms("1h30m"), ms("1500ms")), (Ok(1000), Ok(300_000), Ok(5_400_000), Ok(1500)));
        for bad in ["", "-1", "1x", "s", ".", "1.2.3", "inf", "NaN", "1e3", "99999999999999999999999"] {
            assert!(duration(bad).unwrap_err().contains("expected seconds"), "{bad}");
        }
        for (text, whole) in [("1500ms", 2), ("2", 2), ("0", 0)] {
            assert_eq!(seconds(text), Ok(Duration::from_secs(whole)), "{text}");
        }
        assert!(seconds("200y").is_err());
    }
}
