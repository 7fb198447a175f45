//! `podctl image pull`

use clap::Args;
use stage1::error::{Context, Result};

use crate::cli::args::registry::How;
use crate::cli::output::say;
use crate::cli::session::Session;
use crate::image::archive::Limits;
use crate::image::import::Imported;
use crate::image::oci::platform::Wanted;
use crate::image::options::Options;
use crate::image::pull::pull;
use crate::interrupt::Watch;
use crate::registry::Name;

#[derive(Args, Debug)]
pub struct Pull {
    /// Names of images: registry.example/name:tag, name@sha256:…, or short ones as registries.conf has them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Of several platforms this one, instead of this machine's
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    /// Take device nodes, too, and not only null, zero, full, random, urandom, tty and ptmx
    #[arg(long)]
    devices: bool,
    /// Refuse an image that takes more than this many bytes, as it comes or uncompressed
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bytes)]
    max_size: u64,
    #[command(flatten)]
    how: How,
}

impl Pull {
    pub fn run(self, session: &Session) -> Result<()> {
        let names: Vec<Name> = self.names.iter().map(|text| Name::parse(text)).collect::<Result<_>>()?;
        let watch = Watch::begin()?;
        let access = self.how.access(&watch)?;
        let options = Options {
            wanted: Wanted { platform: self.platform.clone(), ..Wanted::default() },
            limits: Limits { bytes: self.max_size, devices: self.devices, ..Limits::default() },
            ..Options::default()
        };
        for (name, text) in names.iter().zip(&self.names) {
            let pulled = pull(&session.store, &access, name, &options).context(|| format!("pull {text:?}"))?;
            let Imported { image, name, replaced } = pulled.imported;
            if let Some(before) = replaced {
                log::warn!("{name:?} was the name of image {} until now", before.short());
            }
            say(image.id)?;
        }
        Ok(())
    }
}
