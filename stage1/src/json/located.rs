//! A JSON value as serde's source of data, whose errors name the place within the value.
//!
//! The crate serde_path_to_error does the same for any source, by wrapping it and every visitor; its code was a tenth
//! of the entrypoint `run`. This module reads JSON values only, which compiles to less code for each type.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, Error as _, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Number, Value};

/// A value to deserialize from. A struct is read from an object only, not from an array.
pub(super) struct Located(pub(super) Value);

/// Why a value does not fit a type, and its place. Boxed, as serde_json's errors are, because every step returns it.
#[derive(Debug)]
pub(super) struct Misfit(Box<(String, serde_json::Error)>);

impl Misfit {
    /// The place, such as `parts[0].name`, empty for the whole value; and the reason.
    pub(super) fn into_parts(self) -> (String, serde_json::Error) {
        *self.0
    }

    /// `value` is of another type than `expected`.
    fn of_type(value: &Value, expected: &dyn Expected) -> Self {
        let found = match value {
            Value::Null => Unexpected::Unit,
            Value::Bool(is) => Unexpected::Bool(*is),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Unexpected::Unsigned(number),
                (_, Some(number)) => Unexpected::Signed(number),
                _ => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        };
        Self::invalid_type(found, expected)
    }

    /// Puts `step`, the name of a member or `[INDEX]`, before the place.
    fn below(mut self, step: &str) -> Self {
        let path = &mut self.0.0;
        if !path.is_empty() && !path.starts_with('[') {
            path.insert(0, '.');
        }
        path.insert_str(0, step);
        self
    }

    /// Puts the index of an array's item before the place.
    fn below_item(self, index: usize) -> Self {
        self.below(&format!("[{index}]"))
    }
}

impl From<serde_json::Error> for Misfit {
    fn from(cause: serde_json::Error) -> Self {
        Self(Box::new((String::new(), cause)))
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {}", self.0.0, self.0.1)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(words: T) -> Self {
        serde_json::Error::custom(words).into()
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        serde_json::Error::invalid_type(found, expected).into()
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        serde_json::Error::invalid_value(found, expected).into()
    }
}

/// Methods of a deserializer that all call the method `$method`.
macro_rules! read_as {
    ($method:ident: $($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            self.$method(visitor)
        }
    )*};
}

impl Located {
    fn number<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Number(number) => visit_number(&number, visitor),
            other => Err(Misfit::of_type(&other, &visitor)),
        }
    }

    fn text<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            other => Err(Misfit::of_type(&other, &visitor)),
        }
    }

    fn array<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Array(items) => visit_items(items, visitor),
            other => Err(Misfit::of_type(&other, &visitor)),
        }
    }

    fn object<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Members::new(members)),
            other => Err(Misfit::of_type(&other, &visitor)),
        }
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, Misfit> {
    match (number.as_u64(), number.as_i64()) {
        (Some(number), _) => visitor.visit_u64(number),
        (_, Some(number)) => visitor.visit_i64(number),
        _ => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
    }
}

fn visit_items<'de, V: Visitor<'de>>(items: Vec<Value>, visitor: V) -> Result<V::Value, Misfit> {
    let count = items.len();
    let mut items = Items { rest: items.into_iter(), index: 0 };
    let read = visitor.visit_seq(&mut items)?;
    match items.rest.len() {
        0 => Ok(read),
        _ => Err(Misfit::invalid_length(count, &"fewer elements in array")),
    }
}

impl<'de> Deserializer<'de> for Located {
    type Error = Misfit;

    read_as!(number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64);
    read_as!(text: deserialize_str deserialize_string deserialize_identifier);
    read_as!(array: deserialize_seq);
    read_as!(object: deserialize_map);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(is) => visitor.visit_bool(is),
            Value::Number(number) => visit_number(&number, visitor),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visit_items(items, visitor),
            Value::Object(members) => visitor.visit_map(Members::new(members)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.0 {
            Value::Bool(is) => visitor.visit_bool(is),
            other => Err(Misfit::of_type(&other, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.object(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misfit> {
        self.array(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        Ok(self.0.deserialize_enum(name, variants, visitor)?)
    }

    forward_to_deserialize_any! { i128 u128 char bytes byte_buf unit unit_struct tuple_struct ignored_any }
}

/// The items of an array that are not read yet.
struct Items {
    rest: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        let Some(item) = self.rest.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Located(item)).map(Some).map_err(|misfit| misfit.below_item(index))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The members of an object that are not read yet.
struct Members {
    rest: <Map<String, Value> as IntoIterator>::IntoIter,
    /// The member whose name was read and whose value was not.
    next: Option<(String, Value)>,
}

impl Members {
    fn new(members: Map<String, Value>) -> Self {
        Self { rest: members.into_iter(), next: None }
    }
}

impl<'de> MapAccess<'de> for Members {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        self.next = Some((name.clone(), value));
        seed.deserialize(Located(Value::String(name))).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Misfit> {
        let (name, value) = self.next.take().ok_or_else(|| Misfit::custom("a value was read before its name"))?;
        seed.deserialize(Located(value)).map_err(|misfit| misfit.below(&name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Host,
        Size(u8),
    }

    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
    #[serde(try_from = "String")]
    struct Name(String);

    impl TryFrom<String> for Name {
        type Error = &'static str;

        fn try_from(text: String) -> Result<Self, Self::Error> {
            if text.contains('/') { Err("a name has no slash") } else { Ok(Self(text)) }
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Wrapped(BTreeMap<Name, Option<Kind>>);

    #[derive(Debug, PartialEq, Deserialize)]
    struct All {
        named: Wrapped,
        pair: (i64, f64),
        nested: Vec<Vec<bool>>,
    }

    fn all(named: Value, pair: Value, nested: Value) -> Result<All, Misfit> {
        All::deserialize(Located(json!({"named": named, "pair": pair, "nested": nested})))
    }

    #[test]
    fn values_are_those_of_serde_json() {
        let whole =
            json!({"named": {"a": "host", "b": {"size": 7}, "c": null}, "pair": [-1, 2.5], "nested": [[], [true]]});
        assert_eq!(All::deserialize(Located(whole.clone())).unwrap(), serde_json::from_value(whole).unwrap());
    }

    #[test]
    fn every_misfit_has_its_place() {
        let (named, pair, nested) = (json!({}), json!([0, 0.0]), json!([]));
        for (read, line) in [
            (
                all(json!({"a": "tape"}), pair.clone(), nested.clone()),
                "named.a: unknown variant `tape`, expected `host` or `size`",
            ),
            (all(json!({"a/b": "host"}), pair.clone(), nested.clone()), "named: a name has no slash"),
            (
                all(json!({"a": {"size": 256}}), pair.clone(), nested.clone()),
                "named.a: invalid value: integer `256`, expected u8",
            ),
            (
                all(named.clone(), json!([0, 0.0, 1]), nested.clone()),
                "pair: invalid length 3, expected fewer elements in array",
            ),
            (all(named.clone(), json!([0]), nested), "pair: invalid length 1, expected a tuple of size 2"),
            (
                all(named, pair, json!([[], [true, "x"]])),
                "nested[1][1]: invalid type: string \"x\", expected a boolean",
            ),
        ] {
            assert_eq!(read.unwrap_err().to_string(), line);
        }
    }
}
