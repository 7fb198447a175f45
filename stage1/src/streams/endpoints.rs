//! The list of an app's endpoints, to which clients attach: CONTRACT sections 3 and 7.

use serde::{Deserialize, Serialize};

use super::socket;
use crate::appc::AcName;
use crate::error::{Error, Result};
use crate::json::{self, or_default};
use crate::layout;

/// The version of the list.
const VERSION: u64 = 1;

/// An endpoint of an app.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Endpoint {
    /// `stdin`, `stdout`, `stderr` or `tty`.
    pub name: String,
    /// `unix`.
    pub domain: String,
    /// Path of the socket in the pod.
    pub address: String,
}

/// The list in JSON.
#[derive(Deserialize, Serialize)]
struct ListJson {
    version: u64,
    #[serde(default, deserialize_with = "or_default")]
    targets: Vec<Endpoint>,
}

/// All endpoints of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointList(pub Vec<Endpoint>);

impl EndpointList {
    /// The endpoints of `app` with these names.
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
    /// It is not a list, or of another version.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let list: ListJson = json::parse(text)?;
        if list.version != VERSION {
            return Err(Error::new(format!("endpoints of version {}: only {VERSION} is known", list.version)));
        }
        Ok(Self(list.targets))
    }

    /// The list in JSON, on one line.
    pub fn text(&self) -> String {
        let list = ListJson { version: VERSION, targets: self.0.clone() };
        serde_json::to_string(&list).expect("strings and a number")
    }

    /// Whether there is an endpoint of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|target| target.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_contract_has_it() {
        let targets = EndpointList::new(&"web".parse().unwrap(), ["stdin", "stdout"]);
        let text = concat!(
            r#"{"version":1,"targets":[{"name":"stdin","domain":"unix","address":"/rkt/iottymux/web/sock-stdin"},"#,
            r#"{"name":"stdout","domain":"unix","address":"/rkt/iottymux/web/sock-stdout"}]}"#
        );
        assert_eq!(targets.text(), text);
        assert_eq!(EndpointList::parse(text.as_bytes()).unwrap(), targets);
        assert!(targets.has("stdin") && !targets.has("tty"));
        assert_eq!(EndpointList::default().text(), r#"{"version":1,"targets":[]}"#);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in ["", "[]", "{}", r#"{"version":2,"targets":[]}"#, r#"{"version":1,"targets":[{"name":1}]}"#] {
            assert!(EndpointList::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
