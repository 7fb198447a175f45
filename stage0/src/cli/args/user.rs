//! The option `--user USER[:GROUP]`

use stage1::error::{Error, Result};

/// The user and the group of `--user` and `--group`. `USER:GROUP` in `--user` gives both.
///
/// # Errors
/// A name is empty, or both options give a group.
pub fn identity(user: Option<String>, group: Option<String>) -> Result<(Option<String>, Option<String>)> {
    let Some(text) = user else { return Ok((None, group)) };
    let Some((name, own)) = text.split_once(':') else { return Ok((Some(text), group)) };
    if name.is_empty() || own.is_empty() || own.contains(':') {
        return Err(Error::new(format!("--user {text:?}: expected USER, or USER:GROUP, each a name or a number")));
    }
    match group {
        None => Ok((Some(name.to_owned()), Some(own.to_owned()))),
        Some(group) => {
            Err(Error::new(format!("--user {text:?} and --group {group:?} both give a group: leave one out")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_given_in_one_place() {
        let read = |user: Option<&str>, group: Option<&str>| identity(user.map(Into::into), group.map(Into::into));
        let both = |user: Option<&str>, group: Option<&str>| (user.map(Into::into), group.map(Into::into));
        assert_eq!(read(None, Some("5")).unwrap(), both(None, Some("5")));
        assert_eq!(read(Some("web"), Some("www")).unwrap(), both(Some("web"), Some("www")));
        assert_eq!(read(Some("7"), None).unwrap(), both(Some("7"), None));
        assert_eq!(read(Some("web:www"), None).unwrap(), both(Some("web"), Some("www")));
        for (user, group) in [("web:", None), (":5", None), ("1:2:3", None), ("web:www", Some("www"))] {
            let line = read(Some(user), group).unwrap_err().one_line();
            assert!(line.starts_with("--user "), "{line}");
        }
    }
}
