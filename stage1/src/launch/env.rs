//! An app's environment, and the environment file that has it: CONTRACT section 1.

use crate::appc::{AcName, NameValue};
use crate::confine::ids::{Account, Ids};
use crate::error::{Error, Result};

/// `PATH` of an app that does not set one.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of an app: the variables that it declares, then those of the pod, then `PATH`, `HOME`, `USER`,
/// `LOGNAME` and `SHELL` if it does not declare them. Host side. Pure.
///
/// The last four are from the user's line in the image's passwd file. Without such a line uid 0 has those of root; any
/// other uid has the home directory `/`, the shell `/bin/sh` and its number as its name.
///
/// # Errors
/// As [`check`] for a variable.
pub fn compute(
    declared: &[NameValue],
    app: &AcName,
    metadata_url: Option<&str>,
    ids: &Ids,
) -> Result<Vec<(String, String)>> {
    let mut environment: Vec<(String, String)> = Vec::with_capacity(declared.len() + 7);
    let of_pod = [("AC_APP_NAME", Some(app.as_ref())), ("AC_METADATA_URL", metadata_url)];
    for NameValue { name, value, .. } in declared {
        check(name, value)?;
        set(&mut environment, name, value);
    }
    for (name, value) in of_pod.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        check(name, value)?;
        set(&mut environment, name, value);
    }
    for (name, value) in std::iter::once(("PATH", DEFAULT_PATH.to_owned())).chain(of_account(ids)) {
        if get(&environment, name).is_none() {
            set(&mut environment, name, &value);
        }
    }
    Ok(environment)
}

/// `HOME`, `USER`, `LOGNAME` and `SHELL` of a user, as [`compute`] sets them.
pub fn of_account(ids: &Ids) -> [(&'static str, String); 4] {
    let account = ids.account.clone().unwrap_or_else(|| match ids.uid {
        0 => Account { name: "root".into(), home: "/root".into(), shell: "/bin/sh".into() },
        uid => Account { name: uid.to_string(), home: "/".into(), shell: "/bin/sh".into() },
    });
    [("HOME", account.home), ("USER", account.name.clone()), ("LOGNAME", account.name), ("SHELL", account.shell)]
}

/// The value of a variable, if it is set.
pub fn get<'a>(environment: &'a [(String, String)], name: &str) -> Option<&'a str> {
    environment.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Sets a variable, in place if it is set already.
pub fn set(environment: &mut Vec<(String, String)>, name: &str, value: &str) {
    match environment.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => environment.push((name.to_owned(), value.to_owned())),
    }
}

/// The value of this process's `TERM`, or `vt100`: the terminal type for a command that writes to the caller's
/// terminal.
pub fn callers_term() -> String {
    let term = std::env::var("TERM").ok().filter(|term| !term.is_empty() && !term.contains(['\n', '\0']));
    term.unwrap_or_else(|| "vt100".to_owned())
}

/// Checks that a variable can be in a process's environment, and its name in a line of the environment file.
///
/// # Errors
/// Its name is empty or has `=` or a newline, or its name or value has a NUL byte.
pub fn check(name: &str, value: &str) -> Result<()> {
    if name.is_empty() || name.contains(['=', '\n', '\0']) {
        return Err(Error::new(format!("environment: {name:?} can't be the name of a variable")));
    }
    if value.contains('\0') {
        return Err(Error::new(format!("environment: the value of {name:?} has a NUL byte")));
    }
    Ok(())
}

/// Whether a value has several lines: then the environment file, which has one variable per line, can't hold it.
fn has_lines(value: &str) -> bool {
    value.contains('\n')
}

/// The text of an environment file: one `NAME=value` per line. It leaves out the variables whose value has a newline;
/// [`of_file_and_record`] adds them.
///
/// # Errors
/// As [`check`] for a variable.
pub fn to_file(environment: &[(String, String)]) -> Result<String> {
    environment.iter().try_fold(String::new(), |mut text, (name, value)| {
        check(name, value)?;
        if !has_lines(value) {
            text.extend([name, "=", value, "\n"]);
        }
        Ok(text)
    })
}

/// The environment in the text of an environment file, with those variables of the launch record that the file can't
/// hold. A variable of the file takes precedence. Pod side.
pub fn of_file_and_record(text: &str, record: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut environment = from_file(text);
    for (name, value) in record {
        if has_lines(&value) && get(&environment, &name).is_none() {
            environment.push((name, value));
        }
    }
    environment
}

/// Parses the text of an environment file. Pod side. Lines that are not variables are left out, because the file may
/// have been written by another program.
pub fn from_file(text: &str) -> Vec<(String, String)> {
    let mut environment = Vec::new();
    for (name, value) in text.split('\n').filter_map(|line| line.split_once('=')) {
        if check(name, value).is_ok() {
            set(&mut environment, name, value);
        }
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn declared(variables: &[(&str, &str)]) -> Vec<NameValue> {
        variables.iter().map(|&(name, value)| NameValue::new(name, value)).collect()
    }

    fn web() -> AcName {
        "web".parse().unwrap()
    }

    #[test]
    fn declared_then_told_then_defaults() {
        let declared = declared(&[("B", "1"), ("HOME", "/h"), ("AC_APP_NAME", "liar"), ("B", "2=3"), ("EMPTY", "")]);
        let environment = compute(&declared, &web(), None, &Ids::default()).unwrap();
        let expected = own(&[
            ("B", "2=3"),
            ("HOME", "/h"),
            ("AC_APP_NAME", "web"),
            ("EMPTY", ""),
            ("PATH", DEFAULT_PATH),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("SHELL", "/bin/sh"),
        ]);
        assert_eq!(environment, expected);
        let environment = compute(&[], &web(), Some("http://h/t"), &Ids { uid: 7, ..Ids::default() }).unwrap();
        for (name, value) in [("USER", "7"), ("HOME", "/"), ("AC_METADATA_URL", "http://h/t")] {
            assert_eq!(get(&environment, name), Some(value));
        }
    }

    #[test]
    fn files() {
        let variables = own(&[("A", "1"), ("B", "x = y "), ("C", "")]);
        assert_eq!(to_file(&variables).unwrap(), "A=1\nB=x = y \nC=\n");
        assert_eq!(from_file("A=1\nB=x = y \nC=\n"), variables);
        assert_eq!(from_file("\nrubbish\n=x\nA=0\nA=1"), own(&[("A", "1")]));
        let with_lines = own(&[("A", "1"), ("KEY", "-----\nB=2\n"), ("C", "")]);
        assert_eq!(to_file(&with_lines).unwrap(), "A=1\nC=\n");
        for (name, value) in [("A", "\0"), ("", "x"), ("A=B", "x"), ("A\nB", "x")] {
            assert!(to_file(&own(&[(name, value)])).unwrap_err().one_line().contains("environment"), "{name:?}");
        }
    }

    #[test]
    fn values_of_several_lines_come_from_the_record() {
        let record = own(&[("A", "1"), ("KEY", "x\ny"), ("LATE", "of\nthe record")]);
        let found = of_file_and_record("A=2\nLATE=of the file\n", record);
        assert_eq!(found, own(&[("A", "2"), ("LATE", "of the file"), ("KEY", "x\ny")]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(variables in proptest::collection::vec((".{0,6}", "(.|\n){0,12}"), 0..8)) {
            let declared: Vec<_> = variables.iter().map(|(name, value)| NameValue::new(name, value)).collect();
            if let Ok(environment) = compute(&declared, &web(), None, &Ids::default()) {
                let text = to_file(&environment).unwrap();
                let mut found = of_file_and_record(&text, environment.clone());
                let mut environment = environment;
                found.sort();
                environment.sort();
                prop_assert_eq!(found, environment);
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            let environment = from_file(&text);
            prop_assert_eq!(from_file(&to_file(&environment).unwrap()), environment);
        }
    }
}
