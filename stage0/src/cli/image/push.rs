//! `podctl image push`

use clap::Args;
use stage1::error::{Context, Result};

use crate::cli::args::registry::RegistryOptions;
use crate::cli::output::say;
use crate::cli::session::Session;
use crate::image::push::push;
use crate::image::store::find;
use crate::interrupt::Watch;
use crate::registry::Reference;

#[derive(Args, Debug)]
pub struct Push {
    /// The image, which was pulled before: its name, its id, or the start of its id
    image: String,
    /// Push it to registry.example/name:tag (default: its name)
    destination: Option<String>,
    #[command(flatten)]
    registry: RegistryOptions,
}

impl Push {
    pub fn run(self, session: &Session) -> Result<()> {
        let to = self.destination.as_ref().unwrap_or(&self.image);
        let to = Reference::parse(to).context(|| "expected a full destination, such as registry.example/name:tag")?;
        let image = find::find(&session.store, &self.image)?;
        let watch = Watch::begin()?;
        let access = self.registry.access(&watch)?;
        say(push(&session.store, &access, &image, &to).context(|| format!("push to {to}"))?)
    }
}
