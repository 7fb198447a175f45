//! An app's streams as the verbs see them: declared with the app, forgotten with it. Host side, in the pod directory.

use crate::appc::AcName;
use crate::error::Result;
use crate::streams::{self, call, call::Asked};

/// An app that the monitor was told to forget.
pub(super) struct Forgotten<'a> {
    app: &'a AcName,
    asked: Result<Asked>,
}

/// Tells the monitor to forget an app, and does not wait for it.
pub(super) fn forget(app: &AcName) -> Forgotten<'_> {
    Forgotten { app, asked: Asked::from_host(&[call::FORGET, app.as_ref()]) }
}

impl Forgotten<'_> {
    /// Waits until the monitor has forgotten the app, and removes what was declared.
    ///
    /// # Errors
    /// Something can't be removed.
    pub(super) fn remove(self) -> Result<()> {
        if let Err(error) = self.asked.and_then(Asked::answer) {
            // The pod has just ended, and its monitor with it.
            log::debug!("{}", error.one_line());
        }
        streams::remove(self.app)
    }
}
