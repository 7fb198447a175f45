//! Labels and annotations on the command line

use std::collections::BTreeMap;

use stage1::error::{Error, Result};

/// Parses labels or annotations, each `NAME[=VALUE]`; the last value of a name applies.
///
/// # Errors
/// A label has no name, or has a line break or a NUL byte.
pub fn pairs(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name.is_empty() || text.contains(['\n', '\0']) {
            true => Err(Error::new(format!("label or annotation {text:?}: expected NAME[=VALUE]"))),
            false => Ok((name.to_owned(), value.to_owned())),
        }
    };
    texts.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names_and_values() {
        let found = pairs(&["a=b=c".to_owned(), "d".to_owned()]).unwrap();
        assert_eq!(found, BTreeMap::from([("a".into(), "b=c".into()), ("d".into(), String::new())]));
        for bad in ["", "=b", "a=b\nc"] {
            assert!(pairs(&[bad.to_owned()]).is_err(), "{bad:?}");
        }
    }
}
