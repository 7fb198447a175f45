//! Files that appear whole, or not at all.

use std::path::Path;

use stage1::error::{Context, Result};

/// Writes a file with these permissions: it is never half there, and survives a power cut once its directory is synced.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).context(|| format!("{path:?} names no file"))?;
    stage1::pod::write_atomic(path.parent().unwrap_or(Path::new("")), name, bytes, mode)
}
