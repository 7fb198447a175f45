//! Undoing what an add left that failed, or did not come to its end.

use stage1::appc::AcName;
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Context, Result};

use super::crossing::Inside;
use super::files::AppFiles;
use crate::poddir::find::Pod;
use crate::poddir::manifest::Locked;
use crate::store::Store;

/// A pod that is being added to, its lock held.
pub(super) struct Adding<'a> {
    pub(super) store: &'a Store,
    pub(super) pod: &'a Pod,
    pub(super) pid: i32,
    pub(super) locked: Locked,
    pub(super) insecure: InsecureOptions,
    pub(super) debug: bool,
}

impl Adding<'_> {
    pub(super) fn inside<'b>(&'b self, app: &'b AcName) -> Inside<'b> {
        Inside {
            store: self.store,
            pod: self.pod,
            pid: self.pid,
            app,
            lock: Some(self.locked.lock()),
            debug: self.debug,
        }
    }

    /// Undoes what an add has done so far, whether it failed or was interrupted.
    pub(super) fn undo(&self, app: &AcName) -> Result<()> {
        self.clear(app)?;
        self.locked.undo_add(app)
    }

    /// Undoes the adds that did not come to their end, and tells of which apps.
    pub(super) fn undo_interrupted(&self) -> Result<Vec<AcName>> {
        let interrupted = self.locked.interrupted_adds()?;
        for app in &interrupted {
            self.undo(app).context(|| format!("undo the interrupted addition of app {app}"))?;
        }
        Ok(interrupted)
    }

    /// Removes what is left of an app that the manifest does not list any more.
    pub(super) fn clear_leftovers(&self, app: &AcName) -> Result<bool> {
        let there = AppFiles::new(self.pod.dir(), app).exist();
        if there {
            self.clear(app).context(|| format!("remove what an earlier app {app} left"))?;
        }
        Ok(there)
    }

    fn clear(&self, app: &AcName) -> Result<()> {
        let files = AppFiles::new(self.pod.dir(), app);
        // app-rm knows what app-add has made; before app-add there is nothing that it would have to remove
        if files.exist() {
            self.inside(app).remove()?;
        }
        files.remove()
    }
}
