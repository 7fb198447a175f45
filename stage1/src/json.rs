//! Reading what others wrote in JSON: [`Value`]s turned into our types.
//!
//! For types with many optional fields, and unknown ones that are kept, this is a quarter of the code that serde
//! derives, which counts in programs that are in every image.

use serde_json::{Map, Value};

use crate::error::{Context, Error, Result};

/// What can be made of a JSON value.
pub trait FromJson: Sized {
    /// Makes it; `value` is not null.
    ///
    /// # Errors
    /// Says what the value is not.
    fn from_json(value: Value) -> Result<Self>;
}

/// Parses text.
///
/// # Errors
/// It is not JSON, or not what is looked for.
pub fn parse<T: FromJson>(text: &[u8]) -> Result<T> {
    T::from_json(serde_json::from_slice(text).context(|| "not JSON")?)
}

/// An object while its members are taken out of it. One that is null is as good as none: so Go has it.
#[derive(Debug)]
pub struct Object(Map<String, Value>);

impl Object {
    /// The value, if it is an object.
    ///
    /// # Errors
    /// It is none.
    pub fn new(value: Value) -> Result<Self> {
        match value {
            Value::Object(members) => Ok(Self(members)),
            other => Err(is_not("an object", &other)),
        }
    }

    /// A member that must be there.
    ///
    /// # Errors
    /// It is not, or not what is looked for.
    pub fn required<T: FromJson>(&mut self, name: &str) -> Result<T> {
        match self.take(name) {
            Some(value) => T::from_json(value).map_err(|error| within(name, error)),
            None => Err(Error::new(format!("{name:?} is missing"))),
        }
    }

    /// A member, or else the default.
    ///
    /// # Errors
    /// It is not what is looked for.
    pub fn optional<T: FromJson + Default>(&mut self, name: &str) -> Result<T> {
        match self.take(name) {
            Some(value) => T::from_json(value).map_err(|error| within(name, error)),
            None => Ok(T::default()),
        }
    }

    /// The members that nobody has taken.
    pub fn rest(self) -> Map<String, Value> {
        self.0
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }
}

/// An object with these members; less code than the macro of serde_json where there are many.
pub fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    fn insert(members: &mut dyn Iterator<Item = (&str, Value)>) -> Value {
        let mut object = Map::new();
        for (name, value) in members {
            object.insert(name.to_owned(), value);
        }
        Value::Object(object)
    }
    insert(&mut members.into_iter())
}

fn within(name: &str, error: Error) -> Error {
    Error::caused_by(format!("{name:?}"), error)
}

/// The error for a value that is not `what`; long values are cut.
pub fn is_not(what: &str, value: &Value) -> Error {
    const SHOWN: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Error::new(format!("{}… is not {what}", &text[..end])),
        None => Error::new(format!("{text} is not {what}")),
    }
}

impl FromJson for Value {
    fn from_json(value: Value) -> Result<Self> {
        Ok(value)
    }
}

impl FromJson for Map<String, Value> {
    fn from_json(value: Value) -> Result<Self> {
        Object::new(value).map(Object::rest)
    }
}

impl FromJson for String {
    fn from_json(value: Value) -> Result<Self> {
        match value {
            Value::String(text) => Ok(text),
            other => Err(is_not("a string", &other)),
        }
    }
}

impl FromJson for bool {
    fn from_json(value: Value) -> Result<Self> {
        value.as_bool().ok_or_else(|| is_not("true or false", &value))
    }
}

impl FromJson for u64 {
    fn from_json(value: Value) -> Result<Self> {
        value.as_u64().ok_or_else(|| is_not("a whole number", &value))
    }
}

impl FromJson for u32 {
    fn from_json(value: Value) -> Result<Self> {
        let number = value.as_u64().and_then(|number| number.try_into().ok());
        number.ok_or_else(|| is_not("a whole number of 32 bits", &value))
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(value: Value) -> Result<Self> {
        T::from_json(value).map(Some)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(value: Value) -> Result<Self> {
        match value {
            Value::Array(items) => items.into_iter().map(T::from_json).collect(),
            other => Err(is_not("a list", &other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_are_taken_and_the_rest_is_kept() {
        let mut object = Object::new(json!({"a": ["x", "y"], "b": 7, "c": null, "new": {"d": 1}})).unwrap();
        assert_eq!(object.required::<Vec<String>>("a").unwrap(), ["x", "y"]);
        assert_eq!(object.optional::<Option<u32>>("b").unwrap(), Some(7));
        assert_eq!(object.optional::<Option<u32>>("c").unwrap(), None);
        assert!(!object.optional::<bool>("missing").unwrap());
        assert_eq!(Value::Object(object.rest()), json!({"new": {"d": 1}}));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let mut object = Object::new(json!({"a": ["x", 1], "b": 4_294_967_296u64, "c": null, "d": -1})).unwrap();
        for (error, line) in [
            (object.required::<Vec<String>>("a").unwrap_err(), "\"a\": 1 is not a string"),
            (object.required::<u32>("b").unwrap_err(), "\"b\": 4294967296 is not a whole number of 32 bits"),
            (object.required::<bool>("c").unwrap_err(), "\"c\" is missing"),
            (object.optional::<u64>("d").unwrap_err(), "\"d\": -1 is not a whole number"),
            (Object::new(json!([])).unwrap_err(), "[] is not an object"),
        ] {
            assert_eq!(error.one_line(), line);
        }
        assert!(parse::<bool>(b"tru").unwrap_err().one_line().starts_with("not JSON: "));
        let long = is_not("a number", &json!("ä".repeat(1000))).one_line();
        assert_eq!(long, format!("\"{}… is not a number", "ä".repeat(59)));
    }
}
