//! The check of names that users give to pods and volumes: one word, which is also a file name.

use stage1::error::{Error, Result};

/// The longest name, in bytes.
pub(crate) const LONGEST: usize = 64;

/// Fails unless `text` can be a name; `what` says in the message what it would name, for example `pod`.
///
/// # Errors
/// The text is empty, has more than [`LONGEST`] bytes, does not begin with an ASCII letter or digit, or has characters
/// other than ASCII letters, digits and `_.-`.
pub(crate) fn check(text: &str, what: &str) -> Result<()> {
    let is_first = |byte: u8| byte.is_ascii_alphanumeric();
    let is_later = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let is_name = text.bytes().next().is_some_and(is_first) && text.bytes().all(is_later);
    if !is_name || text.len() > LONGEST {
        return Err(Error::new(format!(
            "{text:?} is not a name for a {what}: up to {LONGEST} of a-z A-Z 0-9 _ . -, a letter or digit first"
        )));
    }
    Ok(())
}
