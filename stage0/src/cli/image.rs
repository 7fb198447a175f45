//! `podctl image …`

use std::fs::File;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use stage1::appc::{AcIdentifier, App, ImageManifest, NameValue};
use stage1::error::{Context, Error, Result};

use super::{Format, Session, format, say};
use crate::images::{self, Imported};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Take an image, or a plain root file system, into the store
    Import(Import),
    /// List the images
    List(List),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Import(import) => import.run(session),
            Self::List(list) => list.run(session),
        }
    }
}

#[derive(Args, Debug)]
pub struct Import {
    /// An application container image (plain or gzip), or the directory of a root file system
    source: PathBuf,
    /// What to call the image (else as its manifest says, or as the directory is called)
    #[arg(long)]
    name: Option<String>,
    /// For a directory: the program that its apps run, with the ARGs
    #[arg(long, value_name = "PROGRAM")]
    exec: Option<String>,
    /// Arguments of that program
    #[arg(last = true, value_name = "ARG")]
    args: Vec<String>,
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
        let kind = self.source.metadata().context(|| "look at it")?.file_type();
        if kind.is_dir() {
            return images::import_directory(&session.store, &self.source, &self.manifest()?);
        }
        if !kind.is_file() {
            return Err(Error::new("neither a file nor a directory"));
        }
        if self.exec.is_some() {
            return Err(Error::new("an image file says itself what it runs; give --exec to \"podctl app add\""));
        }
        let file = File::open(&self.source).context(|| "open")?;
        images::import_archive(&session.store, file, self.name.as_deref())
    }

    /// The manifest that a plain directory gets.
    fn manifest(&self) -> Result<ImageManifest> {
        let name = match &self.name {
            Some(name) => name.parse().context(|| "image name")?,
            None => name_of_directory(&self.source)?,
        };
        let mut manifest = ImageManifest::new(name);
        manifest.labels = vec![NameValue::new("os", "linux"), NameValue::new("arch", image_arch())];
        if let Some(program) = &self.exec {
            let exec = std::iter::once(program).chain(&self.args).cloned().collect();
            manifest.app = Some(App { exec, user: "0".into(), group: "0".into(), ..App::default() });
        }
        Ok(manifest)
    }
}

/// The directory's own name, in the letters that a name can have.
fn name_of_directory(path: &std::path::Path) -> Result<AcIdentifier> {
    let path = path.canonicalize().context(|| "resolve")?;
    let last = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let words: Vec<&str> = last.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-").parse().context(|| "the directory's name is no image name; give one with --name")
}

/// This machine's architecture as images call it.
fn image_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    }
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
