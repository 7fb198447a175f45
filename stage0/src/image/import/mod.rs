//! Importing images: application container images as they are, plain root file systems converted to such an image, and
//! images with layers by [`layered`].

pub(crate) mod layered;
pub mod place;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use stage1::appc::ImageManifest;
use stage1::error::{Context, Error, Result};

use crate::fsutil::digest;
use crate::fsutil::dir::{PRIVATE, make_dir, sync_file_system};
use crate::fsutil::space::{Room, Watched};
use crate::image::archive;
use crate::image::archive::{Compression, Entries, Hashed, ImageId, UnpackLimits};
pub use crate::image::import::place::Imported;
use crate::image::import::place::{name_it, place};
use crate::image::oci;
use crate::image::oci::Layout;
use crate::image::options::{ImageFormat, ImportOptions};
use crate::image::store::names::checked_name;
use crate::image::store::{ImageRecord, directory, load};
use crate::image::tree as trees;
use crate::store::{Store, TemporaryDir};

/// Imports an application container image under `name`, or else under the name in its manifest.
///
/// # Errors
/// As [`import_file`].
pub fn import_archive(store: &Store, source: impl Read, name: Option<&str>) -> Result<Imported> {
    let limits = UnpackLimits { devices: true, ..UnpackLimits::default() };
    let options = ImportOptions {
        name: name.map(str::to_owned),
        kind: Some(ImageFormat::Aci),
        limits,
        ..ImportOptions::default()
    };
    import_file(store, source, &options)
}

/// Imports an archive of any format but [`ImageFormat::Dir`], compressed or not.
///
/// # Errors
/// The archive can't be read, exceeds the limits, is not an image or has an entry that would leave its root, or the
/// name is invalid. The store is unchanged then.
pub fn import_file(store: &Store, source: impl Read, options: &ImportOptions) -> Result<Imported> {
    options.name.as_deref().map(checked_name).transpose()?;
    let work = store.temporary_dir()?;
    let archive = work.path().join("archive");
    let written = write_archive(&archive, options.limits, |out| {
        io::copy(&mut archive::decoded(source)?, out).context(|| "read the archive").map(drop)
    })?;
    let kind = match options.kind {
        Some(kind) => kind,
        None => kind_of(&archive)?,
    };
    if kind != ImageFormat::Rootfs {
        options.must_not_run()?;
    }
    let open = || File::open(&archive).context(|| format!("open {archive:?}"));
    match kind {
        ImageFormat::Aci => finish(store, &work, written, options),
        ImageFormat::Oci | ImageFormat::Docker => convert(store, &work, &Layout::in_tar(open()?)?, kind, options),
        ImageFormat::Dir => Err(Error::new("an image of the format \"dir\" is a directory, not a file")),
        ImageFormat::Rootfs => {
            let manifest = options.manifest.as_ref().context(|| "a root file system needs a name: --name")?;
            let root = work.path().join("merged");
            make_dir(&root, 0o755)?;
            let fd = File::open(&root).context(|| format!("open {root:?}"))?;
            let mut limits = options.limits;
            archive::unpack_plain(BufReader::with_capacity(1 << 17, open()?), fd.as_fd(), &mut limits)?;
            pack(store, &work, manifest, &root, options)
        }
    }
}

/// Imports a directory: an OCI image layout, an unpacked archive of `docker save`, one of skopeo's `dir:`, or a plain
/// root file system.
///
/// # Errors
/// The directory can't be read, exceeds the limits, is not an image or has a file that would leave its root, or the
/// name is invalid. The store is unchanged then.
pub fn import_directory(store: &Store, directory: &Path, options: &ImportOptions) -> Result<Imported> {
    options.name.as_deref().map(checked_name).transpose()?;
    let is_layout = directory.join("oci-layout").is_file() && directory.join("index.json").is_file();
    let work = store.temporary_dir()?;
    match options.kind.unwrap_or(if is_layout { ImageFormat::Oci } else { ImageFormat::Rootfs }) {
        ImageFormat::Rootfs => {
            let manifest = options.manifest.as_ref().context(|| "a root file system needs a name: --name")?;
            pack(store, &work, manifest, directory, options)
        }
        kind @ (ImageFormat::Oci | ImageFormat::Docker | ImageFormat::Dir) => {
            options.must_not_run()?;
            convert(store, &work, &Layout::in_directory(directory)?, kind, options)
        }
        ImageFormat::Aci => Err(Error::new("an application container image is a file, not a directory")),
    }
}

/// Imports a file. An uncompressed archive with an image with layers is read in place; any other is read through
/// `seen`, which can show progress, and copied.
///
/// # Errors
/// As [`import_file`].
pub fn import_open_file(
    store: &Store,
    file: File,
    options: &ImportOptions,
    seen: impl Fn(File) -> Box<dyn Read>,
) -> Result<Imported> {
    options.name.as_deref().map(checked_name).transpose()?;
    let mut start = [0; 6];
    let read = file.read_at(&mut start, 0).context(|| "read the start of the archive")?;
    if Compression::detect(&start[..read]) == Compression::Plain {
        let again = || file.try_clone().context(|| "duplicate a descriptor");
        let kind = match options.kind {
            Some(kind) => kind,
            None => kind_in(Entries::of_file(again()?)?)?,
        };
        if matches!(kind, ImageFormat::Oci | ImageFormat::Docker) {
            options.must_not_run()?;
            let work = store.temporary_dir()?;
            return convert(store, &work, &Layout::in_tar(again()?)?, kind, options);
        }
        (&file).rewind().context(|| "seek to the start of the archive")?;
    }
    import_file(store, seen(file), options)
}

/// Detects the format of an archive from its names.
fn kind_of(path: &Path) -> Result<ImageFormat> {
    kind_in(Entries::of_file(File::open(path).context(|| format!("open {path:?}"))?)?)
}

fn kind_in<R: Read>(mut entries: Entries<R>) -> Result<ImageFormat> {
    let (mut manifest, mut rootfs, mut docker, mut layout) = (false, false, false, false);
    while let Some(entry) = entries.next_entry()? {
        let name = entry.path.strip_prefix(b"./").unwrap_or(&entry.path);
        match name {
            b"oci-layout" | b"index.json" => layout = true,
            b"manifest.json" => docker = true,
            b"manifest" => manifest = true,
            _ => rootfs |= name == b"rootfs" || name.starts_with(b"rootfs/"),
        }
        if manifest && rootfs {
            return Ok(ImageFormat::Aci);
        }
    }
    Ok(match (layout, docker, manifest || rootfs) {
        (true, _, _) => ImageFormat::Oci,
        (_, true, _) => ImageFormat::Docker,
        // an incomplete image, so that the error names the missing part
        (_, _, true) if manifest => ImageFormat::Aci,
        _ => ImageFormat::Rootfs,
    })
}

/// An archive in the working directory.
struct Written {
    path: PathBuf,
    id: ImageId,
    /// In bytes.
    size: u64,
}

/// Writes an archive with `write`; fails if it exceeds the limits or the disk is nearly full.
fn write_archive(
    path: &Path,
    limits: UnpackLimits,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<Written> {
    let shown = || format!("write {path:?}");
    let file = File::create_new(path).context(shown)?;
    let room = Room::of(file.try_clone().context(shown)?.into());
    let mut hashed = Hashed::new(Watched::new(BufWriter::with_capacity(1 << 17, file), room), limits);
    write(&mut hashed)?;
    let (id, size, out) = hashed.finish();
    out.into_inner().into_inner().context(shown)?;
    Ok(Written { path: path.to_owned(), id, size })
}

/// Imports an image with layers from a layout.
fn convert(
    store: &Store,
    work: &TemporaryDir,
    layout: &Layout,
    kind: ImageFormat,
    options: &ImportOptions,
) -> Result<Imported> {
    let mut wanted = options.choice.clone();
    wanted.name = options.manifest.as_ref().map(|manifest| manifest.name.to_string());
    let found = match kind {
        ImageFormat::Docker => oci::docker(layout, &wanted)?,
        ImageFormat::Dir => oci::directory(layout, &wanted)?,
        _ => oci::index(layout, &wanted)?,
    };
    layered::import(store, work, &found, &InLayout { layout, image: &found }, options)
}

/// The layers of an image in a layout.
struct InLayout<'a> {
    layout: &'a Layout,
    image: &'a oci::Found,
}

impl layered::Source for InLayout<'_> {
    fn open(&self, number: usize) -> Result<Box<dyn Read + '_>> {
        self.layout.open(self.image.layer_name(number))
    }

    fn size(&self, number: usize) -> Option<u64> {
        self.layout.size(self.image.layer_name(number)).ok()
    }
}

/// Makes an application container image of a root file system and imports it.
fn pack(
    store: &Store,
    work: &TemporaryDir,
    manifest: &ImageManifest,
    root: &Path,
    options: &ImportOptions,
) -> Result<Imported> {
    let json = serde_json::to_vec(manifest).context(|| "write the image manifest")?;
    let written = write_archive(&work.path().join("packed"), options.limits, |out| {
        archive::pack(&json, root, out, options.limits.devices)
    })?;
    finish(store, work, written, options)
}

/// Renders an image and moves it into the store, unless the store has it undamaged; then names it.
fn finish(store: &Store, work: &TemporaryDir, written: Written, options: &ImportOptions) -> Result<Imported> {
    let id = &written.id;
    let mut rendered = false;
    loop {
        if !rendered && (!is_whole(store, &written) || trees::quick_fault(store, id)?.is_some()) {
            render(store, work, &written, options)?;
            sync_file_system(work.path())?;
            rendered = true;
        }
        let _lock = store.lock_images()?;
        let (has_image, has_tree) = (is_whole(store, &written), trees::quick_fault(store, id)?.is_none());
        if !rendered && (!has_image || !has_tree) {
            // another process removed it before the lock was taken
            continue;
        }
        if !has_tree {
            trees::place(store, work, id)?;
        }
        if !has_image {
            place(store, work, id)?;
        }
        return name_it(store, id, options);
    }
}

/// Whether the store has all files of the image, with the archive in its full size.
fn is_whole(store: &Store, written: &Written) -> bool {
    let archive = directory(store, &written.id).join("archive");
    archive.metadata().is_ok_and(|archive| archive.len() == written.size) && load(store, &written.id).is_ok()
}

/// Makes the image's tree and directory in the working directory.
fn render(store: &Store, work: &TemporaryDir, written: &Written, options: &ImportOptions) -> Result<()> {
    let open = || {
        let file = File::open(&written.path).context(|| format!("open {:?}", written.path))?;
        Ok(BufReader::with_capacity(1 << 17, file))
    };
    let manifest = archive::manifest(open()?)?;
    let parsed = ImageManifest::parse(&manifest)?;
    let dependencies = trees::render(store, work, open()?, &parsed, None, options.limits)?;
    let info = ImageRecord {
        import_time: crate::fsutil::time::nanoseconds(SystemTime::now()),
        size: written.size,
        manifest: digest::of_bytes(&manifest),
        dependencies,
        kept: Vec::new(),
        appc_id: None,
        layers: None,
    };
    let dir = work.path().join("image");
    make_dir(&dir, PRIVATE)?;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).context(|| format!("write {path:?}"))
    };
    write("manifest", &manifest)?;
    write("info", &serde_json::to_vec(&info).context(|| "write image info")?)?;
    let to = dir.join("archive");
    std::fs::rename(&written.path, &to).context(|| format!("rename {:?} to {to:?}", written.path))
}
