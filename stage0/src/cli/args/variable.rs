//! Variables on the command line.

use stage1::appc::NameValue;
use stage1::error::{Context, Result};
use stage1::launch::env;

/// Variables, each written `NAME=VALUE`. The environment is a file of lines, so a value has no line break.
///
/// # Errors
/// The first that can't be taken.
pub fn environment(texts: &[String]) -> Result<Vec<NameValue>> {
    texts.iter().map(|text| variable(text).context(|| format!("variable {text:?}"))).collect()
}

fn variable(text: &str) -> Result<NameValue> {
    let (name, value) = text.split_once('=').context(|| "expected NAME=VALUE")?;
    env::check(name, value)?;
    Ok(NameValue::new(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_names_and_values() {
        assert_eq!(environment(&["A=b=c".to_owned()]).unwrap()[0].value, "b=c");
        for bad in ["A", "=b", "A=b\nB=c", "A\nB=c"] {
            let error = environment(&[bad.to_owned()]).unwrap_err().one_line();
            assert!(!error.contains('\n'), "{bad:?}");
        }
    }
}
