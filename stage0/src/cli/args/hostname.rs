//! Host names on the command line.

use stage1::error::{Error, Result};

/// A host name as the kernel and RFC 1123 take it.
///
/// # Errors
/// It is none.
pub fn hostname(text: &str) -> Result<String> {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        bytes.len() <= 63
            && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    if text.len() <= 64 && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err(Error::new(format!("host name {text:?}: use letters, digits, dashes and dots, 64 at most")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        assert!(hostname("web-1.example.com").is_ok());
        for bad in ["", "-a", "a_b", "a..b", "a\nb", &"a".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad:?}");
        }
    }
}
