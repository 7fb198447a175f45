//! A snapshot of an app's root file system: as a tar archive, or as a new image.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stage1::appc::AcName;
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::pod::remove_if_there;
use stage1::sys::dir;

use crate::app::root::AppRoot;
use crate::fsutil::dir::names_in;
use crate::fsutil::lock;
use crate::fsutil::space::{Room, Watched};
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
    let room = Room::of(dir::open_dir_for_reading(work.path())?);
    let file = Watched::new(File::create_new(&archive).context(shown)?, room);
    let mut out = BufWriter::with_capacity(1 << 17, file);
    while_still(pod, app, || pack_image(&manifest, root.as_fd(), root.ids(), &mut out))?;
    out.flush().context(shown)?;
    let limits = UnpackLimits { devices: true, ..UnpackLimits::default() };
    let options =
        ImportOptions { kind: Some(ImageFormat::Aci), references: vec![name], limits, ..ImportOptions::default() };
    import_file(store, File::open(&archive).context(|| format!("open {archive:?}"))?, &options)
}

/// The start of the name of the file in the pod's directory that is locked while an app is frozen for a snapshot. It is
/// read-only from before the app is frozen until after it is thawed, which takes no room on a full disk; it is writable if
/// the snapshot did not freeze the app.
const NOTE: &str = "snapshot.";
/// The mode of the note of an app that is frozen.
const FROZEN: u32 = 0o400;
/// How long a snapshot waits for another one of the same app.
const PATIENCE: Duration = Duration::from_secs(600);

/// Thaws the apps that a snapshot has left frozen because it was killed.
///
/// # Errors
/// A note can't be read or removed, or an app can't be thawed.
pub(super) fn recover(pod: &Pod) -> Result<()> {
    for name in names_in(pod.dir())? {
        let Some(app) = name.to_str().and_then(|name| name.strip_prefix(NOTE)?.parse::<AcName>().ok()) else {
            continue;
        };
        let path = pod.dir().join(&name);
        if let Some(note) = lock::removable_file(&path, |file| lock::try_take(file, &path, lock::Kind::Exclusive))? {
            thaw_left_frozen(pod, &app, &note, &path)?;
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Thaws the app if a killed snapshot has left it frozen. The caller holds the lock of the note.
fn thaw_left_frozen(pod: &Pod, app: &AcName, note: &File, path: &Path) -> Result<()> {
    if note.metadata().context(|| format!("stat {path:?}"))?.permissions().mode() & 0o200 != 0 {
        return Ok(());
    }
    log::warn!("app {app}: an interrupted export or commit has left it frozen: it goes on");
    thaw(pod, app)?;
    set_mode(note, path, lock::FILE_MODE)
}

fn set_mode(note: &File, path: &Path, mode: u32) -> Result<()> {
    note.set_permissions(Permissions::from_mode(mode)).context(|| format!("chmod {path:?}"))
}

fn thaw(pod: &Pod, app: &AcName) -> Result<()> {
    if pod.state() == State::Running && pause::is_paused(pod, Some(app))? {
        pause::unpause(pod, Some(app))?;
    }
    Ok(())
}

/// Calls `work`, which pauses the app or lets it go on, while no snapshot is made of it: its freeze is not the user's.
///
/// # Errors
/// A snapshot is still being made after 10 minutes, or `work` fails.
pub fn while_none<T>(pod: &Pod, app: &AcName, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (_note, path) = take_note(pod, app)?;
    let done = work();
    remove_if_there(&path).and(done)
}

/// Waits for the lock of the app's note, and thaws the app if a killed snapshot has left it frozen.
fn take_note(pod: &Pod, app: &AcName) -> Result<(File, PathBuf)> {
    let path = pod.dir().join(format!("{NOTE}{app}"));
    let take = |file: &File| lock::wait(file, &path, lock::Kind::Exclusive, PATIENCE).map(|()| true);
    let note = lock::removable_file(&path, take)?.context(|| format!("lock {path:?}"))?;
    thaw_left_frozen(pod, app, &note, &path)?;
    Ok((note, path))
}

/// Freezes the app during `work`, if it runs and is not paused already.
fn while_still<T>(pod: &Pod, app: &AcName, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (note, path) = take_note(pod, app)?;
    let runs = pod.state() == State::Running && !crate::app::processes::list(pod, Some(app))?.is_empty();
    if !runs || pause::is_paused(pod, None)? || pause::is_paused(pod, Some(app))? {
        remove_if_there(&path)?;
        drop(note);
        return work();
    }
    set_mode(&note, &path, FROZEN)?;
    let done = pause::pause(pod, Some(app)).and_then(|()| work());
    thaw(pod, app).and_then(|()| remove_if_there(&path)).and(done)
}
