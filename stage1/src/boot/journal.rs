//! How much of a pod's journal is kept. Host side: what a pod says of it; pod side: what journald is told.

use crate::appc::{PodManifest, find, quantity};
use crate::error::{Context, Error, Result};
use crate::layout;

/// Annotation of a pod: how many bytes of its journal are kept at most, as a quantity such as `64M`. The image's
/// `journald.conf` has what holds without it.
pub const MAX_SIZE: &str = "podctl.io/log-max-size";

/// The least: eight files of journald's smallest size. It keeps to less, too, but then nearly nothing is left whenever
/// it has just started a new file.
const LEAST: u64 = 4 << 20;
/// The most that makes sense.
const MOST: u64 = 1 << 40;

/// The size that a text says, in bytes; see [`MAX_SIZE`].
///
/// # Errors
/// It is no size, or one that journald can't keep to.
pub fn parse_max_size(text: &str) -> Result<u64> {
    match quantity::whole(text)? {
        size @ LEAST..=MOST => Ok(size),
        size => Err(Error::new(format!("{size} bytes of journal: it may be from {LEAST} to {MOST}"))),
    }
}

/// The size that a pod asks for, if it does.
pub(super) fn max_size(manifest: &PodManifest) -> Result<Option<u64>> {
    let text = find(&manifest.annotations, MAX_SIZE);
    text.map(|text| parse_max_size(text).context(|| format!("pod annotation {MAX_SIZE}={text:?}"))).transpose()
}

/// Tells journald, before it is started.
pub(super) fn limit(max_size: u64) -> Result<()> {
    let dir = layout::JOURNALD_CONF;
    std::fs::create_dir_all(dir).context(|| format!("mkdir {dir}"))?;
    let path = format!("{dir}/max-size.conf");
    std::fs::write(&path, format!("[Journal]\nSystemMaxUse={max_size}\n")).context(|| format!("write {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_max_size("4Mi").unwrap(), 4 << 20);
        assert_eq!(parse_max_size("64M").unwrap(), 64_000_000);
        for bad in ["", "0", "3Mi", "2Ti", "-1", "64M\n[Journal]", "x"] {
            assert!(parse_max_size(bad).is_err(), "{bad:?}");
        }
    }
}
