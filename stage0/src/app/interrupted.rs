//! Finishing what a podctl that was killed has left halfway at the apps of a pod.

use stage1::error::Result;

use super::{replace, snapshot};
use crate::poddir::find::Pod;
use crate::store::Store;

/// Thaws apps that an interrupted snapshot has left frozen, then finishes interrupted replacements. What other processes
/// are at work on is left alone.
///
/// # Errors
/// An app can't be thawed, or a replacement can't be finished; a later call tries it again.
pub fn finish(store: &Store, pod: &Pod, debug: bool) -> Result<()> {
    snapshot::recover(pod)?;
    replace::recover(store, pod, debug)
}
