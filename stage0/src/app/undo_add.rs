//! Undoing an add that failed or was interrupted.

use stage1::appc::AcName;
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Context, Result};

use super::files::AppFiles;
use super::run_entrypoint::Inside;
use crate::poddir::find::Pod;
use crate::poddir::manifest::Locked;
use crate::store::Store;

/// A running pod to which an app is being added, with its lock held.
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

    /// Removes all files of a partly added app, then restores the manifest.
    pub(super) fn undo(&self, app: &AcName) -> Result<()> {
        self.clear(app)?;
        self.locked.undo_add(app)
    }

    /// Undoes all interrupted adds; returns their apps.
    pub(super) fn undo_interrupted(&self) -> Result<Vec<AcName>> {
        let interrupted = self.locked.interrupted_adds()?;
        for app in &interrupted {
            self.undo(app).context(|| format!("undo the interrupted addition of app {app}"))?;
        }
        Ok(interrupted)
    }

    /// Removes the remains of an app that the manifest does not list; returns whether there were any.
    pub(super) fn clear_leftovers(&self, app: &AcName) -> Result<bool> {
        let there = AppFiles::new(self.pod.dir(), app).exist();
        if there {
            self.clear(app).context(|| format!("remove what an earlier app {app} left"))?;
        }
        Ok(there)
    }

    fn clear(&self, app: &AcName) -> Result<()> {
        let files = AppFiles::new(self.pod.dir(), app);
        // app-rm removes what app-add made; app-add runs after these files exist
        if files.exist() {
            self.inside(app).remove()?;
        }
        files.remove()
    }
}
