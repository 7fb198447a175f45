//! The credentials of a user of a registry.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stage1::error::{Context, Error, Result};

/// The credentials of a user of a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and a password.
    Password(String, String),
    /// An identity token: an OAuth 2 refresh token, which the token server exchanges for access tokens.
    Identity(String),
    /// A registry token: an access token, which the registry itself takes.
    Registry(String),
}

/// The size limit of an access token, which must fit in a header, in bytes.
pub(super) const MAX_TOKEN: usize = 48 << 10;

/// Whether a token can be sent in a header.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Leaves out passwords and tokens.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(user, _) => write!(f, "Password({user:?})"),
            Self::Identity(_) => f.write_str("Identity"),
            Self::Registry(_) => f.write_str("Registry"),
        }
    }
}

impl Credentials {
    /// A user name and a password.
    ///
    /// # Errors
    /// Either is empty or has a control character, or the user name has a colon.
    pub fn password(user: &str, password: &str) -> Result<Self> {
        let bad = |text: &str| text.is_empty() || text.chars().any(char::is_control);
        if bad(user) || user.contains(':') {
            return Err(Error::new("a user name must not be empty, or have a colon or a control character"));
        }
        if bad(password) {
            return Err(Error::new("a password must not be empty, or have a control character"));
        }
        Ok(Self::Password(user.to_owned(), password.to_owned()))
    }

    /// The value of `Authorization` for Basic authentication (RFC 7617); `None` for a token, which can't be used for
    /// it.
    pub(super) fn basic(&self) -> Option<String> {
        match self {
            Self::Password(user, password) => Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))),
            Self::Identity(_) | Self::Registry(_) => None,
        }
    }

    /// Reads an entry of `auths` in `auth.json`, or an object with the same fields. `None` if it holds no credentials.
    ///
    /// # Errors
    /// `auth` is not base64 of `USER:PASSWORD`, [`Self::password`] fails, or a registry token can't be sent in a header.
    pub fn of_entry(entry: &Value) -> Result<Option<Self>> {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = text("registrytoken") {
            // the token itself is a secret, which no message may quote
            return match is_token(token) {
                true => Ok(Some(Self::Registry(token.to_owned()))),
                false => Err(Error::new("the registry token is too long or has invalid characters")),
            };
        }
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Self::Identity(token.to_owned())));
        }
        let Some(auth) = text("auth") else {
            return match (text("username"), text("password")) {
                (Some(user), Some(password)) => Self::password(user, password).map(Some),
                // Docker leaves an empty entry where a credential helper keeps the secrets
                _ => Ok(None),
            };
        };
        let plain = STANDARD.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let plain = plain.context(|| "\"auth\" is not base64 of USER:PASSWORD")?;
        let (user, password) = plain.split_once(':').context(|| "\"auth\" is not base64 of USER:PASSWORD")?;
        Self::password(user, password.trim_end_matches('\0')).map(Some)
    }

    /// The entry of `auths` in `auth.json`.
    pub(super) fn entry(&self) -> Value {
        match self {
            Self::Password(user, password) => json!({ "auth": STANDARD.encode(format!("{user}:{password}")) }),
            Self::Identity(token) => json!({ "identitytoken": token }),
            Self::Registry(token) => json!({ "registrytoken": token }),
        }
    }
}
