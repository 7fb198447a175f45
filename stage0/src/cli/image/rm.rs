//! `podctl image rm`

use clap::Args;
use stage1::error::{Context, Error, Result};

use crate::cli::output::say;
use crate::cli::session::Session;
use crate::image::gc::remove;
use crate::image::store::find;

#[derive(Args, Debug)]
pub struct Rm {
    /// Images: their names, their ids, or the starts of their ids
    #[arg(required = true)]
    images: Vec<String>,
}

impl Rm {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let mut failed = Vec::new();
        for text in &self.images {
            let removed = find::find_id(store, text).and_then(|id| {
                remove(store, &id).context(|| format!("remove image {}", id.short()))?;
                say(id)
            });
            if let Err(error) = removed {
                failed.push(error.one_line());
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
    }
}
