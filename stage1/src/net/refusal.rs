//! Parts of a plugin's input that older plugins accept and newer ones refuse. They are left out only after a plugin has
//! refused them. Pure.

use serde_json::{Map, Value};

use super::config;
use crate::error::Result;
use crate::json;

/// How the input of a plugin is changed after it has refused it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Leave out the member `args` of the configuration: an arbitrary list in old configurations, an object with
    /// defined members in newer versions.
    without_args: bool,
    /// Add `IgnoreUnknown=1` to `CNI_ARGS`, by which a plugin ignores arguments that are meant for other plugins.
    ignores_unknown: bool,
}

impl Manner {
    /// Adapts to a plugin that has refused the configuration `text` with the message `words`. Returns what is changed,
    /// for a warning; `None` if the plugin's error stands. It stands for an `args` that is an object, which is meant
    /// for newer plugins.
    pub fn give_way(&mut self, words: &str, text: &[u8]) -> Option<&'static str> {
        // Go: json: cannot unmarshal array into Go struct field NetConf.args of type …
        let is_of_args = |rest: &str| {
            let field = rest.split_whitespace().next().unwrap_or_default();
            field.split('.').nth(1) == Some("args")
        };
        let refuses_args =
            words.contains("cannot unmarshal") && words.split("Go struct field ").skip(1).any(is_of_args);
        let is_object = || {
            let members = json::parse(text).map(config::members).unwrap_or_default();
            members.get("args").is_none_or(Value::is_object)
        };
        if refuses_args && !self.without_args && !is_object() {
            self.without_args = true;
            return Some("trying again without \"args\"");
        }
        if words.contains("ARGS: unknown args") && !self.ignores_unknown {
            self.ignores_unknown = true;
            return Some("trying again with IgnoreUnknown=1");
        }
        None
    }

    /// Changes a configuration accordingly.
    ///
    /// # Errors
    /// `text` is not a JSON object.
    pub fn input(self, text: Vec<u8>) -> Result<Vec<u8>> {
        if !self.without_args {
            return Ok(text);
        }
        let mut members: Map<String, Value> = config::members(json::parse(&text)?);
        members.remove("args");
        Ok(Value::Object(members).to_string().into_bytes())
    }

    /// Changes a value of `CNI_ARGS` accordingly.
    pub fn arguments(self, arguments: &str) -> String {
        if self.ignores_unknown { format!("IgnoreUnknown=1;{arguments}") } else { arguments.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_refused_and_only_once() {
        let text = br#"{ "Name":"x", "Args":["A=1"], "args2": 1 }"#;
        let mut manner = Manner::default();
        assert_eq!(manner.give_way("failed to create bridge", text), None);
        assert_eq!(
            manner.give_way("json: cannot unmarshal string into Go struct field NetConf.mtu of type int", text),
            None
        );
        assert_eq!(
            manner.give_way("cannot unmarshal string into Go struct field Net.runtimeConfig.args of type int", text),
            None
        );
        assert_eq!((manner.input(text.to_vec()).unwrap(), manner.arguments("A=1")), (text.to_vec(), "A=1".into()));
        for field in ["NetConf.args of type struct { Cni", ".args.cni of type main"] {
            let words = format!("failed to load netconf: json: cannot unmarshal array into Go struct field {field}");
            let mut manner = manner;
            assert_eq!(manner.give_way(&words, br#"{"args":{"cni":7}}"#), None, "an object is meant for newer plugins");
            assert_eq!(manner.give_way(&words, text), Some("trying again without \"args\""));
            assert_eq!(manner.give_way(&words, text), None);
            assert_eq!(manner.input(text.to_vec()).unwrap(), br#"{"args2":1,"name":"x"}"#);
        }
        assert_eq!(manner.give_way(r#"ARGS: unknown args ["A=1"]"#, text), Some("trying again with IgnoreUnknown=1"));
        assert_eq!(manner.give_way(r#"ARGS: unknown args ["A=1"]"#, text), None);
        assert_eq!(manner.arguments("A=1"), "IgnoreUnknown=1;A=1");
    }
}
