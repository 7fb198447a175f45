//! Host names on the command line.

use stage1::error::Result;

/// Checks a host name.
///
/// # Errors
/// The kernel would refuse it: it is empty, too long or has an invalid character.
pub fn hostname(text: &str) -> Result<String> {
    stage1::boot::check_hostname(text).map(|()| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        assert!(hostname("web-1.example.com").is_ok() && hostname(&"a_".repeat(32)).is_ok());
        for bad in ["", "a b", "a\nb", &"a".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad:?}");
        }
    }
}
