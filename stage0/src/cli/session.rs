//! The global options, as every verb gets them.

use crate::store::Store;

/// The global options, as every verb gets them.
pub(super) struct Session {
    pub(super) store: Store,
    pub(super) debug: bool,
}
