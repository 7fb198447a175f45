//! Names that people give: one word that is also the name of a file.

use stage1::error::{Error, Result};

/// The longest name, in bytes.
pub(crate) const LONGEST: usize = 64;

/// Refuses a text that can't be the name of a `what`.
///
/// # Errors
/// It is empty, too long, begins with another character than a letter or digit, or has others than letters, digits and
/// `_.-`.
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
