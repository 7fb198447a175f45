//! Signatures of types, in the D-Bus specification.

use crate::error::{Error, Result};

/// Maximum nesting of containers in values that are skipped; systemd nests a few levels.
pub(super) const DEPTH_MAX: usize = 16;

/// Length of the first type in `signature`, in bytes. No type is empty, so reading the elements of an array always
/// makes progress.
pub(super) fn type_length(signature: &[u8], depth: usize) -> Result<usize> {
    if depth > DEPTH_MAX {
        return Err(Error::new(format!("types nested deeper than {DEPTH_MAX}")));
    }
    let close = match signature.first() {
        Some(b'a') => return Ok(1 + type_length(&signature[1..], depth + 1)?),
        Some(b'(') => b')',
        Some(b'{') => b'}',
        Some(b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'h' | b'x' | b't' | b'd' | b's' | b'o' | b'g' | b'v') => {
            return Ok(1);
        }
        other => return Err(Error::new(format!("byte {other:?} is not a type"))),
    };
    let mut at = 1;
    while signature.get(at) != Some(&close) {
        at += type_length(&signature[at..], depth + 1)?;
    }
    if at == 1 { Err(Error::new("empty structure")) } else { Ok(at + 1) }
}

/// Alignment of the first type in `signature`, in bytes.
pub(super) fn alignment(signature: &[u8]) -> usize {
    match signature.first() {
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        Some(b'b' | b'i' | b'u' | b'h' | b's' | b'o' | b'a') => 4,
        Some(b'n' | b'q') => 2,
        _ => 1,
    }
}
