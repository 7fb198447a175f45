//! Environment variables on the command line and in files.

use std::path::{Path, PathBuf};

use stage1::appc::NameValue;
use stage1::error::{Context, Result};
use stage1::launch::env;

use crate::fsutil::dir::in_words;

/// The size limit of a file of variables, in bytes.
const LONGEST: u64 = 1 << 20;

/// The variables of `files`, then those of `texts`, each `NAME=VALUE`, or `NAME` for the caller's value. A later one
/// replaces an earlier one of its name.
///
/// # Errors
/// A file can't be read, or a variable has an invalid name, or a value with a NUL byte or that is not UTF-8.
pub fn environment(files: &[PathBuf], texts: &[String]) -> Result<Vec<NameValue>> {
    let mut found: Vec<NameValue> = Vec::new();
    let mut set = |variable: NameValue| {
        found.retain(|other| other.name != variable.name);
        found.push(variable);
    };
    for path in files {
        lines(path).map_err(in_words(path)).context(|| "--env-file")?.into_iter().for_each(&mut set);
    }
    for text in texts {
        if let Some(variable) = variable(text).context(|| format!("variable {text:?}"))? {
            set(variable);
        }
    }
    Ok(found)
}

/// The variables of a file in Docker's format: one per line, without quotes; a line that begins with `#` is a comment.
fn lines(path: &Path) -> Result<Vec<NameValue>> {
    let text = stage1::pod::read_bounded(path, LONGEST)?;
    let text = String::from_utf8(text).context(|| format!("{path:?} is not UTF-8"))?;
    let told = text.lines().map(str::trim_start).enumerate();
    let told = told.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let read = told.map(|(number, line)| variable(line).context(|| format!("{path:?}, line {}", number + 1)));
    Ok(read.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Parses `NAME=VALUE` or `NAME`; `None` if the caller does not have the variable `NAME`.
fn variable(text: &str) -> Result<Option<NameValue>> {
    let Some((name, value)) = text.split_once('=') else {
        env::check(text, "")?;
        let value = std::env::var_os(text).map(|value| value.into_string().ok().context(|| "it is not UTF-8"));
        let Some(value) = value.transpose()? else { return Ok(None) };
        env::check(text, &value)?;
        return Ok(Some(NameValue::new(text, value)));
    };
    env::check(name, value)?;
    Ok(Some(NameValue::new(name, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_names_and_values() {
        let of = |text: &str| environment(&[], &[text.to_owned()]);
        assert_eq!(of("A=b=c").unwrap()[0].value, "b=c");
        assert_eq!(of("A=b\nB=c").unwrap()[0].value, "b\nB=c");
        for bad in ["=b", "A=b\0", "A\nB=c", ""] {
            let error = of(bad).unwrap_err().one_line();
            assert!(!error.contains('\n'), "{bad:?}");
        }
        assert_eq!(of("PATH").unwrap()[0].value, std::env::var("PATH").unwrap(), "the caller's");
        assert!(of("NOBODY_HAS_THIS").unwrap().is_empty());
    }

    #[test]
    fn files_come_before_what_is_typed() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("env");
        std::fs::write(&path, "# a comment\n\n A=1\nB=\"quoted\" \nPATH\n").unwrap();
        let found = environment(std::slice::from_ref(&path), &["A=2".to_owned()]).unwrap();
        let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
        let path_of_caller = std::env::var("PATH").unwrap();
        assert_eq!(found, [("B", "\"quoted\" "), ("PATH", path_of_caller.as_str()), ("A", "2")]);
        std::fs::write(&path, "A=1\n=x\n").unwrap();
        let line = environment(&[path], &[]).unwrap_err().one_line();
        assert!(line.contains("line 2"), "{line}");
    }
}
