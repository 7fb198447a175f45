//! Kubernetes quantities, as isolators use them: `50m`, `1.5`, `128M`, `1Gi`, `1e3`. Computed without floating point.

use crate::error::{Context, Error, Result};

/// Maximum number of digits of a quantity.
const MAX_DIGITS: usize = 30;

/// Parses a quantity as whole units, for example bytes. Rounds up.
///
/// ```
/// use stage1::appc::quantity::whole;
///
/// assert_eq!(whole("64Mi")?, 64 << 20);
/// assert_eq!(whole("1.5k")?, 1500);
/// assert_eq!(whole("100m")?, 1); // a tenth of a byte
/// assert!(whole("64MB").is_err());
/// # Ok::<(), stage1::Error>(())
/// ```
///
/// # Errors
/// The text is not a quantity, is negative, or is above `u64::MAX`.
pub fn whole(text: &str) -> Result<u64> {
    scaled(text, 1)
}

/// Parses a quantity as thousandths, for example of a processor. Rounds up.
///
/// ```
/// use stage1::appc::quantity::milli;
///
/// assert_eq!(milli("1.5")?, 1500);
/// assert_eq!(milli("250m")?, 250);
/// # Ok::<(), stage1::Error>(())
/// ```
///
/// # Errors
/// As [`whole`].
pub fn milli(text: &str) -> Result<u64> {
    scaled(text, 1000)
}

/// Parses a quantity as millionths, for example of a processor. Rounds up.
///
/// # Errors
/// As [`whole`].
pub fn micro(text: &str) -> Result<u64> {
    scaled(text, 1_000_000)
}

/// `text` times `factor`, rounded up.
fn scaled(text: &str, factor: u128) -> Result<u64> {
    let bad = || {
        format!("{text:?} is not a quantity: expected a number, and perhaps a suffix such as m, k, M, G, Ki, Mi, Gi")
    };
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > MAX_DIGITS || fraction.contains('.') {
        return Err(Error::new(bad()));
    }
    let number: u128 = digits.parse().ok().context(bad)?;
    let (multiplier, power) = unit(suffix).context(bad)?;
    let power = power - i32::try_from(fraction.len()).ok().context(bad)?;
    let too_large = || format!("the quantity {text:?} is too large");
    let ten = |n: i32| 10u128.checked_pow(n.unsigned_abs());
    let value = number.checked_mul(multiplier).and_then(|v| v.checked_mul(factor)).context(too_large)?;
    let value = match number {
        0 => Some(0),
        _ if power >= 0 => ten(power).and_then(|scale| value.checked_mul(scale)),
        // The divisor is larger than any value: the quotient rounds up to 1.
        _ => Some(ten(power).map_or(1, |scale| value.div_ceil(scale))),
    };
    value.and_then(|v| u64::try_from(v).ok()).context(too_large)
}

/// The multiplier and the power of ten of a suffix.
fn unit(suffix: &str) -> Option<(u128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" | "K" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || digits.len() > 2 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (1, exponent.parse().ok()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_ones() {
        for (text, bytes) in [
            ("128M", 128_000_000),
            ("1Gi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("1e3", 1000),
            ("1E3", 1000),
            ("1E", 1_000_000_000_000_000_000),
            ("0", 0),
            ("0.1", 1),
            ("1m", 1),
            ("1500m", 2),
            ("100Ki", 102_400),
            ("1e-9", 1),
            (".5k", 500),
        ] {
            assert_eq!(whole(text).unwrap(), bytes, "{text}");
        }
        assert_eq!(milli("50m").unwrap(), 50);
        assert_eq!(milli("1.5").unwrap(), 1500);
        assert_eq!(milli("2").unwrap(), 2000);
    }

    #[test]
    fn junk() {
        for bad in
            ["", ".", "banana", "-1", "+1", "1.2.3", "1KiB", "1 M", "1e", "1e999", "99999999E", "1mm", "0x10", "1\n"]
        {
            assert!(whole(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whole_numbers_are_exact(n in 0u64..1 << 40) {
            proptest::prop_assert_eq!(whole(&n.to_string()).unwrap(), n);
            proptest::prop_assert_eq!(milli(&format!("{n}m")).unwrap(), n);
            proptest::prop_assert_eq!(whole(&format!("{n}Ki")).unwrap(), n * 1024);
        }

        #[test]
        fn fractions_are_exact_and_round_up(whole_part in 0u64..1_000_000, thousandths in 0u64..1000, digits in 0u64..1000) {
            let text = format!("{whole_part}.{thousandths:03}");
            let value = whole_part * 1000 + thousandths;
            proptest::prop_assert_eq!(milli(&text).unwrap(), value);
            proptest::prop_assert_eq!(whole(&text).unwrap(), value.div_ceil(1000));
            proptest::prop_assert_eq!(whole(&format!("{text}k")).unwrap(), value);
            proptest::prop_assert_eq!(whole(&format!("{text}e6")).unwrap(), value * 1000);
            proptest::prop_assert_eq!(whole(&format!("{text}Gi")).unwrap(), (value << 30).div_ceil(1000));
            // A digit beyond the thousandths always rounds up.
            let finer = format!("{text}{digits:03}");
            proptest::prop_assert_eq!(milli(&finer).unwrap(), value + u64::from(digits > 0));
        }

        #[test]
        fn nothing_panics(text in "[0-9.]{0,40}[a-zA-Z+-]{0,3}[0-9]{0,4}") {
            drop(whole(&text));
            drop(milli(&text));
        }
    }
}
