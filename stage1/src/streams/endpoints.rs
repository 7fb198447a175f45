//! The list of what one can attach to: CONTRACT sections 3 and 7.

use serde_json::{Value, json};

use super::socket;
use crate::appc::AcName;
use crate::error::{Error, Result};
use crate::json::{self, FromJson, Object};
use crate::layout;

/// The version of the list.
const VERSION: u64 = 1;

/// Something to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `stdin`, `stdout`, `stderr` or `tty`.
    pub name: String,
    /// `unix`.
    pub domain: String,
    /// Path of the socket in the pod.
    pub address: String,
}

impl FromJson for Endpoint {
    fn from_json(value: Value) -> Result<Self> {
        let mut object = Object::new(value)?;
        Ok(Self {
            name: object.required("name")?,
            domain: object.required("domain")?,
            address: object.required("address")?,
        })
    }
}

/// All that one can attach to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets(pub Vec<Endpoint>);

impl Targets {
    /// Those of `app` with these names.
    pub fn new<'a>(app: &AcName, names: impl IntoIterator<Item = &'a str>) -> Self {
        let endpoint = |name: &str| Endpoint {
            name: name.to_owned(),
            domain: "unix".to_owned(),
            address: format!("{}/{app}/{}", layout::IN_POD_IOTTYMUX, socket(name)),
        };
        Self(names.into_iter().map(endpoint).collect())
    }

    /// Reads a list.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn parse(text: &[u8]) -> Result<Self> {
        json::parse(text)
    }

    /// As it is written and printed, on one line.
    pub fn text(&self) -> String {
        let targets: Vec<String> = self
            .0
            .iter()
            .map(|target| {
                let [name, domain, address] = [&target.name, &target.domain, &target.address].map(|text| json!(text));
                format!(r#"{{"name":{name},"domain":{domain},"address":{address}}}"#)
            })
            .collect();
        format!(r#"{{"version":{VERSION},"targets":[{}]}}"#, targets.join(","))
    }

    /// Whether there is one of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|target| target.name == name)
    }
}

impl FromJson for Targets {
    fn from_json(value: Value) -> Result<Self> {
        let mut object = Object::new(value)?;
        let version: u64 = object.required("version")?;
        if version != VERSION {
            return Err(Error::new(format!("endpoints of version {version}: only {VERSION} is known")));
        }
        Ok(Self(object.optional("targets")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_contract_has_it() {
        let targets = Targets::new(&"web".parse().unwrap(), ["stdin", "stdout"]);
        let text = concat!(
            r#"{"version":1,"targets":[{"name":"stdin","domain":"unix","address":"/rkt/iottymux/web/sock-stdin"},"#,
            r#"{"name":"stdout","domain":"unix","address":"/rkt/iottymux/web/sock-stdout"}]}"#
        );
        assert_eq!(targets.text(), text);
        assert_eq!(Targets::parse(text.as_bytes()).unwrap(), targets);
        assert!(targets.has("stdin") && !targets.has("tty"));
        assert_eq!(Targets::default().text(), r#"{"version":1,"targets":[]}"#);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in ["", "[]", "{}", r#"{"version":2,"targets":[]}"#, r#"{"version":1,"targets":[{"name":1}]}"#] {
            assert!(Targets::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
