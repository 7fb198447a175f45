//! An app's streams as the verbs see them: declared with the app, forgotten with it. Host side, in the pod directory.

use crate::appc::AcName;
use crate::error::Result;
use crate::streams::{self, call};

/// Has the monitor forget the app, and removes what was declared.
///
/// # Errors
/// Something can't be removed.
pub(super) fn remove(app: &AcName) -> Result<()> {
    if let Err(error) = call::from_host(&[call::FORGET, app.as_ref()]) {
        // The pod has just ended, and its monitor with it.
        log::debug!("{}", error.one_line());
    }
    streams::remove(app)
}
