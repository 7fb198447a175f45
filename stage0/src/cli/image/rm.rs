//! `podctl image rm`

use clap::Args;
use stage1::error::{Context, Error, Result};

use crate::cli::output::say;
use crate::cli::session::Session;
use crate::image::gc::remove;
use crate::image::store::{find, names};
use crate::store::Store;

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
            if let Err(error) = remove_one(store, text) {
                failed.push(error.one_line());
            }
        }
        if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
    }
}

/// Removes the image that `text` means, or takes the name `text` away from an image that has others.
fn remove_one(store: &Store, text: &str) -> Result<()> {
    let id = find::find_id(store, text)?;
    let meant = find::names_meant(store, text)?;
    if !meant.is_empty() && meant.len() < names::names_of(store, &id)?.len() {
        for (name, _) in &meant {
            names::untag(store, name)?;
        }
        let left = names::names_of(store, &id)?.join(", ");
        let taken: Vec<String> = meant.into_iter().map(|(name, _)| name).collect();
        return say(format_args!("untagged {}: the image has the name {left}", taken.join(", ")));
    }
    remove(store, &id).context(|| format!("remove image {}", id.short()))?;
    say(id)
}
