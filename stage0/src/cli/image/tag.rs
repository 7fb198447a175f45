//! `podctl image tag`

use clap::Args;
use stage1::error::{Error, Result};

use crate::cli::output::say;
use crate::cli::session::Session;
use crate::image::store::find;
use crate::image::store::names as image_names;
use crate::registry::{Name, Reference};

#[derive(Args, Debug)]
pub struct Tag {
    /// The image: its name, its id, or the start of its id
    image: String,
    /// Further names; a name without a registry gets localhost/
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Tag {
    pub fn run(self, session: &Session) -> Result<()> {
        let names: Vec<Reference> = self.names.iter().map(|name| Name::local(name)).collect::<Result<_>>()?;
        if let Some(bad) = names.iter().find(|name| name.digest().is_some()) {
            return Err(Error::new(format!("{bad}: a new name can't have a digest")));
        }
        let id = find::find_id(&session.store, &self.image)?;
        for name in names {
            if let Some(before) = image_names::tag(&session.store, &id, &name)? {
                log::warn!("\"{name}\" was the name of image {} until now", before.short());
            }
            say(name)?;
        }
        Ok(())
    }
}
