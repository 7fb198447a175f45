//! A file of pods on the command line

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use stage1::error::{Context, Error, Result};

use crate::fsutil::dir::missing;
use crate::pod::settings::Settings;
use crate::podfile::names::{self, PodNames};
use crate::podfile::read;
use crate::store::Store;

/// A file of pods.
#[derive(Debug)]
pub struct KubeFile {
    file: PathBuf,
}

/// A file of pods, with or without `-f`.
#[derive(Args, Debug)]
#[group(required = true, multiple = false, args = ["path", "file"])]
pub struct NamedFile {
    /// The file, as with -f
    #[arg(value_name = "FILE")]
    path: Option<PathBuf>,
    #[command(flatten)]
    file: FileOption,
}

/// The option with a file of pods.
#[derive(Args, Debug)]
pub struct FileOption {
    /// The file: Kubernetes' Pod or Deployment, with ConfigMaps, Secrets and PersistentVolumeClaims; - is standard
    /// input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl FileOption {
    /// The file that was named.
    pub fn file(&self) -> Option<KubeFile> {
        self.file.clone().map(|file| KubeFile { file })
    }
}

impl NamedFile {
    /// The file that was named.
    ///
    /// # Errors
    /// None was.
    pub fn file(self) -> Result<KubeFile> {
        let named = self.file.file().or(self.path.map(|file| KubeFile { file }));
        named.context(|| "name a file with -f")
    }
}

impl KubeFile {
    /// Reads the file; `asked` has the networks given on the command line.
    ///
    /// # Errors
    /// The file can't be read, has more than 8 MiB, is not UTF-8, or is not a valid file of pods.
    pub fn read(&self, store: &Store, asked: &Settings) -> Result<read::File> {
        self.text().and_then(|text| read::file(store, &text, asked)).context(|| self.shown())
    }

    /// Reads the names in the file, and nothing else.
    ///
    /// # Errors
    /// The file can't be read, has more than 8 MiB, is not UTF-8 or not YAML, or names no pod.
    pub fn names(&self) -> Result<Vec<PodNames>> {
        let names = self.text().and_then(|text| names::of_file(&text));
        names
            .context(|| self.shown())
            .map_err(|error| Error::new(format!("{}; \"podctl down NAME\" needs no file", error.one_line())))
    }

    fn text(&self) -> Result<String> {
        match self.is_stdin() {
            true => bounded(io::stdin()),
            false => {
                let file = File::open(&self.file).context(|| "open").map_err(|error| {
                    missing(&self.file, error).map_or_else(|other| other, |_| Error::new("the file does not exist"))
                });
                bounded(file?)
            }
        }
    }

    fn shown(&self) -> String {
        if self.is_stdin() { "standard input".to_owned() } else { format!("{:?}", self.file) }
    }

    fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }
}

fn bounded(from: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    from.take(read::LONGEST + 1).read_to_end(&mut bytes).context(|| "read")?;
    if bytes.len() as u64 > read::LONGEST {
        return Err(Error::new(format!("longer than {} MiB", read::LONGEST >> 20)));
    }
    String::from_utf8(bytes).context(|| "it is not UTF-8")
}
