//! `podctl image untag`

use clap::Args;
use stage1::error::Result;

use crate::cli::output::say;
use crate::cli::session::Session;
use crate::image::store::names as image_names;

#[derive(Args, Debug)]
pub struct Untag {
    /// Names as "podctl image list" shows them; a name without a registry means localhost/
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

impl Untag {
    pub fn run(self, session: &Session) -> Result<()> {
        self.names.iter().try_for_each(|text| image_names::untag(&session.store, text).and_then(|(name, _)| say(name)))
    }
}
