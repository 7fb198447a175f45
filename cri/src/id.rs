//! Ids of sandboxes and containers, which are opaque to clients.
//!
//! A sandbox's id is the 32 hexadecimal digits of its pod's UUID. A container's id is 32 random hexadecimal digits,
//! which are the name of its app, followed by its sandbox's id: the runtime finds its pod without reading all pods.

use std::fmt;

use stage1::appc::AcName;
use uuid::Uuid;

use crate::fault::{Fault, Result};

/// The number of hexadecimal digits of a UUID.
const DIGITS: usize = 32;

/// The id of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerId {
    /// The name of the container's app.
    pub app: AcName,
    /// The UUID of the app's pod.
    pub pod: Uuid,
}

impl ContainerId {
    /// A new random id for a container of this pod.
    ///
    /// # Errors
    /// Never: the digits of a UUID are a valid name of an app.
    pub fn new(pod: Uuid) -> Result<Self> {
        Ok(Self { app: Uuid::new_v4().simple().to_string().parse()?, pod })
    }

    /// Parses a whole id. `None` if the text is not a container's id.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = text.len() == 2 * DIGITS && is_hex(text);
        let (app, pod) = is_id.then(|| text.split_at(DIGITS))?;
        Some(Self { app: app.parse().ok()?, pod: Uuid::try_parse(pod).ok()? })
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.app, self.pod.simple())
    }
}

/// The id of a sandbox.
pub fn of_sandbox(pod: Uuid) -> String {
    pod.simple().to_string()
}

/// Parses a whole id. `None` if the text is not a sandbox's id.
pub fn sandbox(text: &str) -> Option<Uuid> {
    (text.len() == DIGITS && is_hex(text)).then(|| Uuid::try_parse(text).ok())?
}

/// Whether the app is a container: its name has the form of the first half of a container's id.
pub fn is_of_container(app: &AcName) -> bool {
    let app: &str = app.as_ref();
    app.len() == DIGITS && is_hex(app)
}

/// The one of `all`, pairs of an id and a thing, whose id is `text` or begins with it. `what` names the kind of thing
/// in messages.
///
/// # Errors
/// No id matches, or several do.
pub fn meant<T>(what: &str, text: &str, all: Vec<(String, T)>) -> Result<T> {
    let none = || Fault::not_found(format!("there is no {what} {text:?}"));
    if !is_hex(text) || text.is_empty() {
        return Err(none());
    }
    let mut found = all.into_iter().filter(|(id, _)| id.starts_with(text));
    match (found.next(), found.next()) {
        (Some((_, one)), None) => Ok(one),
        (None, _) => Err(none()),
        (Some((one, _)), Some((other, _))) => Err(Fault::invalid(format!(
            "{text:?} is ambiguous: it is the start of the ids of {what} {one} and {what} {other}"
        ))),
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_pod_and_app() {
        let pod = Uuid::new_v4();
        let id = ContainerId::new(pod).unwrap();
        let text = id.to_string();
        assert_eq!((text.len(), ContainerId::parse(&text)), (64, Some(id.clone())));
        assert!(is_of_container(&id.app) && !is_of_container(&"web".parse().unwrap()));
        assert_eq!(sandbox(&of_sandbox(pod)), Some(pod));
        for bad in ["", &text[1..], &text.to_uppercase(), &format!("{}/", &text[1..]), &pod.to_string()] {
            assert_eq!((ContainerId::parse(bad), sandbox(bad)), (None, None), "{bad}");
        }
    }

    #[test]
    fn the_start_of_an_id_is_enough_if_it_is_one() {
        let all = || vec![("abc0".to_owned(), 1), ("abd1".to_owned(), 2)];
        assert_eq!(meant("container", "abc", all()).unwrap(), 1);
        assert_eq!(meant("container", "ab", all()).unwrap_err().code, tonic::Code::InvalidArgument);
        for none in ["", "x", "abc00", "../abc0", "ABC0"] {
            assert!(meant("container", none, all()).unwrap_err().is_not_found(), "{none:?}");
        }
    }
}
