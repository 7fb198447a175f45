//! Reading files that the kernel makes when they are read, as below /proc: proc(5).

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What most of these files have, in bytes.
const USUAL: usize = 4096;

/// [`std::fs::read_to_string`] for a file whose size the kernel does not tell: most files are read by two calls, and
/// not by many of growing size.
///
/// # Errors
/// The file can't be opened or read.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::with_capacity(USUAL);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}
