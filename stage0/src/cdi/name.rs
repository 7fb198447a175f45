//! Names of devices: `VENDOR/CLASS=NAME`.

use stage1::error::{Error, Result};

/// Whether a word is meant as a device's name, and not as a path of the host.
pub fn is_name(text: &str) -> bool {
    split(text).is_some_and(|(kind, name)| is_kind(kind) && is_device(name))
}

/// Checks a device's name.
///
/// # Errors
/// It is malformed.
pub(super) fn check(text: &str) -> Result<()> {
    match is_name(text) {
        true => Ok(()),
        false => Err(Error::new(format!("CDI device {text:?}: expected VENDOR/CLASS=NAME, such as example.com/gpu=0"))),
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    text.split_once('=')
}

/// Whether a text is the kind of devices: `VENDOR/CLASS`.
pub(super) fn is_kind(text: &str) -> bool {
    let word = |word: &str, more: &[u8]| is_word(word, more) && word.as_bytes()[0].is_ascii_alphabetic();
    text.split_once('/').is_some_and(|(vendor, class)| word(vendor, b"_-.") && word(class, b"_-"))
}

/// Whether a text is the name of a device within its kind.
pub(super) fn is_device(text: &str) -> bool {
    is_word(text, b"_-.:")
}

/// Whether a text has letters and digits of ASCII at both ends, and between them also those of `more`.
fn is_word(text: &str, more: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || more.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        for good in ["example.com/gpu=0", "vendor/class=all", "a-b.c_d/e-f_g=1:2.3-x_y"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "/dev/null",
            "vendor=0",
            "vendor/class",
            "vendor/class=",
            "/class=0",
            "vendor/=0",
            "1vendor/class=0",
            "vendor/1class=0",
            "vendor./class=0",
            "vendor/cl.ss=0",
            "vendor/class=-0",
            "vendor/class=a=b",
            "v/c/d=0",
            "vendor/class=a/b",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
