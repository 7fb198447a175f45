//! What proves to a registry who asks.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stage1::error::{Context, Error, Result};

/// What proves who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password.
    Password(String, String),
    /// A token that is changed for others.
    Identity(String),
}

/// Nothing secret is printed.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(user, _) => write!(f, "Password({user:?})"),
            Self::Identity(_) => f.write_str("Identity"),
        }
    }
}

impl Credentials {
    /// A user and a password.
    ///
    /// # Errors
    /// The user has a colon, or one of them a line break or the like.
    pub fn password(user: &str, password: &str) -> Result<Self> {
        let bad = |text: &str| text.is_empty() || text.chars().any(char::is_control);
        if bad(user) || user.contains(':') {
            return Err(Error::new("a user's name has at least a letter, no colon and no control characters"));
        }
        if bad(password) {
            return Err(Error::new("a password has at least a letter and no control characters"));
        }
        Ok(Self::Password(user.to_owned(), password.to_owned()))
    }

    /// The value of `Authorization` that Basic authentication takes; a token can't be used for that.
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Self::Password(user, password) => Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
            Self::Identity(_) => None,
        }
    }

    /// An entry of a file, or what has the same members. `None` if nothing is in it.
    ///
    /// # Errors
    /// It is not what it should be.
    pub fn of_entry(entry: &Value) -> Result<Option<Self>> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Self::Identity(token.to_owned())));
        }
        let Some(auth) = text("auth") else {
            return match (text("username"), text("password")) {
                (Some(user), Some(password)) => Self::password(user, password).map(Some),
                // docker leaves an empty entry where a store of secrets has them
                _ => Ok(None),
            };
        };
        let plain = STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let plain = plain.context(|| "\"auth\" is not base64 of USER:PASSWORD")?;
        let (user, password) = plain.split_once(':').context(|| "\"auth\" is not base64 of USER:PASSWORD")?;
        Self::password(user, password.trim_end_matches('\0')).map(Some)
    }

    /// The entry of a file.
    pub(super) fn entry(&self) -> Value {
        match self {
            Self::Password(user, password) => json!({ "auth": STANDARD.encode(format!("{user}:{password}")) }),
            Self::Identity(token) => json!({ "identitytoken": token }),
        }
    }
}
