//! `podctl image …`

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;
use stage1::appc::{AcIdentifier, App, ImageManifest, NameValue};
use stage1::error::{Context, Error, Result};

use super::{Format, Session, format, say};
use crate::archive::{ImageId, Limits};
use crate::images::{self, Health, Image, Imported, Kind, Options};
use crate::oci::Wanted;
use crate::time::nanoseconds;
use crate::trees;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Take an image, or a plain root file system, into the store
    Import(Import),
    /// List the images
    List(List),
    /// Tell all about an image
    Show(Show),
    /// Print the manifest of an image
    CatManifest(CatManifest),
    /// Look at every byte of images and their trees, and mend what is damaged, if the rest allows it
    Verify(Verify),
    /// Remove images that no pod uses
    Rm(Rm),
    /// Remove images that have lost their name to a newer one, and trees, that no pod uses
    Gc(Gc),
    /// Write an image to a file, as an application container image
    Export(Export),
    /// Copy the files of an image, with all that it depends on, to a new directory
    Render(Render),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Import(import) => import.run(session),
            Self::List(list) => list.run(session),
            Self::Show(show) => show.run(session),
            Self::CatManifest(cat) => cat.run(session),
            Self::Verify(verify) => verify.run(session),
            Self::Rm(rm) => rm.run(session),
            Self::Gc(gc) => gc.run(session),
            Self::Export(export) => export.run(session),
            Self::Render(render) => render.run(session),
        }
    }
}

#[derive(Args, Debug)]
pub struct Import {
    /// An application container image, an OCI image layout (directory or tar), what docker saves, or a root file
    /// system (directory or tar); a file may be compressed with gzip, bzip2, xz or zstd
    source: PathBuf,
    /// What to call the image (else as it says itself, or as the file or directory is called)
    #[arg(long)]
    name: Option<String>,
    /// What the source is, instead of finding it out
    #[arg(long, value_enum)]
    kind: Option<KindWord>,
    /// Of several images the one with this reference or tag
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    /// Of several platforms this one, instead of this machine's
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    /// Take device nodes, too, and not only null, zero, full, random, urandom, tty and ptmx
    #[arg(long)]
    devices: bool,
    /// Refuse an image that takes more than this many bytes uncompressed
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bytes)]
    max_size: u64,
    /// For a root file system: the program that its apps run, with the ARGs
    #[arg(long, value_name = "PROGRAM")]
    exec: Option<String>,
    /// Arguments of that program
    #[arg(last = true, value_name = "ARG")]
    args: Vec<String>,
}

/// What a source may be.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum KindWord {
    /// Application container image
    Aci,
    /// OCI image layout
    Oci,
    /// What docker saves
    Docker,
    /// Plain root file system
    Rootfs,
}

impl Import {
    fn run(self, session: &Session) -> Result<()> {
        let what = || format!("import {:?}", self.source);
        let Imported { image, name, replaced } = self.import(session).context(what)?;
        if let Some(before) = replaced {
            log::warn!("{name:?} was the name of image {} until now", before.short());
        }
        say(image.id)
    }

    fn import(&self, session: &Session) -> Result<Imported> {
        if self.exec.is_none() && !self.args.is_empty() {
            return Err(Error::new("arguments need a program: --exec"));
        }
        let stat = self.source.metadata().context(|| "look at it")?;
        if !stat.is_dir() && !stat.is_file() {
            return Err(Error::new("neither a file nor a directory"));
        }
        let options = Options {
            name: self.name.clone(),
            kind: self.kind.map(|kind| match kind {
                KindWord::Aci => Kind::Aci,
                KindWord::Oci => Kind::Oci,
                KindWord::Docker => Kind::Docker,
                KindWord::Rootfs => Kind::Rootfs,
            }),
            wanted: Wanted { reference: self.reference.clone(), platform: self.platform.clone(), name: None },
            manifest: self.manifest()?,
            limits: Limits { bytes: self.max_size, devices: self.devices, ..Limits::default() },
        };
        if stat.is_dir() {
            let bar = spinner("importing");
            let imported = images::import_directory(&session.store, &self.source, &options);
            bar.finish_and_clear();
            return imported;
        }
        let file = File::open(&self.source).context(|| "open")?;
        let bar = progress(stat.len(), "importing");
        let imported = images::import_file(&session.store, bar.wrap_read(file), &options);
        bar.finish_and_clear();
        imported
    }

    /// The manifest that a plain root file system gets; `None` if it has no name to be called by.
    fn manifest(&self) -> Result<Option<ImageManifest>> {
        let name = match &self.name {
            Some(name) => name.parse().context(|| "image name")?,
            None => match name_of_source(&self.source)? {
                Some(name) => name,
                None => return Ok(None),
            },
        };
        let mut manifest = ImageManifest::new(name);
        manifest.labels = vec![NameValue::new("os", "linux"), NameValue::new("arch", image_arch())];
        if let Some(program) = &self.exec {
            let exec = std::iter::once(program).chain(&self.args).cloned().collect();
            manifest.app = Some(App { exec, user: "0".into(), group: "0".into(), ..App::default() });
        }
        Ok(Some(manifest))
    }
}

/// The source's own name without what tells its format, in the letters that a name can have.
fn name_of_source(path: &Path) -> Result<Option<AcIdentifier>> {
    let path = path.canonicalize().context(|| "resolve")?;
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut stem = name.as_str();
    if !path.is_dir() {
        for end in [".gz", ".bz2", ".xz", ".zst", ".tgz", ".tar", ".aci", ".oci"] {
            stem = stem.strip_suffix(end).unwrap_or(stem);
        }
    }
    let words: Vec<&str> = stem.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    Ok(words.join("-").parse().ok())
}

/// This machine's architecture as images call it.
fn image_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    }
}

/// A bar on standard error, if that is a terminal.
fn progress(bytes: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar.with_message(what)
}

/// A sign of life on standard error, if that is a terminal.
fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[derive(Args, Debug)]
pub struct List {
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// A line of the list; the field names are those of rkt's api.
#[derive(Serialize)]
struct Listed {
    id: String,
    name: String,
    import_time: i64,
    /// Nothing if it has just been removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_time: Option<i64>,
    size: u64,
}

impl List {
    fn run(self, session: &Session) -> Result<()> {
        let images = images::list(&session.store)?;
        let listed = images.into_iter().map(|(image, names)| Listed {
            id: image.id.to_string(),
            // an image whose name went to a newer one has none any more
            name: names.join(", "),
            import_time: image.info.import_time,
            last_used_time: images::last_used(&session.store, &image.id).ok().map(nanoseconds),
            size: image.info.size,
        });
        match self.format {
            Format::Json => format::json(&listed.collect::<Vec<_>>()),
            Format::Text => format::table(
                ["ID", "NAME", "SIZE", "IMPORTED"],
                listed.map(|image| {
                    [
                        image.id[.."sha512-".len() + 12].to_owned(),
                        image.name,
                        format::size(image.size),
                        format::time(Some(image.import_time)),
                    ]
                }),
            ),
        }
    }
}

#[derive(Args, Debug)]
pub struct Show {
    /// Name of the image, or its id, or the start of that
    image: String,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Serialize)]
struct Shown {
    id: String,
    names: Vec<String>,
    import_time: i64,
    size: u64,
    /// What a quick look at the tree found; nothing if it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    tree_fault: Option<String>,
    dependencies: Vec<String>,
    pods: Vec<String>,
    manifest: Value,
}

impl Show {
    fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let image = images::find(store, &self.image)?;
        let names = images::list(store)?.into_iter().find(|(other, _)| other.id == image.id);
        let shown = Shown {
            id: image.id.to_string(),
            names: names.map(|(_, names)| names).unwrap_or_default(),
            import_time: image.info.import_time,
            size: image.info.size,
            tree_fault: trees::quick_fault(store, &image.id)?,
            dependencies: image.info.dependencies.iter().map(ImageId::to_string).collect(),
            pods: images::users(store)?.remove(image.id.as_str()).unwrap_or_default(),
            manifest: serde_json::from_slice(&image.manifest).context(|| "read the manifest")?,
        };
        match self.format {
            Format::Json => format::json(&shown),
            Format::Text => shown.print(&image),
        }
    }
}

impl Shown {
    fn print(&self, image: &Image) -> Result<()> {
        let pairs = |list: &[NameValue]| -> Vec<String> {
            list.iter().map(|one| format!("{}={}", one.name, one.value)).collect()
        };
        let app = image.parsed.app.as_ref();
        let rows = [
            ("ID", self.id.clone()),
            ("NAMES", self.names.join(", ")),
            ("IMPORTED", format::time(Some(self.import_time))),
            ("SIZE", format::size(self.size)),
            ("LABELS", pairs(&image.parsed.labels).join(" ")),
            ("RUNS", app.map(|app| app.exec.join(" ")).unwrap_or_default()),
            ("USER", app.map(|app| format!("{}:{}", app.user, app.group)).unwrap_or_default()),
            ("ANNOTATIONS", pairs(&image.parsed.annotations).join(" ")),
            ("DEPENDENCIES", self.dependencies.join(" ")),
            ("PODS", self.pods.join(" ")),
            ("TREE", self.tree_fault.clone().unwrap_or_else(|| "whole, as far as a quick look tells".into())),
        ];
        format::table(["", ""], rows.map(|(name, value)| [name.to_owned(), value]))
    }
}

#[derive(Args, Debug)]
pub struct CatManifest {
    /// Name of the image, or its id, or the start of that
    image: String,
}

impl CatManifest {
    fn run(self, session: &Session) -> Result<()> {
        let image = images::find(&session.store, &self.image)?;
        let manifest: Value = serde_json::from_slice(&image.manifest).context(|| "read the manifest")?;
        format::json(&manifest)
    }
}

#[derive(Args, Debug)]
pub struct Verify {
    /// Names or ids of images, or the starts of those; without any, all images
    images: Vec<String>,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Serialize)]
struct Verified {
    id: String,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

impl Verify {
    fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let ids = match self.images.is_empty() {
            true => images::ids(store)?,
            false => self.images.iter().map(|text| images::find_id(store, text)).collect::<Result<_>>()?,
        };
        let bar = progress(ids.len() as u64, "verifying");
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}") {
            bar.set_style(style);
        }
        let mut found = Vec::new();
        for id in ids {
            let (health, fault) = match images::verify(store, &id).context(|| format!("verify image {}", id.short()))? {
                Health::Whole => ("whole", None),
                Health::Mended(fault) => ("mended", Some(fault)),
                Health::Damaged(fault) => ("damaged", Some(fault)),
            };
            found.push(Verified { id: id.to_string(), health, fault });
            bar.inc(1);
        }
        bar.finish_and_clear();
        let damaged = found.iter().filter(|one| one.health == "damaged").count();
        match self.format {
            Format::Json => format::json(&found)?,
            Format::Text => format::table(
                ["ID", "HEALTH", "FAULT"],
                found.into_iter().map(|one| {
                    [
                        one.id[.."sha512-".len() + 12].to_owned(),
                        one.health.to_owned(),
                        one.fault.unwrap_or_else(|| "-".into()),
                    ]
                }),
            )?,
        }
        if damaged > 0 {
            return Err(Error::new(format!("{damaged} of the images are damaged; import them again")));
        }
        Ok(())
    }
}

#[derive(Args, Debug)]
pub struct Rm {
    /// Names or ids of images, or the starts of those
    #[arg(required = true)]
    images: Vec<String>,
}

impl Rm {
    fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let mut failed = Vec::new();
        for text in &self.images {
            let removed = images::find_id(store, text).and_then(|id| {
                images::remove(store, &id).context(|| format!("remove image {}", id.short()))?;
                say(id)
            });
            if let Err(error) = removed {
                failed.push(error.one_line());
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
    }
}

#[derive(Args, Debug)]
pub struct Gc {
    /// Keep images that were imported, made use of or had their name this short a time ago
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    grace_period: humantime::Duration,
    /// How to print what was removed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Gc {
    fn run(self, session: &Session) -> Result<()> {
        let collected = images::collect(&session.store, self.grace_period.into())?;
        let images: Vec<String> = collected.images.iter().map(ImageId::to_string).collect();
        match self.format {
            Format::Json => format::json(&serde_json::json!({ "images": images, "trees": collected.trees })),
            Format::Text => {
                images.iter().try_for_each(|id| say(format!("image {id}")))?;
                collected.trees.iter().try_for_each(|name| say(format!("tree {name}")))
            }
        }
    }
}

#[derive(Args, Debug)]
pub struct Render {
    /// Name of the image, or its id, or the start of that
    image: String,
    /// The directory, which must not be there yet
    directory: PathBuf,
}

impl Render {
    fn run(self, session: &Session) -> Result<()> {
        let image = images::find(&session.store, &self.image)?;
        let bar = spinner("copying");
        let copied = trees::copy_out(&session.store, &image.id, &self.directory);
        bar.finish_and_clear();
        copied.context(|| format!("render image {}", image.id.short()))
    }
}

#[derive(Args, Debug)]
pub struct Export {
    /// Name of the image, or its id, or the start of that
    image: String,
    /// Where to write it; - is standard output
    file: PathBuf,
    /// Compress it
    #[arg(long)]
    gzip: bool,
    /// Replace the file if it is there
    #[arg(long)]
    overwrite: bool,
}

impl Export {
    fn run(self, session: &Session) -> Result<()> {
        let image = images::find(&session.store, &self.image)?;
        if self.file.as_os_str() == "-" {
            return self.write(session, &image, io::stdout().lock());
        }
        let shown = || format!("write {:?}", self.file);
        let directory = self.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !self.overwrite && self.file.symlink_metadata().is_ok() {
            return Err(Error::new(format!("{:?} is there already; --overwrite replaces it", self.file)));
        }
        let mut name = std::ffi::OsString::from(".podctl-export-");
        name.push(uuid::Uuid::new_v4().to_string());
        let temporary = directory.join(name);
        let written = File::create_new(&temporary).context(shown).and_then(|file| {
            let bar = progress(image.info.size, "exporting");
            let written = self.write(session, &image, bar.wrap_write(&file));
            bar.finish_and_clear();
            written?;
            file.sync_all().context(shown)?;
            std::fs::rename(&temporary, &self.file).context(shown)
        });
        match written {
            Ok(()) => Ok(()),
            Err(error) => {
                if temporary.exists() {
                    std::fs::remove_file(&temporary).context(|| format!("remove {temporary:?}"))?;
                }
                Err(error)
            }
        }
    }

    fn write(&self, session: &Session, image: &Image, to: impl Write) -> Result<()> {
        let mut to = BufWriter::with_capacity(1 << 17, to);
        if self.gzip {
            let mut packed = GzEncoder::new(&mut to, flate2::Compression::default());
            images::export(&session.store, &image.id, &mut packed)?;
            packed.finish().context(|| "write")?;
        } else {
            images::export(&session.store, &image.id, &mut to)?;
        }
        to.flush().context(|| "write")
    }
}
