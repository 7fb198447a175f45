//! What newer plugins refuse of what older ones take. It is left out only when a plugin says so. Pure.

use serde_json::{Map, Value};

use super::config;
use crate::error::Result;
use crate::json;

/// How a plugin is told less than there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Manner {
    /// Without the member `args` of the configuration: once it was any list, now it is an object with meanings.
    without_args: bool,
    /// With the word that has a plugin ignore the arguments that it does not know, which may be for another one.
    ignores_unknown: bool,
}

impl Manner {
    /// Gives way to a plugin that has refused the configuration `text` with these words; what is done about it, if
    /// anything can be. An object of arguments is meant for such a plugin, so what it says of that stands.
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
            return Some("it is not told \"args\" of its configuration");
        }
        if words.contains("ARGS: unknown args") && !self.ignores_unknown {
            self.ignores_unknown = true;
            return Some("it is told to ignore it");
        }
        None
    }

    /// A configuration in this manner.
    ///
    /// # Errors
    /// It is not an object.
    pub fn input(self, text: Vec<u8>) -> Result<Vec<u8>> {
        if !self.without_args {
            return Ok(text);
        }
        let mut members: Map<String, Value> = config::members(json::parse(&text)?);
        members.remove("args");
        Ok(Value::Object(members).to_string().into_bytes())
    }

    /// Arguments in this manner.
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
            assert_eq!(manner.give_way(&words, br#"{"args":{"cni":7}}"#), None, "it is meant so");
            assert_eq!(manner.give_way(&words, text), Some("it is not told \"args\" of its configuration"));
            assert_eq!(manner.give_way(&words, text), None);
            assert_eq!(manner.input(text.to_vec()).unwrap(), br#"{"args2":1,"name":"x"}"#);
        }
        assert_eq!(manner.give_way(r#"ARGS: unknown args ["A=1"]"#, text), Some("it is told to ignore it"));
        assert_eq!(manner.give_way(r#"ARGS: unknown args ["A=1"]"#, text), None);
        assert_eq!(manner.arguments("A=1"), "IgnoreUnknown=1;A=1");
    }
}
