//! A snapshot of an app's root file system: as a tar archive, or as a new image.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;

use stage1::appc::AcName;
use stage1::error::{Context, Result};
use stage1::layout;

use crate::app::root::AppRoot;
use crate::image::archive::{UnpackLimits, pack_files, pack_image, sorted_names};
use crate::image::import::{Imported, import_file};
use crate::image::options::{ImageFormat, ImportOptions};
use crate::poddir::find::{Pod, State};
use crate::poddir::pause;
use crate::registry::Reference;
use crate::store::Store;

/// Writes the files of an app's root file system, without mounts in it, as a tar archive. The app is frozen meanwhile.
///
/// # Errors
/// The app can't be frozen, its files can't be read, or `to` can't be written.
pub fn export(store: &Store, pod: &Pod, app: &AcName, to: impl Write) -> Result<()> {
    let root = AppRoot::of_files(store, pod, app)?;
    while_still(pod, app, || {
        let names = sorted_names(root.as_fd())?;
        pack_files(root.as_fd(), &names, root.ids(), false, to)
    })
}

/// Makes an image called `name` from the files of an app's root file system and the manifest of its image. The app is
/// frozen meanwhile.
///
/// # Errors
/// The app can't be frozen, its files can't be read, or the image can't be written or imported.
pub fn commit(store: &Store, pod: &Pod, app: &AcName, name: Reference) -> Result<Imported> {
    let root = AppRoot::of_files(store, pod, app)?;
    let path = pod.dir().join(layout::app_image_manifest(app));
    let manifest = std::fs::read(&path).context(|| format!("read {path:?}"))?;
    let work = store.temporary_dir()?;
    let archive = work.path().join("snapshot");
    let shown = || format!("write {archive:?}");
    let mut out = BufWriter::with_capacity(1 << 17, File::create_new(&archive).context(shown)?);
    while_still(pod, app, || pack_image(&manifest, root.as_fd(), root.ids(), &mut out))?;
    out.into_inner().context(shown)?;
    let limits = UnpackLimits { devices: true, ..UnpackLimits::default() };
    let options =
        ImportOptions { kind: Some(ImageFormat::Aci), references: vec![name], limits, ..ImportOptions::default() };
    import_file(store, File::open(&archive).context(|| format!("open {archive:?}"))?, &options)
}

/// Freezes the app during `work`, if it runs and is not paused already.
fn while_still<T>(pod: &Pod, app: &AcName, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let runs = pod.state() == State::Running && !crate::app::processes::list(pod, Some(app))?.is_empty();
    if !runs || pause::is_paused(pod, None)? || pause::is_paused(pod, Some(app))? {
        return work();
    }
    pause::pause(pod, Some(app))?;
    let done = work();
    pause::unpause(pod, Some(app)).and(done)
}
