//! Taking images in: application container images as they are, everything else converted to one.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags};
use stage1::appc::ImageManifest;
use stage1::error::{Context, Error, Result};

use crate::fsutil::digest;
use crate::fsutil::dir::{PRIVATE, make_dir, sync_dir, sync_file_system};
use crate::fsutil::space::{Room, Watched};
use crate::image::archive;
use crate::image::archive::{Hashed, ImageId, Limits};
use crate::image::blobs;
use crate::image::oci;
use crate::image::oci::Layout;
use crate::image::options::{Kind, Options};
use crate::image::store::{Image, Info, checked_name, directory, load, set_name, set_reference};
use crate::image::tree as trees;
use crate::store::{Store, TemporaryDir};

/// What an import did.
#[derive(Debug)]
pub struct Imported {
    /// The image, new or there before.
    pub image: Image,
    /// The name that now points to it.
    pub name: String,
    /// The image that the name pointed to before, if it was another one.
    pub replaced: Option<ImageId>,
}

/// Imports an ACI. It is called `name`, or as its manifest says.
///
/// # Errors
/// The archive can't be read, is not an image, or holds anything that could leave its root; the store is unchanged.
pub fn import_archive(store: &Store, source: impl Read, name: Option<&str>) -> Result<Imported> {
    let limits = Limits { devices: true, ..Limits::default() };
    let options = Options { name: name.map(str::to_owned), kind: Some(Kind::Aci), limits, ..Options::default() };
    import_file(store, source, &options)
}

/// Imports an archive of any kind, compressed or not.
///
/// # Errors
/// The archive can't be read, is not an image, or holds anything that could leave its root; the store is unchanged.
pub fn import_file(store: &Store, source: impl Read, options: &Options) -> Result<Imported> {
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
    if kind != Kind::Rootfs {
        options.must_not_run()?;
    }
    let open = || File::open(&archive).context(|| format!("open {archive:?}"));
    match kind {
        Kind::Aci => finish(store, &work, written, options),
        Kind::Oci | Kind::Docker => convert(store, &work, &Layout::in_tar(open()?)?, kind, options),
        Kind::Dir => Err(Error::new("a directory with a manifest and blobs is not a file")),
        Kind::Rootfs => {
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

/// Imports a directory: an OCI image layout or a plain root file system.
///
/// # Errors
/// The directory can't be read, or holds anything that could leave its root; the store is unchanged.
pub fn import_directory(store: &Store, directory: &Path, options: &Options) -> Result<Imported> {
    options.name.as_deref().map(checked_name).transpose()?;
    let is_layout = directory.join("oci-layout").is_file() && directory.join("index.json").is_file();
    let work = store.temporary_dir()?;
    match options.kind.unwrap_or(if is_layout { Kind::Oci } else { Kind::Rootfs }) {
        Kind::Rootfs => {
            let manifest = options.manifest.as_ref().context(|| "a root file system needs a name: --name")?;
            pack(store, &work, manifest, directory, options)
        }
        kind @ (Kind::Oci | Kind::Docker | Kind::Dir) => {
            options.must_not_run()?;
            convert(store, &work, &Layout::in_directory(directory)?, kind, options)
        }
        Kind::Aci => Err(Error::new("an application container image is a file, not a directory")),
    }
}

/// Imports an OCI image layout that is below a working directory.
///
/// # Errors
/// It is not an image, or holds anything that could leave its root; the store is unchanged.
pub(crate) fn import_layout(store: &Store, work: &TemporaryDir, layout: &Path, options: &Options) -> Result<Imported> {
    convert(store, work, &Layout::in_directory(layout)?, Kind::Oci, options)
}

/// Tells from the names in an archive what it holds.
fn kind_of(path: &Path) -> Result<Kind> {
    let file = File::open(path).context(|| format!("open {path:?}"))?;
    let mut entries = archive::Entries::new(BufReader::with_capacity(1 << 17, file));
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
            return Ok(Kind::Aci);
        }
    }
    Ok(match (layout, docker, manifest || rootfs) {
        (true, _, _) => Kind::Oci,
        (_, true, _) => Kind::Docker,
        // it lacks a part, which is then named
        (_, _, true) if manifest => Kind::Aci,
        _ => Kind::Rootfs,
    })
}

/// An archive in the working directory.
struct Written {
    path: PathBuf,
    id: ImageId,
    size: u64,
    /// The configuration that it came with.
    config: Option<Vec<u8>>,
}

fn write_archive(path: &Path, limits: Limits, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Written> {
    let shown = || format!("write {path:?}");
    let file = File::create_new(path).context(shown)?;
    let room = Room::of(file.try_clone().context(shown)?.into());
    let mut hashed = Hashed::new(Watched::new(BufWriter::with_capacity(1 << 17, file), room), limits);
    write(&mut hashed)?;
    let (id, size, out) = hashed.finish();
    out.into_inner().into_inner().context(shown)?;
    Ok(Written { path: path.to_owned(), id, size, config: None })
}

/// Makes an image of an OCI image.
fn convert(store: &Store, work: &TemporaryDir, layout: &Layout, kind: Kind, options: &Options) -> Result<Imported> {
    let root = work.path().join("merged");
    make_dir(&root, 0o755)?;
    let mut wanted = options.wanted.clone();
    wanted.name = options.manifest.as_ref().map(|manifest| manifest.name.to_string());
    let found = match kind {
        Kind::Docker => oci::docker(layout, &wanted)?,
        Kind::Dir => oci::directory(layout, &wanted)?,
        _ => oci::index(layout, &wanted)?,
    };
    let manifest = oci::unpack(layout, &found, &root, options)?;
    let config = found.raw_config(layout)?;
    let json = serde_json::to_vec(&manifest).context(|| "write the image manifest")?;
    let mut written = write_packed(work, &json, &root, options)?;
    written.config = Some(config);
    finish(store, work, written, options)
}

/// Makes an image of a root file system.
fn pack(
    store: &Store,
    work: &TemporaryDir,
    manifest: &ImageManifest,
    root: &Path,
    options: &Options,
) -> Result<Imported> {
    let json = serde_json::to_vec(manifest).context(|| "write the image manifest")?;
    let written = write_packed(work, &json, root, options)?;
    finish(store, work, written, options)
}

fn write_packed(work: &TemporaryDir, manifest: &[u8], root: &Path, options: &Options) -> Result<Written> {
    write_archive(&work.path().join("packed"), options.limits, |out| {
        archive::pack(manifest, root, out, options.limits.devices)
    })
}

/// Puts an image into the store, unless it is there and whole, and names it.
fn finish(store: &Store, work: &TemporaryDir, written: Written, options: &Options) -> Result<Imported> {
    let id = &written.id;
    let mut rendered = false;
    loop {
        if !rendered && (!is_whole(store, &written) || trees::quick_fault(store, id)?.is_some()) {
            render(store, work, &written, options)?;
            sync_file_system(work.path())?;
            rendered = true;
        } else if !rendered && options.kept.is_some() {
            sync_file_system(work.path())?;
        }
        let _lock = store.lock_images()?;
        let (has_image, has_tree) = (is_whole(store, &written), trees::quick_fault(store, id)?.is_none());
        if !rendered && (!has_image || !has_tree) {
            // another process has removed it just before the lock was taken
            continue;
        }
        if let Some((_, blobs)) = &options.kept {
            blobs::place(store, blobs)?;
        }
        if !has_tree {
            trees::place(store, work, id)?;
        }
        if !has_image {
            place(store, work, id)?;
        }
        if let Some((kept, _)) = &options.kept {
            blobs::note(store, id, kept)?;
        }
        let image = load(store, id)?;
        if let Some(first) = options.references.first() {
            let mut replaced = None;
            for reference in &options.references {
                replaced = set_reference(store, reference, id)?.or(replaced);
            }
            return Ok(Imported { image, name: first.to_string(), replaced });
        }
        let name = options.name.clone().unwrap_or_else(|| image.parsed.name.to_string());
        let replaced = set_name(store, &name, id)?;
        return Ok(Imported { image, name, replaced });
    }
}

/// Whether the image is in the store with all its files; an archive that was found damaged is missing.
fn is_whole(store: &Store, written: &Written) -> bool {
    let archive = directory(store, &written.id).join("archive");
    archive.metadata().is_ok_and(|archive| archive.len() == written.size) && load(store, &written.id).is_ok()
}

/// Makes the image's tree and directory in the working directory.
fn render(store: &Store, work: &TemporaryDir, written: &Written, options: &Options) -> Result<()> {
    let open = || {
        let file = File::open(&written.path).context(|| format!("open {:?}", written.path))?;
        Ok(BufReader::with_capacity(1 << 17, file))
    };
    let manifest = archive::manifest(open()?)?;
    let parsed = ImageManifest::parse(&manifest)?;
    let dependencies = trees::render(store, work, open()?, &parsed, None, options.limits)?;
    let info = Info {
        import_time: crate::fsutil::time::nanoseconds(SystemTime::now()),
        size: written.size,
        manifest: digest::of_bytes(&manifest),
        dependencies,
        kept: Vec::new(),
    };
    let dir = work.path().join("image");
    make_dir(&dir, PRIVATE)?;
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::write(&path, bytes).context(|| format!("write {path:?}"))
    };
    write("manifest", &manifest)?;
    written.config.iter().try_for_each(|config| write("config", config))?;
    write("info", &serde_json::to_vec(&info).context(|| "write image info")?)?;
    let to = dir.join("archive");
    std::fs::rename(&written.path, &to).context(|| format!("rename {:?} to {to:?}", written.path))
}

/// Puts the image in the working directory into the store, in the place of a damaged one; the caller holds the lock.
fn place(store: &Store, work: &TemporaryDir, id: &ImageId) -> Result<()> {
    make_dir(&store.images(), PRIVATE)?;
    let (from, to) = (work.path().join("image"), directory(store, id));
    let flags = if to.exists() { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
    rustix::fs::renameat_with(CWD, &from, CWD, &to, flags).context(|| format!("rename {from:?} to {to:?}"))?;
    sync_dir(&store.images())
}
