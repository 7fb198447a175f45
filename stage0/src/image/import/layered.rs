//! Importing images with layers (OCI image-spec, layer.md). Each layer is unpacked once, in one pass, several at the
//! same time; all images that have it share it.
//!
//! A layer stands alone if its archive describes all its directories and has no hard links to files of other layers.
//! An image whose layers all stand alone consists of these layers, and of a tree above them for what no layer brings.
//! An image with another layer, or with too many, becomes one tree, into which its layers are unpacked in turn.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use stage1::error::{Context, Error, Result};

use crate::fsutil::atomic;
use crate::fsutil::digest;
use crate::fsutil::digest::{Digest, Verified};
use crate::fsutil::dir::{PRIVATE, make_dir, sync_dir, sync_file_system};
use crate::image::archive;
use crate::image::archive::{Hashes, ImageId, UnpackLimits};
use crate::image::import::place::{Imported, name_it, place};
use crate::image::oci::{Found, config, conversion};
use crate::image::options::ImportOptions;
use crate::image::overlay_lookup::Merged;
use crate::image::store as images;
use crate::image::store::ImageRecord;
use crate::image::store::blobs;
use crate::image::tree::checked_dir;
use crate::image::tree::image_layer;
use crate::image::tree::layer_store;
use crate::image::tree::location as trees;
use crate::interrupt;
use crate::registry::Bars;
use crate::store::{Store, TemporaryDir};

/// How many layers are unpacked at the same time.
const AT_ONCE: usize = 4;
/// How often to start again because other processes removed layers meanwhile.
const ATTEMPTS: usize = 4;

/// A source of layers.
pub(crate) trait Source: Sync {
    /// Opens the blob of a layer, which may be compressed; 0 is the lowest layer. It may be called again for a layer.
    ///
    /// # Errors
    /// The layer is missing, or can't be fetched or opened.
    fn open(&self, number: usize) -> Result<Box<dyn Read + '_>>;

    /// The size of a layer's blob, in bytes, if it is known.
    fn size(&self, number: usize) -> Option<u64>;

    /// Called when all layers have been read: temporary files can be removed.
    ///
    /// # Errors
    /// A file can't be removed.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Imports an image with layers and names it.
///
/// # Errors
/// A layer is missing, does not have its digest, exceeds the limits or has an entry that would leave the root, the
/// configuration can't be converted, or the store can't be written. The store is unchanged then.
pub(crate) fn import(
    store: &Store,
    work: &TemporaryDir,
    image: &Found,
    source: &dyn Source,
    options: &ImportOptions,
) -> Result<Imported> {
    let diffs = image.diffs()?;
    let making = Making { store, work, image, source, options, diffs, unpacked: Mutex::default() };
    for _ in 0..ATTEMPTS {
        let made = making.make()?;
        let info = making.write(&made)?;
        source.finish()?;
        sync_file_system(work.path())?;
        if let Some(imported) = making.commit(&made, info)? {
            return Ok(imported);
        }
    }
    Err(Error::new("other processes keep removing layers that this import needs"))
}

/// An import in progress.
struct Making<'a> {
    store: &'a Store,
    work: &'a TemporaryDir,
    image: &'a Found,
    source: &'a dyn Source,
    options: &'a ImportOptions,
    /// The digests of the uncompressed layers (`diff_ids`), the lowest first.
    diffs: Vec<Digest>,
    /// The layers in the working directory, by name.
    unpacked: Mutex<BTreeMap<String, checked_dir::DirRecord>>,
}

/// An image that is ready to be moved into the store.
struct Made {
    id: ImageId,
    manifest: Vec<u8>,
    /// The layers that it lies on, the lowest first; empty if it is one tree.
    layers: Vec<String>,
    /// The total size of its files, in bytes.
    size: u64,
}

impl Making<'_> {
    /// Makes the image's layers and tree in the working directory.
    fn make(&self) -> Result<Made> {
        let id = ImageId::of_config(&self.image.raw_config);
        let stack = self.stack();
        let notes = if stack.len() > layer_store::MAX_STACKED { None } else { self.unpack_alone(&stack)? };
        let tree = self.work.path().join("tree");
        crate::fsutil::remove::tree(&tree)?;
        let rootfs = checked_dir::rootfs(&tree);
        make_dir(&rootfs, 0o755)?;
        let working_directory = config::working_directory(&self.image.config);
        let working_directory = Path::new(&working_directory);
        let (files, names, size) = match notes {
            Some(notes) => {
                let roots: Vec<PathBuf> = stack.iter().rev().map(|(_, name)| self.rootfs_of(name)).collect();
                let files = Merged::open(roots.iter().map(PathBuf::as_path))?;
                let described = roots.iter().zip(notes.iter().rev()).find(|(_, note)| note.root);
                image_layer::make(&files, described.map(|(root, _)| root.as_path()), working_directory, &rootfs)?;
                let size = notes.iter().map(|note| note.size).sum();
                (files, stack.into_iter().map(|(_, name)| name).collect(), size)
            }
            None => {
                let size = self.flatten(&rootfs)?;
                let files = Merged::open([rootfs.as_path()])?;
                image_layer::make(&files, Some(&rootfs), working_directory, &rootfs)?;
                (files, Vec::new(), size)
            }
        };
        let manifest = conversion::manifest(self.image, &files, self.options)?;
        let manifest = serde_json::to_vec(&manifest).context(|| "write the image manifest")?;
        let info = checked_dir::DirRecord { layers: names, ..checked_dir::DirRecord::default() };
        let info = checked_dir::write(&tree, &Hashes::default(), info)?;
        Ok(Made { id, manifest, layers: info.layers, size })
    }

    /// The number and name of each layer, the lowest first. Of a layer that comes twice only the uppermost is kept, as
    /// it hides the other one.
    fn stack(&self) -> Vec<(usize, String)> {
        let names: Vec<String> = self.diffs.iter().map(layer_store::name).collect();
        let is_last = |number: usize| !names[number + 1..].contains(&names[number]);
        names.iter().cloned().enumerate().filter(|(number, _)| is_last(*number)).collect()
    }

    fn in_work(&self, name: &str) -> PathBuf {
        self.work.path().join("layers").join(name)
    }

    fn rootfs_of(&self, name: &str) -> PathBuf {
        let is_here = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name);
        checked_dir::rootfs(&if is_here { self.in_work(name) } else { layer_store::directory(self.store, name) })
    }

    /// The record of a layer that exists and passes the quick check.
    fn known(&self, name: &str) -> Result<Option<checked_dir::DirRecord>> {
        if let Some(note) = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Some(note.clone()));
        }
        let dir = layer_store::directory(self.store, name);
        let whole = checked_dir::quick_fault(&dir, trees::PROBES)?.is_none();
        Ok(checked_dir::info(&dir)?.filter(|_| whole))
    }

    /// Unpacks the missing layers, each alone. `None` if one does not stand alone.
    fn unpack_alone(&self, stack: &[(usize, String)]) -> Result<Option<Vec<checked_dir::DirRecord>>> {
        let limits = Mutex::new(self.options.limits);
        let bars = Bars::default();
        let notes: Mutex<BTreeMap<usize, checked_dir::DirRecord>> = Mutex::default();
        let dependent = AtomicBool::new(false);
        let total = stack.len();
        each(total, |place| {
            let (number, name) = &stack[place];
            let shown = || format!("layer {} of {total} ({})", place + 1, self.image.layer_name(*number));
            if dependent.load(Ordering::SeqCst) {
                return Ok(());
            }
            let note = match self.known(name).context(shown)? {
                Some(note) => note,
                None => match self.unpack(*number, name, place, &limits, &bars) {
                    Ok(note) => note,
                    // unpacked over the lower layers it may be valid
                    Err(error) if place > 0 => {
                        interrupt::check()?;
                        log::debug!("{} does not stand alone: {}", shown(), error.one_line());
                        dependent.store(true, Ordering::SeqCst);
                        return Ok(());
                    }
                    Err(error) => return Err(error).context(shown),
                },
            };
            if note.implied && place > 0 {
                log::debug!("{} has directories that it does not describe", shown());
                dependent.store(true, Ordering::SeqCst);
            }
            notes.lock().unwrap_or_else(PoisonError::into_inner).insert(place, note);
            Ok(())
        })?;
        if dependent.into_inner() {
            return Ok(None);
        }
        Ok(Some(notes.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()))
    }

    /// Unpacks one layer alone into the working directory; takes its size off the limits.
    fn unpack(
        &self,
        number: usize,
        name: &str,
        place: usize,
        limits: &Mutex<UnpackLimits>,
        bars: &Bars,
    ) -> Result<checked_dir::DirRecord> {
        let dir = self.in_work(name);
        crate::fsutil::remove::tree(&dir)?;
        let root = checked_dir::rootfs(&dir);
        make_dir(&root, 0o755)?;
        let fd = File::open(&root).context(|| format!("open {root:?}"))?;
        let allowed = *limits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = allowed;
        let label = format!("layer {}/{}", place + 1, self.diffs.len());
        let mut alone = None;
        self.read_layer(number, &allowed, Some((bars, &label)), &mut |content| {
            alone = Some(archive::unpack_alone(content, fd.as_fd(), &mut left)?);
            Ok(())
        })?;
        let alone = alone.context(|| "the layer was not unpacked")?;
        let size = allowed.bytes - left.bytes;
        {
            let mut limits = limits.lock().unwrap_or_else(PoisonError::into_inner);
            let what = "the files of the image are larger than allowed";
            limits.bytes = limits.bytes.checked_sub(size).context(|| what)?;
            let entries = allowed.entries - left.entries;
            limits.entries =
                limits.entries.checked_sub(entries).context(|| "the image has more entries than allowed")?;
        }
        let info = checked_dir::DirRecord {
            size,
            implied: alone.implied,
            root: alone.root,
            ..checked_dir::DirRecord::default()
        };
        let info = checked_dir::write(&dir, &alone.hashes, info)?;
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), info.clone());
        Ok(info)
    }

    /// Hands the uncompressed content of a layer to `take`. Verifies the blob by the manifest's digest, and the content
    /// by the configuration's.
    fn read_layer(
        &self,
        number: usize,
        limits: &UnpackLimits,
        shown: Option<(&Bars, &str)>,
        take: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let bar = shown.and_then(|(bars, label)| Some(bars.add(label, self.source.size(number)?)));
        let blob = BufReader::with_capacity(1 << 17, self.source.open(number)?);
        let mut blob = Counted { from: blob, count: 0, tell: |count| bar.iter().for_each(|bar| bar.set(count)) };
        let diff = &self.diffs[number];
        let mut apply = |blob: &mut dyn Read| -> Result<()> {
            let mut content = Verified::new(archive::decoded(blob)?, diff, limits.bytes);
            take(&mut content)?;
            content.finish()
        };
        match self.image.layer_digest(number) {
            // an uncompressed blob has the same digest as its content: verify it once
            Some(digest) if digest != diff => {
                let mut blob = Verified::new(blob, digest, u64::MAX);
                apply(&mut blob)?;
                blob.finish()?;
            }
            _ => apply(&mut blob)?,
        }
        bar.iter().for_each(crate::registry::Bar::done);
        Ok(())
    }

    /// Unpacks all layers into one tree, the lowest first; returns the total size of their files in bytes.
    fn flatten(&self, rootfs: &Path) -> Result<u64> {
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).clear();
        crate::fsutil::remove::tree(&self.work.path().join("layers"))?;
        let fd = File::open(rootfs).context(|| format!("open {rootfs:?}"))?;
        let mut limits = self.options.limits;
        for number in 0..self.diffs.len() {
            let allowed = limits;
            self.read_layer(number, &allowed, None, &mut |content| {
                archive::unpack_layer(content, fd.as_fd(), &mut limits, number == 0)
            })
            .context(|| format!("layer {} ({})", number + 1, self.image.layer_name(number)))?;
        }
        Ok(self.options.limits.bytes - limits.bytes)
    }

    /// Writes the image's directory in the working directory; returns its record.
    fn write(&self, made: &Made) -> Result<ImageRecord> {
        let (store, work, id) = (self.store, self.work, &made.id);
        let before = images::info(store, id).ok();
        let info = ImageRecord {
            import_time: crate::fsutil::time::nanoseconds(SystemTime::now()),
            size: made.size,
            manifest: digest::of_bytes(&made.manifest),
            dependencies: Vec::new(),
            kept: before.map(|info| info.kept).unwrap_or_default(),
            appc_id: Some(ImageId::sha512_of(&self.image.raw_config).to_string()),
            layers: Some(made.layers.clone()).filter(|layers| !layers.is_empty()),
        };
        let dir = work.path().join("image");
        crate::fsutil::remove::tree(&dir)?;
        make_dir(&dir, PRIVATE)?;
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, bytes).context(|| format!("write {path:?}"))
        };
        write("manifest", &made.manifest)?;
        write("config", &self.image.raw_config)?;
        write("info", &serde_json::to_vec(&info).context(|| "write image info")?)?;
        Ok(info)
    }

    /// Moves the image into the store, under its lock. `None` if another process removed a layer that it needs.
    fn commit(&self, made: &Made, mut info: ImageRecord) -> Result<Option<Imported>> {
        let (store, work, id) = (self.store, self.work, &made.id);
        let _lock = store.lock_images()?;
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut here = Vec::new();
        for name in &made.layers {
            match checked_dir::quick_fault(&layer_store::directory(store, name), trees::PROBES)? {
                None => {}
                Some(_) if unpacked.contains_key(name) => here.push(name.clone()),
                // another process removed it before the lock was taken
                Some(_) => return Ok(None),
            }
        }
        for name in here {
            layer_store::place(store, work, &self.in_work(&name), &name)?;
            unpacked.remove(&name);
        }
        if store.layers().exists() {
            sync_dir(&store.layers())?;
        }
        if let Some((_, blobs)) = &self.options.kept {
            blobs::place(store, blobs)?;
        }
        let is_same = images::load(store, id).is_ok_and(|image| image.manifest == made.manifest);
        // keep an undamaged tree, which pods may use: trees of the same image are equivalent
        if trees::quick_fault(store, id)?.is_some() {
            trees::place(store, work, id)?;
        }
        if let Ok(now) = images::info(store, id)
            && now.kept != info.kept
        {
            // another process has pulled it by another manifest meanwhile
            info.kept = now.kept;
            let json = serde_json::to_vec(&info).context(|| "write image info")?;
            atomic::write(&work.path().join("image/info"), &json, 0o644)?;
        }
        if !is_same || !matches!(images::config(store, id), Ok(Some(_))) {
            place(store, work, id)?;
        }
        if let Some((kept, _)) = &self.options.kept {
            blobs::note(store, id, kept)?;
        }
        name_it(store, id, self.options).map(Some)
    }
}

/// Calls `work` with each number below `count`, from up to [`AT_ONCE`] threads; stops at the first failure.
fn each(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let error: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        while !failed.load(Ordering::SeqCst) {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= count {
                return;
            }
            if let Err(found) = work(number) {
                failed.store(true, Ordering::SeqCst);
                error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(found);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(count) {
            scope.spawn(worker);
        }
    });
    // if a signal caused the failure, report the signal
    interrupt::check()?;
    error.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// A reader that reports how many bytes it has read.
struct Counted<R, T> {
    from: R,
    count: u64,
    tell: T,
}

impl<R: Read, T: Fn(u64)> Read for Counted<R, T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.count += n as u64;
        (self.tell)(self.count);
        Ok(n)
    }
}
