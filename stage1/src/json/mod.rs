//! Reading JSON that other programs wrote: RFC 8259.

mod located;

use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_json::Value;

use located::Located;

use crate::error::{Context, Error, Result};

/// Parses JSON text as a `T`. If an object has a member twice, the last one counts.
///
/// # Errors
/// `text` is not JSON, or its value is not a `T`; then the message has the path of the member that does not fit.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    from_value(serde_json::from_slice(text).context(|| "not JSON")?)
}

/// Converts a JSON value into a `T`.
///
/// # Errors
/// The value is not a `T`; the message has the path of the member that does not fit.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T> {
    T::deserialize(Located(value)).map_err(|misfit| {
        let (path, cause) = misfit.into_parts();
        if path.is_empty() { Error::caused_by("not as expected", cause) } else { Error::caused_by(path, cause) }
    })
}

/// Reads null, which Go writes for an empty slice or map, as the default of `T`: for serde's `deserialize_with`. A
/// member that may be missing has `default` beside it.
///
/// # Errors
/// The member is neither null nor a `T`.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Whole {
        parts: Vec<Part>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Part {
        name: String,
        #[serde(default, deserialize_with = "or_default")]
        list: Vec<u32>,
        number: Option<u32>,
        #[serde(flatten)]
        other: serde_json::Map<String, Value>,
    }

    fn whole(text: &str) -> Result<Whole> {
        parse(text.as_bytes())
    }

    #[test]
    fn null_is_as_good_as_nothing_and_the_last_of_two_counts() {
        let read = whole(r#"{"parts":[{"name":"a","list":null,"number":null,"new":{"d":null},"name":"b"}]}"#).unwrap();
        let other = [("new".to_owned(), serde_json::json!({"d": null}))].into_iter().collect();
        assert_eq!(read.parts, [Part { name: "b".into(), list: Vec::new(), number: None, other }]);
        assert_eq!(whole(r#"{"parts":[{"name":"a"}]}"#).unwrap().parts[0].list, [0; 0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (text, line) in [
            (r#"{"parts":[{"name":1}]}"#, "parts[0].name: invalid type: integer `1`, expected a string"),
            (r#"{"parts":[{"name":null}]}"#, "parts[0].name: invalid type: null, expected a string"),
            (r#"{"parts":[{"name":"a"},{}]}"#, "parts[1]: missing field `name`"),
            (r#"{"parts":[{"name":"a","list":7}]}"#, "parts[0].list: invalid type: integer `7`, expected a sequence"),
            (r#"{"parts":[{"name":"a","number":-1}]}"#, "parts[0].number: invalid value: integer `-1`, expected u32"),
            (
                r#"{"parts":[{"name":"a","list":[4294967296]}]}"#,
                "parts[0].list[0]: invalid value: integer `4294967296`, expected u32",
            ),
            (
                r#"{"parts":[{"name":"a","list":[1.5]}]}"#,
                "parts[0].list[0]: invalid type: floating point `1.5`, expected u32",
            ),
            ("[]", "not as expected: invalid type: sequence, expected struct Whole"),
        ] {
            assert_eq!(whole(text).unwrap_err().one_line(), line);
        }
        assert!(whole("tru").unwrap_err().one_line().starts_with("not JSON: "));
    }
}
