//! `podctl image pull`

use clap::Args;
use stage1::error::{Context, Result};

use super::progress::say_what_came;
use crate::cli::args::incoming_image::IncomingImage;
use crate::cli::args::registry::RegistryOptions;
use crate::cli::session::Session;
use crate::image::import::Imported;
use crate::image::options::ImportOptions;
use crate::image::platform::ImageChoice;
use crate::image::pull::pull;
use crate::interrupt::Watch;
use crate::registry::Name;

#[derive(Args, Debug)]
pub struct Pull {
    /// Names of images: registry.example/name:tag, name@sha256:…, or short names, which registries.conf resolves
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Also keep the compressed layers, which takes more disk space: "image push" does not fetch them again then
    #[arg(long)]
    keep_blobs: bool,
    #[command(flatten)]
    incoming: IncomingImage,
    #[command(flatten)]
    registry: RegistryOptions,
}

impl Pull {
    pub fn run(self, session: &Session) -> Result<()> {
        let names: Vec<Name> = self.names.iter().map(|text| Name::parse(text)).collect::<Result<_>>()?;
        let watch = Watch::begin()?;
        let access = self.registry.access(&watch)?;
        let options = ImportOptions {
            choice: ImageChoice { platform: self.incoming.platform.clone(), ..ImageChoice::default() },
            limits: self.incoming.limits(),
            keep_blobs: self.keep_blobs,
            ..ImportOptions::default()
        };
        for (name, text) in names.iter().zip(&self.names) {
            let pulled = pull(&session.store, &access, name, &options).context(|| format!("pull {text:?}"))?;
            let Imported { image, name, replaced } = pulled.imported;
            if let Some(before) = replaced {
                log::warn!("{name:?} was the name of image {} until now", before.short());
            }
            say_what_came(&image.id, &name)?;
        }
        Ok(())
    }
}
