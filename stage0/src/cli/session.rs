//! What every verb works with.

use crate::store::Store;

/// What every verb works with.
pub(super) struct Session {
    pub(super) store: Store,
    pub(super) debug: bool,
}
