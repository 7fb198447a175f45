//! `podctl export` and `podctl commit`

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use stage1::error::{Context, Error, Result};

use super::args::one_app::OneApp;
use super::output;
use super::session::Session;
use crate::app::snapshot;
use crate::fsutil::named_file;
use crate::poddir::manifest::must_have;
use crate::registry::Name;

/// Writes the files of an app's root file system, without its volumes, as a tar archive. Freezes the app meanwhile.
#[derive(Args, Debug)]
pub struct Export {
    #[command(flatten)]
    one: OneApp,
    /// Write to this new file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    overwrite: bool,
}

impl Export {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        must_have(&pod, &app)?;
        let write = |to: &mut dyn Write| {
            let mut out = BufWriter::with_capacity(1 << 17, to);
            snapshot::export(&session.store, &pod, &app, &mut out)?;
            out.flush().context(|| "write")
        };
        match &self.output {
            Some(path) => named_file::write(path, self.overwrite, |mut file| write(&mut file)),
            None if io::stdout().is_terminal() => {
                Err(Error::new("cannot write an archive to a terminal: name a file with -o"))
            }
            None => write(&mut io::stdout().lock()),
        }
    }
}

/// Makes an image of an app's current files, without its volumes, with the configuration of the app's image. Freezes
/// the app meanwhile.
#[derive(Args, Debug)]
pub struct Commit {
    #[command(flatten)]
    one: OneApp,
    /// Name the image
    #[arg(short, long, value_name = "NAME")]
    tag: String,
}

impl Commit {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        must_have(&pod, &app)?;
        let made = snapshot::commit(&session.store, &pod, &app, Name::local(&self.tag)?)?;
        output::say(made.image.id.as_str())
    }
}
