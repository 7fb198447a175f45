//! AC names and AC identifiers: strings that are checked when they are parsed, and then safe in file and unit names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $separators:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                if is_separated(text, $separators) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(Error::new(format!("{text:?} is not {}: {}", $what, $rule)))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// An AC name: `^[a-z0-9]+([-][a-z0-9]+)*$`. Safe as part of a file name and of a unit's name.
    ///
    /// ```
    /// use stage1::appc::AcName;
    ///
    /// assert_eq!("web-1".parse::<AcName>()?.as_ref(), "web-1");
    /// assert!("../web".parse::<AcName>().is_err());
    /// # Ok::<(), stage1::Error>(())
    /// ```
    AcName, "a valid name", "-", "use lower-case letters, digits and single dashes between them"
);
name_type!(
    /// An AC identifier: `^[a-z0-9]+([-._~/][a-z0-9]+)*$`. It may have slashes, but no component `.` or `..`.
    ///
    /// ```
    /// use stage1::appc::AcIdentifier;
    ///
    /// assert!("example.com/web".parse::<AcIdentifier>().is_ok());
    /// assert!("example.com/../web".parse::<AcIdentifier>().is_err());
    /// ```
    AcIdentifier, "a valid identifier", "-._~/",
    "use lower-case letters, digits and one of - . _ ~ / between them"
);

/// Whether `text` is words of lower-case letters and digits with exactly one of `separators` between two of them.
fn is_separated(text: &str, separators: &str) -> bool {
    text.split(|c| separators.contains(c))
        .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}

impl AcName {
    /// Names an app after its image: the last segment of the image's name in lower case, with each run of other
    /// characters replaced by a dash, and dashes at the ends removed.
    ///
    /// ```
    /// use stage1::appc::AcName;
    ///
    /// assert_eq!(AcName::from_image_name("example.com/Foo_Bar:1.2")?.as_ref(), "foo-bar-1-2");
    /// # Ok::<(), stage1::Error>(())
    /// ```
    ///
    /// # Errors
    /// The last segment has neither letters nor digits.
    pub fn from_image_name(image: &str) -> Result<Self> {
        let last = image.rsplit('/').next().unwrap_or_default().to_lowercase();
        let dashed: String =
            last.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
        let words: Vec<&str> = dashed.split('-').filter(|word| !word.is_empty()).collect();
        words.join("-").parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "a-b", "0", "shutdown", "systemd-journald"] {
            good.parse::<AcName>().unwrap();
        }
        for bad in ["", "-", "a-", "-a", "a--b", "A", "a.b", "../x", "a\nb", "a/b", "é", "a b", "a%n"] {
            assert!(bad.parse::<AcName>().is_err(), "{bad:?}");
        }
        "example.com/reduce-worker_1.0~rc".parse::<AcIdentifier>().unwrap();
        for bad in ["", "/a", "a//b", "a/../b", "A", "a\n"] {
            assert!(bad.parse::<AcIdentifier>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn from_image_names() {
        assert_eq!(AcName::from_image_name("example.com/Foo_Bar..baz-").unwrap().as_ref(), "foo-bar-baz");
        assert!(AcName::from_image_name("example.com/").is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_parses_is_safe(text in "\\PC{0,12}") {
            if let Ok(name) = text.parse::<AcName>() {
                proptest::prop_assert_eq!(name.as_ref(), &text);
                proptest::prop_assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            }
        }
    }
}
