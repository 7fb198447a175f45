//! The image store by its public interface: every format is imported, hostile archives do not leave their root, damage
//! is found, and several processes work at once.

mod care;
mod formats;
mod hostile;
mod make;

use std::path::{Path, PathBuf};

use stage0::image::import::{Imported, import_file};
use stage0::image::options::ImportOptions;
use stage0::image::tree as trees;
use stage0::store::Store;
use stage1::error::Result;

/// A store in its own directory, beside a directory that no test may change.
pub(crate) struct Stand {
    pub(crate) base: tempfile::TempDir,
    pub(crate) store: Store,
    copies: tempfile::TempDir,
}

impl Stand {
    pub(crate) fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(&base.path().join("data")).unwrap();
        // makes the store, which `open` does not
        drop(store.lock_images().unwrap());
        std::fs::create_dir(base.path().join("outside")).unwrap();
        std::fs::write(base.path().join("outside/canary"), "alive").unwrap();
        Self { base, store, copies: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn import(&self, bytes: &[u8]) -> Result<Imported> {
        self.import_with(bytes, &ImportOptions::default())
    }

    pub(crate) fn import_with(&self, bytes: &[u8], options: &ImportOptions) -> Result<Imported> {
        import_file(&self.store, bytes, options)
    }

    /// The rendered root file system of an image; a copy of it if the image has layers.
    pub(crate) fn root(&self, imported: &Imported) -> PathBuf {
        let id = &imported.image.id;
        if !id.is_of_config() {
            return trees::rootfs(&self.store, id.as_str());
        }
        let copy = self.copies.path().join(id.as_str());
        if !copy.exists() {
            trees::copy_out(&self.store, id, &copy).unwrap();
        }
        copy
    }

    /// Whether no file was made, changed or removed beside the store, and no temporary directory is left in it.
    pub(crate) fn is_clean(&self) -> bool {
        let names = |path: &Path| match path.read_dir() {
            Ok(entries) => entries.count(),
            Err(_) => 0,
        };
        let data = self.base.path().join("data");
        let canary = std::fs::read(self.base.path().join("outside/canary"));
        names(self.base.path()) == 2
            && names(&self.base.path().join("outside")) == 1
            && canary.is_ok_and(|text| text == b"alive")
            && names(&data.join("tmp")) == 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        let empty = |name: &str| self.base.path().join("data").join(name).read_dir().map_or(0, Iterator::count) == 0;
        empty("images") && empty("trees") && empty("layers") && empty("names")
    }
}
