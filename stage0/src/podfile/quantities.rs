//! Checks of a container's limits and requests, before anything is made: a limit that no app can run with is refused with
//! its path in the file.

use k8s_openapi::api::core::v1::Container;
use serde_json::{Map, json};
use stage1::appc::{Isolator, Isolators, quantity};
use stage1::error::{Context, Error, Result};

/// The least limit of memory, in bytes: no app runs with less.
const LEAST_MEMORY: u64 = 1 << 20;

/// Checks the limits and requests of memory and CPU of the container at `path`.
///
/// # Errors
/// One is not a quantity, or is too small or too large to have a meaning; the message has its path.
pub fn check(container: &Container, path: &str) -> Result<()> {
    let Some(resources) = &container.resources else { return Ok(()) };
    for (word, set) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        let Some(set) = set else { continue };
        if let Some(memory) = set.get("memory") {
            let bytes = bytes(&memory.0);
            let least = if word == "limits" { LEAST_MEMORY } else { 0 };
            bytes
                .and_then(|bytes| at_least(bytes, least, &memory.0))
                .context(|| format!("{path}.resources.{word}.memory"))?;
        }
        if let Some(cpu) = set.get("cpu") {
            let key = if word == "limits" { "limit" } else { "request" };
            let value = json!({ key: cpu.0 });
            let isolator = Isolator { name: "resource/cpu".to_owned(), value, other: Map::new() };
            Isolators::parse(&[isolator]).context(|| format!("{path}.resources.{word}.cpu {:?}", cpu.0))?;
        }
    }
    Ok(())
}

/// The bytes of a quantity of memory.
///
/// # Errors
/// It is not a quantity; or it is a fraction by its suffix, and too small for that to be meant.
pub fn bytes(text: &str) -> Result<u64> {
    let bytes = quantity::whole(text)?;
    let (number, suffix) = text.split_at(text.trim_end_matches(['n', 'u', 'm']).len());
    let why = match suffix {
        "m" => format!("m means thousandths of a byte: {number}Mi is probably meant"),
        "u" => "u means millionths of a byte".to_owned(),
        "n" => "n means billionths of a byte".to_owned(),
        _ => return Ok(bytes),
    };
    // a multiple of a thousand with the suffix m is a plain number
    if bytes >= LEAST_MEMORY || bytes == 0 { Ok(bytes) } else { Err(Error::new(format!("{text:?}: {why}"))) }
}

fn at_least(bytes: u64, least: u64, text: &str) -> Result<()> {
    if bytes >= least {
        return Ok(());
    }
    let is_bare = bytes > 0 && text.bytes().all(|byte| byte.is_ascii_digit());
    let remedy = if is_bare {
        format!(": a number without a suffix is bytes, {text}Mi is probably meant")
    } else {
        String::new()
    };
    Err(Error::new(format!("{text:?} is less than 1Mi, the smallest limit{remedy}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_work_is_refused_with_its_path() {
        let line = |word: &str, name: &str, text: &str| {
            let container = json!({"name": "a", "resources": { word: { name: text } }});
            let container = serde_json::from_value(container).unwrap();
            check(&container, "spec.containers[0]").err().map(|error| error.one_line()).unwrap_or_default()
        };
        for (name, text, why) in [
            ("memory", "64m", "\"64m\": m means thousandths of a byte: 64Mi is probably meant"),
            ("memory", "1n", "n means billionths of a byte"),
            ("memory", "5u", "u means millionths of a byte"),
            ("memory", "64", "64Mi is probably meant"),
            ("memory", "0", "the smallest limit"),
            ("memory", "1023Ki", "the smallest limit"),
            ("memory", "64MB", "not a quantity"),
            ("cpu", "0", "the smallest limit is 1m"),
            ("cpu", "1n", "the smallest limit is 1m"),
            ("cpu", "1001", "the largest limit is 1000"),
            ("cpu", "banana", "not a quantity"),
        ] {
            let line = line("limits", name, text);
            assert!(line.starts_with(&format!("spec.containers[0].resources.limits.{name}")), "{line}");
            assert!(line.contains(why) && !line.contains('\n'), "{text}: {line}");
        }
        assert!(line("requests", "memory", "64m").contains("64Mi is probably meant"));
        for (word, name, text) in [
            ("limits", "memory", "1Mi"),
            ("limits", "memory", "128974848000m"),
            ("limits", "cpu", "1m"),
            ("requests", "memory", "0"),
            ("requests", "memory", "100"),
            ("requests", "cpu", "0"),
        ] {
            assert_eq!(line(word, name, text), "", "{text}");
        }
    }
}
