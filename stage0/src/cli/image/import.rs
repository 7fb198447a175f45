//! `podctl image import`

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::rc::Rc;

use clap::{Args, ValueEnum};
use stage1::appc::{AcIdentifier, App, ImageManifest, NameValue};
use stage1::error::{Context, Error, Result};

use super::progress::{progress, say_what_came, spinner};
use super::source::Source;
use crate::cli::args::incoming_image::IncomingImage;
use crate::cli::args::registry::RegistryOptions;
use crate::cli::session::Session;
use crate::fsutil::dir::in_words;
use crate::image::import::{Imported, import_directory, import_file, import_open_file};
use crate::image::options::{ImageFormat, ImportOptions};
use crate::image::platform::ImageChoice;
use crate::image::pull::pull;
use crate::image::store::names as image_names;
use crate::interrupt::Watch;
use crate::registry::Name;

#[derive(Args, Debug)]
pub struct Import {
    /// An application container image (ACI), an OCI image layout (directory or tar), an archive of docker save, or a
    /// root file system (directory or tar); a file may be compressed with gzip, bzip2, xz or zstd. - reads standard
    /// input. Or a name as in skopeo: docker-archive:FILE, oci-archive:FILE, oci:DIR (each with :REFERENCE), dir:DIR,
    /// docker://NAME
    source: String,
    /// Name the image (default: its own name, or that of the file or directory)
    #[arg(long)]
    name: Option<String>,
    /// Take the source as this kind (default: detect it)
    #[arg(long, value_enum)]
    kind: Option<KindWord>,
    /// Of several images, import the one with this reference or tag
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    #[command(flatten)]
    incoming: IncomingImage,
    /// For a root file system: have its apps run this program, with the ARGs
    #[arg(long, value_name = "PROGRAM")]
    exec: Option<String>,
    /// Arguments of that program
    #[arg(last = true, value_name = "ARG")]
    args: Vec<String>,
}

/// The formats of a source.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum KindWord {
    /// Application container image
    Aci,
    /// OCI image layout
    Oci,
    /// Archive of docker save
    Docker,
    /// Directory with a manifest and blobs
    Dir,
    /// Plain root file system
    Rootfs,
}

impl Import {
    pub fn run(self, session: &Session) -> Result<()> {
        let what = || format!("import {:?}", self.source);
        let Imported { image, name, replaced } = self.import(session).context(what)?;
        if let Some(before) = replaced {
            log::warn!("{name:?} was the name of image {} until now", before.short());
        }
        say_what_came(&image.id, &name)
    }

    fn import(&self, session: &Session) -> Result<Imported> {
        if self.exec.is_none() && !self.args.is_empty() {
            return Err(Error::new("arguments need a program: add --exec PROGRAM"));
        }
        let (path, kind, reference) = match Source::parse(&self.source)? {
            Source::Registry(name) => return self.pull(session, &name),
            Source::Input => (None, None, None),
            Source::Path(path, kind, reference) => (Some(path), kind, reference),
        };
        let stat = path.as_ref().map(|path| {
            let stat = path.metadata().context(|| "stat").map_err(in_words(path));
            stat.map_err(|error| match path.exists() {
                true => error,
                false => Error::new(format!("{}; \"podctl image pull\" takes the name of an image", error.one_line())),
            })
        });
        let stat = stat.transpose()?;
        if stat.as_ref().is_some_and(|stat| !stat.is_dir() && !stat.is_file()) {
            return Err(Error::new("it is neither a file nor a directory"));
        }
        let kind = kind.or(self.kind.map(|kind| match kind {
            KindWord::Aci => ImageFormat::Aci,
            KindWord::Oci => ImageFormat::Oci,
            KindWord::Docker => ImageFormat::Docker,
            KindWord::Dir => ImageFormat::Dir,
            KindWord::Rootfs => ImageFormat::Rootfs,
        }));
        let reference = self.reference.clone().or(reference);
        let options = ImportOptions {
            name: self.name.clone(),
            kind,
            choice: ImageChoice { reference, platform: self.incoming.platform.clone(), name: None },
            manifest: self.manifest(path.as_deref())?,
            limits: self.incoming.limits(),
            ..ImportOptions::default()
        };
        let _watch = Watch::begin()?;
        let (Some(path), Some(stat)) = (path, stat) else {
            let bar = spinner("importing");
            let imported = import_file(&session.store, io::stdin().lock(), &options);
            bar.finish_and_clear();
            return imported;
        };
        if stat.is_dir() {
            let bar = spinner("importing");
            let imported = import_directory(&session.store, &path, &options);
            bar.finish_and_clear();
            return imported;
        }
        let file = File::open(&path).context(|| "open")?;
        // the bar appears only if the file is read as a whole: layers have bars of their own
        let bar = Rc::new(OnceCell::new());
        let shown = Rc::clone(&bar);
        let seen = move |file: File| {
            let bar = progress(stat.len(), "importing");
            drop(shown.set(bar.clone()));
            Box::new(bar.wrap_read(file)) as Box<dyn Read>
        };
        let imported = import_open_file(&session.store, file, &options, seen);
        bar.get().iter().for_each(|bar| bar.finish_and_clear());
        imported
    }

    /// Pulls the image like `podctl image pull`, and names it as `--name` says.
    fn pull(&self, session: &Session, name: &str) -> Result<Imported> {
        if self.exec.is_some() || self.kind.is_some() || self.reference.is_some() {
            return Err(Error::new("an image of a registry takes no --exec, --kind or --reference"));
        }
        let watch = Watch::begin()?;
        let access = RegistryOptions::with_authfile(None).access(&watch)?;
        let options = ImportOptions {
            choice: ImageChoice { platform: self.incoming.platform.clone(), ..ImageChoice::default() },
            limits: self.incoming.limits(),
            ..ImportOptions::default()
        };
        let pulled = pull(&session.store, &access, &Name::parse(name)?, &options)?.imported;
        match &self.name {
            None => Ok(pulled),
            Some(name) => {
                let replaced = image_names::name(&session.store, &pulled.image.id, name)?;
                Ok(Imported { name: name.clone(), replaced, ..pulled })
            }
        }
    }

    /// The image manifest for a plain root file system; `None` if neither `--name` nor the source gives it a name.
    fn manifest(&self, source: Option<&Path>) -> Result<Option<ImageManifest>> {
        let name = match &self.name {
            Some(name) => name.parse().context(|| "image name")?,
            None => match source.map(name_of_source).transpose()?.flatten() {
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

/// Derives the image's name from the source's file name, without the endings of its format.
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

/// This machine's architecture by its name in images (GOARCH).
fn image_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    }
}
