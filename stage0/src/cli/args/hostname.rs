//! Host names on the command line.

use stage1::error::{Error, Result};

/// The kernel takes no longer one: HOST_NAME_MAX of uname(2).
const LONGEST: usize = 64;

/// A host name in the letters of RFC 1123, of any length that the kernel takes.
///
/// # Errors
/// It is none.
pub fn hostname(text: &str) -> Result<String> {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        bytes.len() <= LONGEST
            && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    if text.len() <= LONGEST && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err(Error::new(format!("host name {text:?}: use letters, digits, dashes and dots, {LONGEST} at most")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        assert!(hostname("web-1.example.com").is_ok() && hostname(&"a".repeat(64)).is_ok());
        for bad in ["", "-a", "a_b", "a..b", "a\nb", &"a".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad:?}");
        }
    }
}
