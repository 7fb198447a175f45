//! Collecting the fields of a file that are not honoured: unknown ones, and known ones that podctl does not support.

use serde::Serialize;
use serde_json::Value;
use stage1::error::{Context, Result};

/// The paths of fields that are not honoured.
#[derive(Debug, Default)]
pub struct Unused(pub Vec<String>);

impl Unused {
    /// Adds the fields left in a value from which the translation took all fields that it honours.
    ///
    /// # Errors
    /// The value can't be converted to JSON.
    pub fn left(&mut self, path: &str, value: &impl Serialize) -> Result<()> {
        let value = serde_json::to_value(value).context(|| format!("look at {path}"))?;
        leaves(path, &value, &mut self.0);
        Ok(())
    }
}

fn leaves(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| leaves(&joined(path, name), value, found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(number, item)| leaves(&format!("{path}[{number}]"), item, found));
        }
        // taken, or the same as if it were missing
        Value::Null | Value::Bool(false) => {}
        Value::String(text) if text.is_empty() => {}
        _ => found.push(path.to_owned()),
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_named_by_its_path() {
        let mut unused = Unused::default();
        let left = serde_json::json!({"a": {"b": [{"c": 1}, {}], "d": ""}, "e": null, "f": false, "g": []});
        unused.left("spec", &left).unwrap();
        assert_eq!(unused.0, ["spec.a.b[0].c"]);
    }
}
