//! `podctl image export`

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use flate2::write::GzEncoder;
use stage1::error::{Context, Result};

use super::progress::progress;
use crate::cli::session::Session;
use crate::fsutil::named_file;
use crate::image::export::export;
use crate::image::store::Image;
use crate::image::store::find;

#[derive(Args, Debug)]
pub struct Export {
    /// The image: its name, its id, or the start of its id
    image: String,
    /// Write it to this file; - is standard output
    file: PathBuf,
    /// Compress it with gzip
    #[arg(long)]
    gzip: bool,
    /// Replace an existing file
    #[arg(long)]
    overwrite: bool,
}

impl Export {
    pub fn run(self, session: &Session) -> Result<()> {
        let image = find::find(&session.store, &self.image)?;
        if self.file.as_os_str() == "-" {
            return self.write(session, &image, io::stdout().lock());
        }
        named_file::write(&self.file, self.overwrite, |file| {
            let bar = progress(image.info.size, "exporting");
            let written = self.write(session, &image, bar.wrap_write(file));
            bar.finish_and_clear();
            written
        })
    }

    fn write(&self, session: &Session, image: &Image, to: impl Write) -> Result<()> {
        let mut to = BufWriter::with_capacity(1 << 17, to);
        if self.gzip {
            let mut packed = GzEncoder::new(&mut to, flate2::Compression::default());
            export(&session.store, &image.id, &mut packed)?;
            packed.finish().context(|| "write")?;
        } else {
            export(&session.store, &image.id, &mut to)?;
        }
        to.flush().context(|| "write")
    }
}
