//! Several pods on one command line

use stage1::error::{Error, Result};

/// Calls `work` with each word, and goes on after a failure.
///
/// # Errors
/// `work` failed for some words: all its errors on one line.
pub(crate) fn each(uuids: &[String], work: impl Fn(&str) -> Result<()>) -> Result<()> {
    let mut failed = Vec::new();
    for uuid in uuids {
        if let Err(error) = work(uuid) {
            failed.push(error);
        }
    }
    match failed.pop() {
        None => Ok(()),
        Some(only) if failed.is_empty() => Err(only),
        Some(last) => {
            failed.push(last);
            let lines: Vec<_> = failed.iter().map(Error::one_line).collect();
            Err(Error::new(lines.join("; ")))
        }
    }
}
